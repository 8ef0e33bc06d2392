/* Lets counting.cu compile as C++: blocks run one after the other, each with a thread for every thread of the GPU. */
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __shared__ static

struct Place { unsigned x; };
static thread_local Place threadIdx, blockIdx;
static std::barrier<> *meeting;

static void __syncthreads() { meeting->arrive_and_wait(); }

template <class To, class From> static To same_bits(From from)
{
    To to;
    static_assert(sizeof to == sizeof from);
    std::memcpy(&to, &from, sizeof to);
    return to;
}
static float __int_as_float(int bits) { return same_bits<float>(bits); }
static int __float_as_int(float x) { return same_bits<int>(x); }
static long long __double_as_longlong(double x) { return same_bits<long long>(x); }
static double __longlong_as_double(long long bits) { return same_bits<double>(bits); }

template <class T> static void atomicAdd(T *at, T value) { std::atomic_ref<T>(*at).fetch_add(value); }
static void atomicMin(int *at, int value)
{
    std::atomic_ref<int> here(*at);
    for (int old = here.load(); value < old && !here.compare_exchange_weak(old, value);) {}
}
static void atomicMax(int *at, int value)
{
    std::atomic_ref<int> here(*at);
    for (int old = here.load(); value > old && !here.compare_exchange_weak(old, value);) {}
}

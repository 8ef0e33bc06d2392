/* The launches, as functions for ctypes. */
#include <functional>

#define STACK 65536

static std::function<void()> kernel;
static std::vector<bool> ended;

static void one_thread()
{
    unsigned mine = threadIdx.x;
    kernel();
    ended[mine] = true;
    swapcontext(&turns[mine], &scheduler);
}

static void launch(int blocks, std::function<void()> body)
{
    static std::vector<char> stacks(THREADS * STACK);
    kernel = body;
    turns.resize(THREADS);
    for (int block = 0; block < blocks; block++) {
        ended.assign(THREADS, false);
        for (unsigned t = 0; t < THREADS; t++) {
            getcontext(&turns[t]);
            turns[t].uc_stack.ss_sp = stacks.data() + t * STACK;
            turns[t].uc_stack.ss_size = STACK;
            turns[t].uc_link = nullptr;
            makecontext(&turns[t], one_thread, 0);
        }
        for (bool all = false; !all;) {
            all = true;
            for (unsigned t = 0; t < THREADS; t++)
                if (!ended[t]) {
                    threadIdx.x = t;
                    blockIdx.x = block;
                    swapcontext(&scheduler, &turns[t]);
                    all = all && ended[t];
                }
        }
    }
}

extern "C" {
void run_extremes(int blocks, const Tensor *tensors, const Work *work, int *keys)
{
    launch(blocks, [&] { extremes(tensors, work, keys); });
}
void run_histograms(int blocks, const Tensor *tensors, const Work *work, const double *factors, unsigned long long *counts)
{
    launch(blocks, [&] { histograms(tensors, work, factors, counts); });
}
void run_unit_sums(int blocks, const View *views, const Work *work, long long channels, Channel *parts)
{
    launch(blocks, [&] { unit_sums(views, work, channels, parts); });
}
void run_merge_groups(int blocks, const int *groups, long long channels, const Channel *parts, Channel *sums)
{
    launch(blocks, [&] { merge_groups(groups, channels, parts, sums); });
}
}

/* Counting on the GPU: what quantkit/_kernel.c does on the CPU, for all tensors of a run of the network at once.
 *
 *   extremes         the order-preserving keys of minimum and maximum of every tensor
 *   histograms       |x| of every tensor in 2049 bins of its range
 *   unit_sums        sums and sums of squares of a channel, a unit (an image, a row) in the C kernel's order, units exactly
 *   merge_groups     the parts of `unit_sums` together, for every channel
 *
 * Each launch gets a table of tensors (or of views) and a table of work: a block takes one item of work. quantkit/
 * kernel.py says what bins and exact sums mean. NVRTC compiles this file through CuPy, and the tests compile the same
 * text as C++, with threads for the threads of a block.
 */
#define BINS 2048
#define LANES 8
#define PLANES 32               /* planes of a block; LANES threads for each */
#define THREADS 256
#define AHEAD 8                 /* loads of a thread that are under way at once */
#define CHUNK 65536LL           /* elements of an item of work */
#define DIGIT 32                /* bits of a digit of an exact sum */
#define DIGITS 3
#define EMPTY (-1000)           /* top digit of a sum that has not seen a nonzero value */
#define LEAST_KEY (-2147483647 - 1)
#define MOST_KEY 2147483647

enum Type { FLOAT = 0, HALF = 1, DOUBLE = 2 };

struct Tensor {
    const void *x;
    long long elements;
    long long type;
};

/* x[u, r, c, i] lies `strides` elements apart; the channels of all views are numbered through, from `first` on. */
struct View {
    const void *x;
    long long type, units, rows, channels, inner;
    long long unit_stride, row_stride, channel_stride;
    long long first;
};

struct Work {
    int subject;                /* tensor or view */
    int part;                   /* chunk of a tensor, or tile of channels */
    int group;                  /* of units */
    int groups;
};

struct Half { unsigned short bits; };

__device__ inline float number(float x) { return x; }
__device__ inline float number(double x) { return (float)x; }
__device__ inline float number(Half x)
{
    int sign = (x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, fraction = x.bits & 0x3ff;
    if (exponent == 31)
        return __int_as_float(sign | 0x7f800000 | fraction << 13);
    if (exponent)
        return __int_as_float(sign | (exponent + 112) << 23 | fraction << 13);
    float tiny = (float)fraction * 5.9604644775390625e-8f;  /* 2^-24: exact */
    return sign ? -tiny : tiny;
}

__device__ inline int key_of(int bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }

template <class T> __device__ void chunk_extremes(const T *x, long long i, long long end, int *low, int *high)
{
    int lo = MOST_KEY, hi = LEAST_KEY;
#pragma unroll 8
    for (; i < end; i += THREADS) {
        int key = key_of(__float_as_int(number(x[i])));
        lo = key < lo ? key : lo;
        hi = key > hi ? key : hi;
    }
    atomicMin(low, lo);
    atomicMax(high, hi);
}

/* keys [tensors, 2] begins with (MOST_KEY, LEAST_KEY) */
extern "C" __global__ void extremes(const Tensor *tensors, const Work *work, int *keys)
{
    __shared__ int low, high;
    Work item = work[blockIdx.x];
    Tensor tensor = tensors[item.subject];
    long long begin = CHUNK * item.part, end = begin + CHUNK < tensor.elements ? begin + CHUNK : tensor.elements;
    if (threadIdx.x == 0) {
        low = MOST_KEY;
        high = LEAST_KEY;
    }
    __syncthreads();
    begin += threadIdx.x;
    if (tensor.type == FLOAT)
        chunk_extremes((const float *)tensor.x, begin, end, &low, &high);
    else if (tensor.type == HALF)
        chunk_extremes((const Half *)tensor.x, begin, end, &low, &high);
    else
        chunk_extremes((const double *)tensor.x, begin, end, &low, &high);
    __syncthreads();
    if (threadIdx.x == 0) {
        atomicMin(keys + 2 * item.subject, low);
        atomicMax(keys + 2 * item.subject + 1, high);
    }
}

template <class T> __device__ void count_chunk(const T *x, long long i, long long end, double factor, unsigned *bins)
{
    unsigned zeros = 0;         /* half of the values behind a ReLU: no two threads wait for the same bin */
    for (; i < end; i += AHEAD * THREADS) {
        int bin[AHEAD];         /* loads do not wait for the counting of earlier values */
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            bin[k] = i + k * THREADS < end ? (int)(fabs((double)number(x[i + k * THREADS])) * factor) : -1;
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            if (bin[k] > 0)
                atomicAdd(bins + bin[k], 1u);
            else
                zeros += bin[k] == 0;
    }
    if (zeros)
        atomicAdd(bins, zeros);
}

/* counts [tensors, 2049] begins with zeros; factors [tensors]: 2048/R nudged, 0 for R = 0, negative: do not count */
extern "C" __global__ void histograms(const Tensor *tensors, const Work *work, const double *factors,
                                      unsigned long long *counts)
{
    __shared__ unsigned bins[BINS + 1];
    Work item = work[blockIdx.x];
    Tensor tensor = tensors[item.subject];
    double factor = factors[item.subject];
    long long begin = CHUNK * item.part, end = begin + CHUNK < tensor.elements ? begin + CHUNK : tensor.elements;
    if (factor < 0)
        return;
    for (int i = threadIdx.x; i <= BINS; i += THREADS)
        bins[i] = 0;
    __syncthreads();
    begin += threadIdx.x;
    if (tensor.type == FLOAT)
        count_chunk((const float *)tensor.x, begin, end, factor, bins);
    else if (tensor.type == HALF)
        count_chunk((const Half *)tensor.x, begin, end, factor, bins);
    else
        count_chunk((const double *)tensor.x, begin, end, factor, bins);
    __syncthreads();
    for (int i = threadIdx.x; i <= BINS; i += THREADS)
        if (bins[i])
            atomicAdd(counts + (BINS + 1LL) * item.subject + i, (unsigned long long)bins[i]);
}

/* An exact sum: value = sum of digits[k] * 2^(32 (top - k)), as in _kernel.c */
struct Sum { long long top, digits[DIGITS]; };

__device__ inline Sum nothing()
{
    Sum sum = {EMPTY, {0, 0, 0}};
    return sum;
}

__device__ inline void lift(Sum *sum, long long top)
{
    long long up = top - sum->top;
    if (up <= 0)
        return;
    for (int k = DIGITS - 1; k >= 0; k--) {
        long long moved = 0;    /* no index that depends on data: the digits stay in registers */
        for (int j = 0; j < k; j++)
            if (k - up == j)
                moved = sum->digits[j];
        sum->digits[k] = moved;
    }
    sum->top = top;
}

__device__ inline void add_exactly(Sum *sum, double value)
{
    if (value == 0)
        return;
    lift(sum, (((__double_as_longlong(value) >> 52) & 0x7ff) - 1023) >> 5);
    value *= __longlong_as_double((1023 - DIGIT * sum->top) << 52);     /* every step is exact */
    for (int k = 0; k < DIGITS; k++) {
        long long digit = (long long)value;
        sum->digits[k] += digit;
        value = (value - (double)digit) * 4294967296.0;
    }
}

__device__ inline void join(Sum *sum, Sum other)
{
    lift(sum, other.top);
    lift(&other, sum->top);
    for (int k = 0; k < DIGITS; k++)
        sum->digits[k] += other.digits[k];
}

struct Channel {
    Sum total, squares;
    int low, high;              /* keys */
    long long pad;
};

__device__ inline void take(float value, double *sum, double *squares, int *low, int *high)
{
    int key = key_of(__float_as_int(value));
    double d = value;
    *sum += d;
    *squares += d * d;          /* exact: 48 bits */
    *low = key < *low ? key : *low;
    *high = key > *high ? key : *high;
}

template <class T> __device__ void sum_planes(const T *x, const View *view, Work item, Channel *out)
{
    __shared__ double total[THREADS], squares[THREADS];
    __shared__ int low[PLANES], high[PLANES];
    int lane = threadIdx.x % LANES, plane = threadIdx.x / LANES;
    long long channel = (long long)PLANES * item.part + plane;
    bool there = channel < view->channels;
    Channel mine = {nothing(), nothing(), MOST_KEY, LEAST_KEY, 0};
    if (lane == 0) {
        low[plane] = MOST_KEY;
        high[plane] = LEAST_KEY;
    }
    __syncthreads();
    for (long long unit = item.group; unit < view->units; unit += item.groups) {
        double s = 0, q = 0;
        int lo = MOST_KEY, hi = LEAST_KEY;
        if (there) {
            const T *at = x + unit * view->unit_stride + channel * view->channel_stride;
            long long i = lane, inner = view->inner;
            for (; i + (AHEAD - 1) * LANES < inner; i += AHEAD * LANES) {
                float values[AHEAD];
#pragma unroll
                for (int k = 0; k < AHEAD; k++)
                    values[k] = number(at[i + k * LANES]);
#pragma unroll
                for (int k = 0; k < AHEAD; k++)
                    take(values[k], &s, &q, &lo, &hi);
            }
            for (; i < inner; i += LANES)
                take(number(at[i]), &s, &q, &lo, &hi);
            atomicMin(low + plane, lo);
            atomicMax(high + plane, hi);
        }
        total[threadIdx.x] = s;
        squares[threadIdx.x] = q;
        __syncthreads();
        if (lane == 0 && there) {
            const double *a = total + threadIdx.x, *b = squares + threadIdx.x;
            add_exactly(&mine.total, ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7])));
            add_exactly(&mine.squares, ((b[0] + b[1]) + (b[2] + b[3])) + ((b[4] + b[5]) + (b[6] + b[7])));
        }
        __syncthreads();
    }
    if (lane == 0 && there) {
        mine.low = low[plane];
        mine.high = high[plane];
        out[view->first + channel] = mine;
    }
}

template <class T> __device__ void sum_rows(const T *x, const View *view, Work item, Channel *out)
{
    long long channel = (long long)THREADS * item.part + threadIdx.x;
    Channel mine = {nothing(), nothing(), MOST_KEY, LEAST_KEY, 0};
    if (channel >= view->channels)
        return;
    for (long long unit = item.group; unit < view->units; unit += item.groups) {
        const T *at = x + unit * view->unit_stride + channel * view->channel_stride;
        double s = 0, q = 0;
#pragma unroll 4
        for (long long row = 0; row < view->rows; row++)
            take(number(at[row * view->row_stride]), &s, &q, &mine.low, &mine.high);
        add_exactly(&mine.total, s);
        add_exactly(&mine.squares, q);
    }
    out[view->first + channel] = mine;
}

template <class T> __device__ void sum_view(const T *x, const View *view, Work item, Channel *out)
{
    if (view->inner == 1)
        sum_rows(x, view, item, out);
    else
        sum_planes(x, view, item, out);
}

/* parts [groups, channels of all views] */
extern "C" __global__ void unit_sums(const View *views, const Work *work, long long channels, Channel *parts)
{
    Work item = work[blockIdx.x];
    const View *view = views + item.subject;
    Channel *out = parts + channels * item.group;
    if (view->type == FLOAT)
        sum_view((const float *)view->x, view, item, out);
    else if (view->type == HALF)
        sum_view((const Half *)view->x, view, item, out);
    else
        sum_view((const double *)view->x, view, item, out);
}

/* Adds the parts of every channel to `sums`, which begins with nothing(), MOST_KEY and LEAST_KEY. groups [channels] */
extern "C" __global__ void merge_groups(const int *groups, long long channels, const Channel *parts, Channel *sums)
{
    long long channel = (long long)THREADS * blockIdx.x + threadIdx.x;
    if (channel >= channels)
        return;
    Channel sum = sums[channel];
    for (int k = 0; k < groups[channel]; k++) {
        Channel part = parts[channels * k + channel];
        join(&sum.total, part.total);
        join(&sum.squares, part.squares);
        sum.low = part.low < sum.low ? part.low : sum.low;
        sum.high = part.high > sum.high ? part.high : sum.high;
    }
    sums[channel] = sum;
}

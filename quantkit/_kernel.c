/* The hot spots of calibration: one pass over the activations of a tensor while they are in the cache, and the table
 * that makes an image the network's input.
 *
 *   extremes(x)                            -> (min, max, finite)
 *   observe(x, counts, state, invariant)   -> finite; min, max, range and histogram of |x| in one pass
 *   channel_sums(x, units, rows, channels, inner, ranges, sums)   exact sums of a channel, and of its squares
 *   gather(pixels, table, out)             out[h, w, c] = table[c, pixels[h, w, c]]
 *
 * quantkit/kernel.py says what each of them means and holds the same arithmetic in numpy, which is used where
 * this file could not be compiled; the tests hold the two together, to the last element and the last bit.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef _MSC_VER                 /* which has C11's word for it only where it is told to */
#define restrict __restrict
#endif

#define BINS 2048
#define BLOCK 1024              /* elements that are settled, then counted, while they are in the first-level cache */
#define WAYS 4                  /* interleaved sub-histograms: the same bin twice in a row does not wait for the store */
#define STEP 16                 /* elements whose bins are taken, then counted, at a time */
#define AHEAD 128               /* elements by which taking bins is ahead of counting: one computes, the other stores */
#define FULL (WAYS * (UINT16_MAX - STEP))       /* elements that overflow no sub-histogram, ends of blocks included */
#define DIGIT 32                /* bits of a digit of an exact sum */
#define DIGITS 3
#define EMPTY (-1000)           /* top digit of a sum that has not seen a nonzero value */

/* |x| 2048/R is never nearer than a relative 2^-35 below an integer without being one (24-bit x and R), and the
 * rounding of the product is below 2^-51: this factor makes the floor of the product the floor of the quotient. */
#define NUDGE (1.0 + 0x1p-45)

/* ifunc needs glibc; elsewhere one baseline version is built. Counting is NARROWer: the way from eight doubles to bins
 * is longer with AVX-512 than with AVX2, which made it a tenth slower on Zen 4. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define CLONES(...) __attribute__((target_clones(__VA_ARGS__, "default"), optimize("O3")))
#define WIDE CLONES("arch=x86-64-v4", "arch=x86-64-v3")
#define NARROW CLONES("arch=x86-64-v3")
#else
#define WIDE
#define NARROW
#endif

/* Order-preserving integers: the sign-magnitude bits of a float as two's complement. Integer minimum and maximum
 * vectorise, and NaN and Inf are the keys beyond those of the finite numbers. */
static inline int32_t key_of(int32_t bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }
static inline float float_of(int32_t key)
{
    int32_t bits = key_of(key);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x + 0.0f;                        /* -0 and 0 are the same extreme, whichever came first */
}
#define KEY_INF 0x7f800000
#define KEY_MINUS_INF ((int32_t)(0xff800000u ^ 0x7fffffffu))

WIDE static void key_range(const int32_t *bits, Py_ssize_t n, int32_t *low, int32_t *high)
{
    int32_t lo = *low, hi = *high;
    for (Py_ssize_t i = 0; i < n; i++) {
        int32_t k = bits[i] ^ ((bits[i] >> 31) & 0x7fffffff);
        lo = k < lo ? k : lo;
        hi = k > hi ? k : hi;
    }
    *low = lo;
    *high = hi;
}

static void double_range(int64_t *counts)
{
    int64_t edge = counts[BINS];
    for (int i = 0; i < BINS / 2; i++)
        counts[i] = counts[2 * i] + counts[2 * i + 1];
    memset(counts + BINS / 2, 0, (BINS / 2 + 1) * sizeof *counts);
    counts[BINS / 2] = edge;                /* |x| = R is half of the new range */
}

WIDE static void flush(uint16_t (*ways)[BINS + 1], int64_t *counts)
{
    for (int i = 0; i <= BINS; i++) {
        uint32_t sum = 0;
        for (int w = 0; w < WAYS; w++)
            sum += ways[w][i];
        counts[i] += sum;
    }
    memset(ways, 0, WAYS * sizeof *ways);
}

static inline uint16_t bin_of(float x, double factor) { return (uint16_t)(int32_t)(fabs((double)x) * factor); }

/* Four bins a load, four sub-histograms: bin 0 of the zeros after a ReLU does not wait for itself. */
NARROW static void count_block(const float *x, Py_ssize_t m, double factor, uint16_t (*ways)[BINS + 1])
{
    uint16_t bins[BLOCK];
    Py_ssize_t whole = m - m % STEP;
    for (Py_ssize_t i = -AHEAD; i < whole; i += STEP) {
        if (i + AHEAD < whole)
            for (Py_ssize_t k = i + AHEAD; k < i + AHEAD + STEP; k++)
                bins[k] = bin_of(x[k], factor);
        if (i >= 0)
            for (int k = 0; k < STEP; k += WAYS) {
                uint64_t four;
                memcpy(&four, bins + i + k, sizeof four);
                ways[0][four & 0xffff]++;
                ways[1][four >> 16 & 0xffff]++;
                ways[2][four >> 32 & 0xffff]++;
                ways[3][four >> 48]++;
            }
    }
    for (Py_ssize_t i = whole; i < m; i++)
        ways[0][bin_of(x[i], factor)]++;
}

static int observe_range(const float *x, Py_ssize_t n, int64_t *counts, double *state, int invariant)
{
    uint16_t ways[WAYS][BINS + 1];
    double range = state[0], low = state[1], high = state[2];
    Py_ssize_t held = 0;
    memset(ways, 0, sizeof ways);
    if (range == 0 && !invariant) {         /* the range of a first batch is that of all of it, not of its first block */
        int32_t lo = INT32_MAX, hi = INT32_MIN;
        key_range((const int32_t *)x, n, &lo, &hi);
        if (n && hi < KEY_INF && lo > KEY_MINUS_INF)
            range = fabs(float_of(lo)) > fabs(float_of(hi)) ? fabs(float_of(lo)) : fabs(float_of(hi));
    }
    for (Py_ssize_t start = 0; start < n; start += BLOCK) {
        Py_ssize_t m = n - start < BLOCK ? n - start : BLOCK;
        int32_t lo = INT32_MAX, hi = INT32_MIN;
        key_range((const int32_t *)(x + start), m, &lo, &hi);
        if (hi >= KEY_INF || lo <= KEY_MINUS_INF)
            return 0;
        double bottom = float_of(lo), top = float_of(hi);
        low = bottom < low ? bottom : low;
        high = top > high ? top : high;
        double most = -bottom > top ? -bottom : top;
        if (invariant ? most >= range && most > 0 : most > range) {
            flush(ways, counts);
            held = 0;
            if (range == 0)
                range = ldexp(1.0, ilogb(most) + 1);
            while (invariant ? most >= range : most > range) {
                double_range(counts);
                range *= 2;
            }
        }
        if (most == 0) {                    /* zeros lie in bin 0 of every range */
            counts[0] += m;
            continue;
        }
        if ((held += m) > FULL) {
            flush(ways, counts);
            held = m;
        }
        count_block(x + start, m, BINS / range * NUDGE, ways);
    }
    flush(ways, counts);
    state[0] = range;
    state[1] = low;
    state[2] = high;
    return 1;
}

/* Exact, order-independent addition: value = sum of digits[k] * 2^(32 (top - k)); each part keeps its own integer
 * sum, so that only the position of the largest value decides which bits are kept. */
static inline double power_of_two(int64_t exponent)
{
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline void add_exactly(int64_t *sum, double value)
{
    uint64_t bits;
    if (value == 0)
        return;
    memcpy(&bits, &value, sizeof bits);
    int64_t top = ((int64_t)(bits >> 52 & 0x7ff) - 1023) >> 5;      /* |value| < 2^(32 (top + 1)) */
    if (top > sum[0]) {
        int64_t up = top - sum[0];
        for (int k = DIGITS; k >= 1; k--)
            sum[k] = k - up >= 1 ? sum[k - up] : 0;
        sum[0] = top;
    }
    value *= power_of_two(-DIGIT * sum[0]);                         /* every step is exact */
    for (int k = 1; k <= DIGITS; k++) {
        int64_t digit = (int64_t)value;
        sum[k] += digit;
        value = (value - (double)digit) * 0x1p32;
    }
}

/* Eight lanes, then a fixed tree: the same order of additions everywhere. */
#define LANES 8
WIDE static void lanes(const float *x, Py_ssize_t n, double *s, double *q)
{
    double a[LANES] = {0}, b[LANES] = {0};
    for (Py_ssize_t i = 0; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            double d = x[i + l];
            a[l] += d;
            b[l] += d * d;                  /* exact: 48 bits */
        }
    memcpy(s, a, sizeof a);
    memcpy(q, b, sizeof b);
}

static void plane(const float *x, Py_ssize_t n, double *total, double *squares, float *range)
{
    double s[LANES], q[LANES];
    int32_t lo = INT32_MAX, hi = INT32_MIN;
    lanes(x, n, s, q);
    for (Py_ssize_t i = n - n % LANES, l = 0; i < n; i++, l++) {
        double d = x[i];
        s[l] += d;
        q[l] += d * d;
    }
    *total = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    *squares = ((q[0] + q[1]) + (q[2] + q[3])) + ((q[4] + q[5]) + (q[6] + q[7]));
    key_range((const int32_t *)x, n, &lo, &hi);
    float bottom = float_of(lo), top = float_of(hi);
    range[0] = bottom < range[0] ? bottom : range[0];
    range[1] = top > range[1] ? top : range[1];
}

WIDE static void row(const float *x, Py_ssize_t channels, double *s, double *q, float *lo, float *hi)
{
    for (Py_ssize_t c = 0; c < channels; c++) {
        double d = x[c];
        s[c] += d;
        q[c] += d * d;
        lo[c] = x[c] < lo[c] ? x[c] : lo[c];
        hi[c] = x[c] > hi[c] ? x[c] : hi[c];
    }
}

static void planes(const float *x, Py_ssize_t units, Py_ssize_t channels, Py_ssize_t inner, float *ranges, int64_t *sums)
{
    for (Py_ssize_t u = 0; u < units; u++)
        for (Py_ssize_t c = 0; c < channels; c++, x += inner) {
            double total, squares;
            plane(x, inner, &total, &squares, ranges + 2 * c);
            add_exactly(sums + 2 * (DIGITS + 1) * c, total);
            add_exactly(sums + 2 * (DIGITS + 1) * c + DIGITS + 1, squares);
        }
}

static void table_of_rows(const float *x, Py_ssize_t units, Py_ssize_t rows, Py_ssize_t channels, float *ranges,
                          int64_t *sums, double *work)
{
    double *s = work, *q = work + channels;
    float *lo = (float *)(work + 2 * channels), *hi = lo + channels;
    for (Py_ssize_t c = 0; c < channels; c++) {
        lo[c] = ranges[2 * c];
        hi[c] = ranges[2 * c + 1];
    }
    for (Py_ssize_t u = 0; u < units; u++) {
        memset(s, 0, 2 * channels * sizeof *s);
        for (Py_ssize_t r = 0; r < rows; r++, x += channels)
            row(x, channels, s, q, lo, hi);
        for (Py_ssize_t c = 0; c < channels; c++) {
            add_exactly(sums + 2 * (DIGITS + 1) * c, s[c]);
            add_exactly(sums + 2 * (DIGITS + 1) * c + DIGITS + 1, q[c]);
        }
    }
    for (Py_ssize_t c = 0; c < channels; c++) {
        ranges[2 * c] = lo[c] + 0.0f;
        ranges[2 * c + 1] = hi[c] + 0.0f;
    }
}

/* out[h, w, c] = table[c, pixels[h, w, c]] for arrays of any strides; a row of pixels stays in the first-level cache
 * while its channels are taken one after the other. */
static void look_up(const Py_buffer *pixels, const float *table, const Py_buffer *out)
{
    const Py_ssize_t *from = pixels->strides, *to = out->strides, height = out->shape[0], width = out->shape[1],
                     depth = out->shape[2], step = from[1], stride = to[1];
    for (Py_ssize_t h = 0; h < height; h++)
        for (Py_ssize_t c = 0; c < depth; c++) {
            const unsigned char *restrict in = (const unsigned char *)pixels->buf + h * from[0] + c * from[2];
            const float *restrict values = table + 256 * c;
            char *restrict at = (char *)out->buf + h * to[0] + c * to[2];
            for (Py_ssize_t w = 0; w < width; w++, in += step, at += stride)
                memcpy(at, values + *in, sizeof *values);
        }
}

static int sized(const Py_buffer *view, Py_ssize_t bytes, const char *what)
{
    if (view->len == bytes)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s holds %zd bytes, not %zd", what, view->len, bytes);
    return 0;
}

static PyObject *extremes(PyObject *self, PyObject *args)
{
    Py_buffer x;
    int32_t low = INT32_MAX, high = INT32_MIN;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*", &x))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    key_range(x.buf, x.len / 4, &low, &high);
    Py_END_ALLOW_THREADS
    int empty = x.len < 4;
    PyBuffer_Release(&x);
    if (empty)
        return Py_BuildValue("ddO", 0.0, 0.0, Py_True);
    return Py_BuildValue("ddO", (double)float_of(low), (double)float_of(high),
                         high < KEY_INF && low > KEY_MINUS_INF ? Py_True : Py_False);
}

static PyObject *observe(PyObject *self, PyObject *args)
{
    Py_buffer x, counts, state;
    int invariant, finite = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*w*w*p", &x, &counts, &state, &invariant))
        return NULL;
    int good = sized(&counts, (BINS + 1) * 8, "counts") && sized(&state, 3 * 8, "state");
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        finite = observe_range(x.buf, x.len / 4, counts.buf, state.buf, invariant);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&x);
    PyBuffer_Release(&counts);
    PyBuffer_Release(&state);
    return good ? PyBool_FromLong(finite) : NULL;
}

static PyObject *channel_sums(PyObject *self, PyObject *args)
{
    Py_buffer x, ranges, sums;
    Py_ssize_t units, rows, channels, inner;
    double *work = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*nnnnw*w*", &x, &units, &rows, &channels, &inner, &ranges, &sums))
        return NULL;
    int good = sized(&x, units * rows * channels * inner * 4, "x") && sized(&ranges, channels * 2 * 4, "ranges") &&
               sized(&sums, channels * 2 * (DIGITS + 1) * 8, "sums");
    if (good && inner == 1 && !(work = PyMem_Malloc((size_t)channels * 3 * sizeof *work + 1))) {
        PyErr_NoMemory();
        good = 0;
    }
    if (good && inner != 1 && rows != 1) {
        PyErr_SetString(PyExc_ValueError, "either rows or inner has to be 1");
        good = 0;
    }
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        if (inner == 1)
            table_of_rows(x.buf, units, rows, channels, ranges.buf, sums.buf, work);
        else
            planes(x.buf, units, channels, inner, ranges.buf, sums.buf);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(work);
    PyBuffer_Release(&x);
    PyBuffer_Release(&ranges);
    PyBuffer_Release(&sums);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *gather(PyObject *self, PyObject *args)
{
    PyObject *from, *to;
    Py_buffer pixels, table, out;
    (void)self;
    if (!PyArg_ParseTuple(args, "Oy*O", &from, &table, &to))
        return NULL;
    if (PyObject_GetBuffer(from, &pixels, PyBUF_STRIDED_RO | PyBUF_FORMAT) < 0) {
        PyBuffer_Release(&table);
        return NULL;
    }
    if (PyObject_GetBuffer(to, &out, PyBUF_STRIDED | PyBUF_FORMAT) < 0) {
        PyBuffer_Release(&pixels);
        PyBuffer_Release(&table);
        return NULL;
    }
    int good = pixels.ndim == 3 && out.ndim == 3 && !strcmp(pixels.format, "B") && !strcmp(out.format, "f") &&
               !memcmp(pixels.shape, out.shape, 3 * sizeof *out.shape);
    if (!good)
        PyErr_SetString(PyExc_ValueError, "pixels has to be uint8 [H, W, C], and out float32 of the same shape");
    else
        good = sized(&table, pixels.shape[2] * 256 * (Py_ssize_t)sizeof(float), "table");
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        look_up(&pixels, table.buf, &out);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&pixels);
    PyBuffer_Release(&table);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"extremes", extremes, METH_VARARGS, "extremes(x) -> (min, max, finite)"},
    {"observe", observe, METH_VARARGS, "observe(x, counts, state, invariant) -> finite"},
    {"channel_sums", channel_sums, METH_VARARGS, "channel_sums(x, units, rows, channels, inner, ranges, sums)"},
    {"gather", gather, METH_VARARGS, "gather(pixels, table, out)"},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", "The hot spots of calibration.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModule_Create(&module); }

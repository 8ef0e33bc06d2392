/* The inner loops of adaptive rounding: what numpy does column by column and slowly.
 *
 *   compensate(left, codes, least, most, inverse, errors, start)   rounds a block of columns, one after the other
 *   descend(codes, slope, gram, least, most, order, sweeps)        moves codes until no move lowers the energy
 *
 * quantkit/repairs/code_search.py says what each of them means and holds the same arithmetic in numpy, which is used
 * where this file could not be compiled; the tests hold the two together, to the last bit. All arrays are contiguous,
 * float64 [R, K] unless noted.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef _MSC_VER                 /* which has C11's word for it only where it is told to */
#define restrict __restrict
#endif

#define BLOCK 64                /* columns whose rows of the Gram matrix stay in the cache while all rows pass by */

static inline double clip(double x, double least, double most)
{
    x = x < least ? least : x;
    return x > most ? most : x;
}

static void compensate_rows(double *left, double *codes, const double *least, const double *most,
                            const double *inverse, double *errors, Py_ssize_t rows, Py_ssize_t columns,
                            Py_ssize_t width, Py_ssize_t start)
{
    for (Py_ssize_t r = 0; r < rows; r++) {
        double *restrict at = left + r * columns + start;
        double *restrict error = errors + r * width;
        for (Py_ssize_t k = 0; k < width; k++) {
            const double *restrict factor = inverse + k * width;
            Py_ssize_t place = r * columns + start + k;
            double code = clip(rint(at[k]), least[place], most[place]);
            codes[place] = code;
            error[k] = (at[k] - code) / factor[k];
            for (Py_ssize_t j = k; j < width; j++)
                at[j] -= error[k] * factor[j];
        }
    }
}

static int descend_row(double *restrict codes, double *restrict slope, const double *restrict gram,
                       const double *restrict least, const double *restrict most, const int64_t *order,
                       Py_ssize_t width, Py_ssize_t columns)
{
    int moved = 0;
    for (Py_ssize_t j = 0; j < width; j++) {
        int64_t k = order[j];
        const double *restrict row = gram + k * columns;
        double move = clip(codes[k] + rint(-slope[k] / row[k]), least[k], most[k]) - codes[k];
        if (move == 0.0)
            continue;
        codes[k] += move;
        moved = 1;
        for (Py_ssize_t i = 0; i < columns; i++)
            slope[i] += move * row[i];
    }
    return moved;
}

static void descend_rows(double *codes, double *slope, const double *gram, const double *least, const double *most,
                         const int64_t *order, unsigned char *moving, Py_ssize_t rows, Py_ssize_t columns,
                         Py_ssize_t count, Py_ssize_t sweeps)
{
    unsigned char *moved = moving + rows;
    memset(moving, 1, (size_t)rows);
    for (int any = 1; any && sweeps > 0; sweeps--) {
        memset(moved, 0, (size_t)rows);
        any = 0;
        for (Py_ssize_t start = 0; start < count; start += BLOCK)
            for (Py_ssize_t r = 0; r < rows; r++)
                if (moving[r]) {
                    Py_ssize_t width = count - start < BLOCK ? count - start : BLOCK, at = r * columns;
                    moved[r] |= descend_row(codes + at, slope + at, gram, least + at, most + at, order + start, width,
                                            columns);
                    any |= moved[r];
                }
        memcpy(moving, moved, (size_t)rows);
    }
}

/* Releases what was acquired; `what` of the array of the wrong size, or NULL. */
static PyObject *finished(Py_buffer *views, int count, const char *what)
{
    for (int i = 0; i < count; i++)
        PyBuffer_Release(views + i);
    if (what != NULL)
        return PyErr_Format(PyExc_ValueError, "%s is of the wrong size", what);
    Py_RETURN_NONE;
}

static PyObject *compensate(PyObject *self, PyObject *args)
{
    Py_buffer v[6];
    Py_ssize_t start;
    (void)self;
    if (!PyArg_ParseTuple(args, "w*w*y*y*y*w*n", v, v + 1, v + 2, v + 3, v + 4, v + 5, &start))
        return NULL;
    Py_ssize_t width = 0, size = (Py_ssize_t)sizeof(double);
    while ((width + 1) * (width + 1) * size <= v[4].len)
        width++;
    Py_ssize_t rows = width ? v[5].len / (width * size) : 0, columns = rows ? v[0].len / (rows * size) : 0;
    const char *what = NULL;
    if (width * width * size != v[4].len)
        what = "inverse";
    else if (rows * width * size != v[5].len)
        what = "errors";
    else if (start < 0 || start + width > columns)
        what = "left";
    for (int i = 0; i < 4 && what == NULL; i++)
        if (v[i].len != rows * columns * size)
            what = "left, codes, least or most";
    if (what == NULL) {
        Py_BEGIN_ALLOW_THREADS
        compensate_rows(v[0].buf, v[1].buf, v[2].buf, v[3].buf, v[4].buf, v[5].buf, rows, columns, width, start);
        Py_END_ALLOW_THREADS
    }
    return finished(v, 6, what);
}

static PyObject *descend(PyObject *self, PyObject *args)
{
    Py_buffer v[6];
    Py_ssize_t sweeps;
    (void)self;
    if (!PyArg_ParseTuple(args, "w*w*y*y*y*y*n", v, v + 1, v + 2, v + 3, v + 4, v + 5, &sweeps))
        return NULL;
    Py_ssize_t columns = 0, size = (Py_ssize_t)sizeof(double);
    while ((columns + 1) * (columns + 1) * size <= v[2].len)
        columns++;
    Py_ssize_t rows = columns ? v[0].len / (columns * size) : 0, count = v[5].len / (Py_ssize_t)sizeof(int64_t);
    const char *what = columns * columns * size != v[2].len ? "gram" : NULL;
    for (int i = 0; i < 5 && what == NULL; i++)
        if (i != 2 && v[i].len != rows * columns * size)
            what = "codes, slope, least or most";
    const int64_t *order = v[5].buf;
    for (Py_ssize_t j = 0; j < count && what == NULL; j++)
        if (order[j] < 0 || order[j] >= columns)
            what = "a column in order";
    unsigned char *moving = what == NULL ? PyMem_Malloc(2 * (size_t)rows + 1) : NULL;
    if (what == NULL && moving == NULL) {
        Py_XDECREF(finished(v, 6, NULL));
        return PyErr_NoMemory();
    }
    if (what == NULL) {
        Py_BEGIN_ALLOW_THREADS
        descend_rows(v[0].buf, v[1].buf, v[2].buf, v[3].buf, v[4].buf, order, moving, rows, columns, count, sweeps);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(moving);
    return finished(v, 6, what);
}

static PyMethodDef methods[] = {
    {"compensate", compensate, METH_VARARGS, "compensate(left, codes, least, most, inverse, errors, start)"},
    {"descend", descend, METH_VARARGS, "descend(codes, slope, gram, least, most, order, sweeps)"},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_rounding", "The inner loops of adaptive rounding.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__rounding(void) { return PyModule_Create(&module); }

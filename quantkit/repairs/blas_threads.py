"""Threads of linear algebra: one where matrices are small.

OpenBLAS divides every larger product among all cores, and its threads wait for each other by spinning. For the matrices
of most layers the waiting is longer than the product: on two busy cores, rounding resnet20 took 22 s instead of 6, and
mobilenetv2 42 s instead of 10. What comes out is the same: sums are not divided.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

WIDE = 2048
"""Columns of a matrix from which on its products are divided among cores."""


def blas_threads(columns: int) -> AbstractContextManager[Any]:
    """Return a context in which products of matrices with so many columns take one thread, or all where that is many.

    The number of threads is one of the whole process, and is put back at the end.
    """
    if columns >= WIDE:
        return nullcontext()
    limited: AbstractContextManager[Any] = blas_libraries().limit(limits=1, user_api="blas")
    return limited


@cache
def blas_libraries() -> Any:
    """Return the control of the libraries for linear algebra that this process has loaded."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()

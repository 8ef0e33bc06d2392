"""Threads of linear algebra: one where matrices are small.

OpenBLAS divides every larger product among all cores, and its threads wait for each other by spinning. For the matrices
of most layers the waiting is longer than the product: on two busy cores, rounding resnet20 took 22 s instead of 6, and
mobilenetv2 42 s instead of 10. With one thread the last bits do not depend on the number of cores either.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import Lock
from typing import Any

WIDE = 2048
"""Columns of a matrix from which on its products are divided among cores."""


def blas_threads(columns: int) -> AbstractContextManager[Any]:
    """Return a context in which products of matrices with so many columns take one thread, or all where that is many.

    The number of threads is one of the whole process, and is put back at the end.
    """
    return nullcontext() if columns >= WIDE else ONE_THREAD


class OneThread(AbstractContextManager[None]):
    """A limit of one thread while anybody is inside. Threads of a program overlap: the last to leave puts the number
    back that the first one found, or a number seen between them would stay."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit = blas_libraries().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limit.restore_original_limits()


ONE_THREAD = OneThread()


@cache
def blas_libraries() -> Any:
    """Return the control of the libraries for linear algebra that this process has loaded."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()

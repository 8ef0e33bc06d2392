"""Triangular factors of large symmetric matrices, computed in the place of the matrix, block by block.

numpy's own need three matrices more: for 4,608 columns that is half a gigabyte.
Source: Golub and Van Loan, "Matrix Computations", 4th edition, §4.2.9 (block Cholesky) and §3.1.3 (block substitution).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quantkit.repairs.blas_threads import blas_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 128
"""Columns that are factorised at once."""


def factorise(matrix: NDArray[np.float64]) -> None:
    """Put the lower Cholesky factor L, M = L·Lᵀ, in the place of a symmetric matrix M. LinAlgError unless M is positive
    definite."""
    size = len(matrix)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        columns = matrix[start:, start:stop]
        if start:
            columns -= matrix[start:, :start] @ matrix[start:stop, :start].T
        with blas_threads(BLOCK):
            corner = np.linalg.cholesky(columns[: stop - start])
            inverse = np.linalg.inv(corner)
        columns[: stop - start] = corner
        columns[stop - start :] = columns[stop - start :] @ inverse.T
        matrix[start:stop, stop:] = 0.0


def invert_lower(factor: NDArray[np.float64]) -> None:
    """Put the inverse in the place of a lower triangular matrix."""
    size = len(factor)
    for start in reversed(range(0, size, BLOCK)):
        stop = min(start + BLOCK, size)
        with blas_threads(BLOCK):
            corner = np.linalg.inv(factor[start:stop, start:stop])
        factor[start:stop, start:stop] = np.tril(corner)
        factor[stop:, start:stop] = -(factor[stop:, stop:] @ factor[stop:, start:stop]) @ corner

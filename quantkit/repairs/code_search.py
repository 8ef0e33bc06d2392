"""The search for the codes of rows of weights whose products with given inputs err least.

Rounding a row w of weights to ŵ = scale·q changes an output by (ŵ − w)·x. Over the data its energy is

    E = (ŵ − w)ᵀ H (ŵ − w)        H = Σ x xᵀ, the Gram matrix of the layer's input [K, K] (patches for a convolution)

Nearest rounding minimises it only where H is diagonal. Three steps, all rows at once:

    compensate     columns in the order of falling H_kk; its error is compensated by those after it (GPTQ)
    choose         row by row, the better of that and nearest rounding
    descend        sweeps over the columns: move a code by ±1 where that lowers E, exactly

Codes stay in −127 … 127 and within ±2 of the nearest, and a row's largest weight keeps the code ±127, so that the row's
scale max|w|/127 reads the same from ŵ. E is therefore never larger than nearest rounding's.

`compensate` and `descend` come from the compiled `quantkit._rounding` if the package was installed with a C compiler,
and otherwise from the numpy functions below, which find the same bits, several times slower.

Source: Frantar et al. 2022, "GPTQ" (arXiv 2210.17323) for the first step; coordinate descent is exact for a quadratic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantkit.numerics import LEVELS
from quantkit.repairs.triangular import factorise, invert_lower

if TYPE_CHECKING:
    from numpy.typing import NDArray

VALUES = 1 << 20
"""Weights that are rounded at once: about twelve figures of 8 bytes are held of each."""

REACH = 2
"""Codes up to this far from the nearest are tried."""
DAMPING = 0.01
"""Fraction of the mean diagonal that is added before the matrix is inverted (GPTQ's)."""
SWEEPS = 8
BLOCK = 64
"""Columns whose compensation is gathered before it is applied to the rest (GPTQ's lazy batches)."""


@dataclass(frozen=True, slots=True)
class FoundCodes:
    """Codes int8 [O, K], their energies [O] in units of the rows' squared scales, and those of nearest rounding."""

    codes: NDArray[np.int8]
    energies: NDArray[np.float64]
    nearest: NDArray[np.float64]


def find_codes(
    weight: NDArray[np.floating], scales: NDArray[np.floating], gram: NDArray[np.floating]
) -> NDArray[np.int8]:
    """Return codes int8 [O, K] of `weight` [O, K] on the grids `scales` [O], for inputs with Gram matrix `gram` [K, K].

    gram: symmetric and positive semidefinite; its unit does not matter.
    """
    return CodeSearch(gram).codes(weight, scales).codes


class CodeSearch:
    """The rounding of rows that meet the same inputs. gram: as for `find_codes`."""

    def __init__(self, gram: NDArray[np.floating]) -> None:
        self._gram = np.ascontiguousarray(gram, np.float64)
        diagonal = np.diag(self._gram)
        self._order = np.argsort(-diagonal, kind="stable")
        self._heard = np.flatnonzero(diagonal > 0).astype(np.int64)
        self._inverse = inverse_cholesky(self._gram, self._order)

    def codes(self, weight: NDArray[np.floating], scales: NDArray[np.floating]) -> FoundCodes:
        """Return the codes of rows [O, K] on the grids `scales` [O]."""
        found = np.empty(np.shape(weight), np.int8)
        energies = np.empty((2, len(found)))
        for part in row_blocks(found.shape):
            found[part], *energies[:, part] = self._block(np.asarray(weight)[part], np.asarray(scales)[part])
        return FoundCodes(found, *energies)

    def _block(
        self, weight: NDArray[np.floating], scales: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return codes, their energies, and those of nearest rounding."""
        target = np.ascontiguousarray(weight, np.float64) / np.asarray(scales, np.float64)[:, None]
        nearest = np.clip(np.rint(target), -LEVELS, LEVELS)
        least, most = code_limits(target, nearest)
        codes = self._compensated(target, least, most)
        plain_slope, slope = self._slope(nearest, target), self._slope(codes, target)
        plain = energies_of(nearest, target, plain_slope)
        worse = energies_of(codes, target, slope) >= plain
        codes[worse], slope[worse] = nearest[worse], plain_slope[worse]
        del plain_slope
        descend(codes, slope, self._gram, least, most, self._heard, SWEEPS)
        energies = energies_of(codes, target, slope)
        worse = energies > plain
        codes[worse], energies[worse] = nearest[worse], plain[worse]
        return codes, energies, plain

    def _slope(self, codes: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return half the slope of the energy, H·e of every row."""
        slope: NDArray[np.float64] = (codes - target) @ self._gram
        return slope

    def _compensated(
        self, target: NDArray[np.float64], least: NDArray[np.float64], most: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Round by GPTQ: column by column, the error of each spread over the columns that follow."""
        inverse, order = self._inverse, self._order
        if inverse is None:
            return np.clip(np.rint(target), least, most)
        left, low, high = (np.ascontiguousarray(each[:, order]) for each in (target, least, most))
        codes, columns = np.empty_like(left), left.shape[1]
        for start in range(0, columns, BLOCK):
            stop = min(start + BLOCK, columns)
            errors = np.empty((len(left), stop - start))
            corner = np.ascontiguousarray(inverse[start:stop, start:stop])
            compensate(left, codes, low, high, corner, errors, start)
            left[:, stop:] -= errors @ inverse[start:stop, stop:]
        back = np.empty_like(codes)
        back[:, order] = codes
        return back


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of a matrix, as many at once as memory is meant for."""
    rows = max(1, VALUES // max(shape[1], 1))
    yield from (slice(start, start + rows) for start in range(0, shape[0], rows))


def energies_of(
    codes: NDArray[np.float64], target: NDArray[np.float64], slope: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return eᵀ H e of every row, e = codes − target and slope = H·e."""
    values: NDArray[np.float64] = np.einsum("ok,ok->o", codes - target, slope)
    return values


def code_limits(
    target: NDArray[np.float64], nearest: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the largest code allowed for every weight."""
    size = np.abs(target)
    peak = (size >= size.max(axis=1, initial=0.0, keepdims=True)) & (np.abs(nearest) == LEVELS)
    reach = np.where(peak, 0, REACH)
    return np.maximum(nearest - reach, -LEVELS), np.minimum(nearest + reach, LEVELS)


def inverse_cholesky(gram: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64] | None:
    """Return the upper Cholesky factor of H⁻¹, H damped and its columns in an order; None if H is zero."""
    mean = float(np.diag(gram).mean()) if len(gram) else 0.0
    if mean <= 0.0:
        return None
    # H = L·Lᵀ with rows and columns reversed gives H⁻¹ = Uᵀ·U for U = L⁻¹ reversed back: one factorisation.
    factor: NDArray[np.float64] = gram[np.ix_(order[::-1], order[::-1])]
    factor[np.diag_indices_from(factor)] += DAMPING * mean
    factorise(factor)
    invert_lower(factor)
    return factor[::-1, ::-1]


def numpy_compensate(
    left: NDArray[np.float64],
    codes: NDArray[np.float64],
    least: NDArray[np.float64],
    most: NDArray[np.float64],
    inverse: NDArray[np.float64],
    errors: NDArray[np.float64],
    start: int,
) -> None:
    """Round the columns from `start` on, one after the other, in place: codes and `left` [O, K], errors [O, B].

    left: the weights in steps, less the errors of the columns before. inverse: the factor's block on the diagonal
    [B, B]. errors: what each column leaves to those behind the block.
    """
    stop = start + len(inverse)
    for j, k in enumerate(range(start, stop)):
        codes[:, k] = np.clip(np.rint(left[:, k]), least[:, k], most[:, k])
        errors[:, j] = (left[:, k] - codes[:, k]) / inverse[j, j]
        left[:, k:stop] -= np.outer(errors[:, j], inverse[j, j:])


def numpy_descend(
    codes: NDArray[np.float64],
    slope: NDArray[np.float64],
    gram: NDArray[np.float64],
    least: NDArray[np.float64],
    most: NDArray[np.float64],
    order: NDArray[np.int64],
    sweeps: int,
) -> None:
    """Move every code to the best value given the others, column by column, until nothing moves (coordinate descent).

    In place: codes [O, K], and slope = H·e [O, K]. order: the columns to move; a sweep moves each once. The energy
    changes by 2·δ·slope_k + δ²·H_kk for a move δ of code k: best is −slope_k/H_kk, rounded.
    """
    for _ in range(sweeps):
        moved = False
        for k in order:
            wanted = np.clip(codes[:, k] + np.rint(-slope[:, k] / gram[k, k]), least[:, k], most[:, k])
            move = wanted - codes[:, k]
            if (rows := np.flatnonzero(move)).size:
                moved = True
                codes[rows, k] += move[rows]
                slope[rows] += np.outer(move[rows], gram[k])
        if not moved:
            break


try:
    import quantkit._rounding as fastest

    COMPILED = True
except ImportError:
    COMPILED = False

compensate = fastest.compensate if COMPILED else numpy_compensate
descend = fastest.descend if COMPILED else numpy_descend

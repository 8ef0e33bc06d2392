"""Seams: what a part of the batches keeps so that histograms of `tensorrt` mode can be joined in order, exactly.

The proof is in docs/decisions/0017-shards-in-order.md. In short:

    grid        ranges of one tensor are R₀·2^k. Parts counted on the same grid have bins that merge in pairs, exactly.
    one bin low |x| = R falls into the last bin at the end of its batch, one below its own, and stays one below as R
                doubles, until both are bin 0. That happens where the largest value of a batch is R₀·2^k, and is undone
                where an earlier part had a larger range already.

So a part keeps, for each tensor, how many values lie one bin low, by how often R has doubled since; twelve numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import frexp, ldexp
from typing import TYPE_CHECKING

import numpy as np

from quantkit.histogram import BINS, Histogram
from quantkit.numerics import float32
from quantkit.statistics.sealed import check_typed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantkit.values import Array

DISTANCES = BINS.bit_length()
"""Doublings after which a value in the last bin, and one in the bin above, are both in bin 0: 12."""
BELOW_ALL = -149
"""Exponent of the range a grid starts with: its mantissa is less than 1, and the least float32 is 2^-149."""


@dataclass(frozen=True, slots=True)
class Seam:
    """The facts that join the histogram of a part to those of its neighbours.

    first: max|x| of the part's first batch with a nonzero value, 0 if there is none. low: int64 [12], read-only;
    low[d] values equal to R/2^d lie in bin 2048/2^d − 1, one below their own.
    """

    first: float
    low: NDArray[np.int64]

    def __post_init__(self) -> None:
        self.low.setflags(write=False)


def start_of_grid(first: float) -> float:
    """Return the range on the grid of `first` (a float32 above 0) from which every float32 makes it double."""
    return ldexp(frexp(first)[0], BELOW_ALL)


def on_one_grid(a: float, b: float) -> bool:
    """Return True if two ranges differ by a power of two, or if one of them is 0."""
    return a == 0.0 or b == 0.0 or frexp(a)[0] == frexp(b)[0]


def doublings_between(low: float, high: float) -> int:
    """Return how often `low` doubles until it is `high`, on one grid; 0 where it is 0."""
    return frexp(high)[1] - frexp(low)[1] if low else 0


def shift_low(low: NDArray[np.int64], doublings: int) -> NDArray[np.int64]:
    """Return the counts of values one bin low after the range has doubled."""
    moved = np.zeros_like(low)
    moved[min(doublings, DISTANCES) :] = low[: max(DISTANCES - doublings, 0)]
    return moved


def join_histograms(a: Histogram, left: Seam, b: Histogram, right: Seam) -> tuple[Histogram, Seam]:
    """Return the histogram of two parts, `b` directly after `a`, and its seam. They have to be on one grid.

    Associative: parts may be joined in any grouping of neighbours.
    """
    range_ = max(a.range, b.range)
    rises = doublings_between(a.range, range_)
    low = shift_low(right.low, doublings_between(b.range, range_))
    counts = doubled(b, range_)
    kept = low.copy()
    if a.range:
        kept[rises + 1 :] = 0
        for distance in np.flatnonzero(low - kept).tolist():
            own = BINS >> distance
            counts[own - 1] -= low[distance]
            counts[own] += low[distance]
    minimum, maximum = min(a.minimum, b.minimum), max(a.maximum, b.maximum)
    joined = Histogram(doubled(a, range_) + counts, range_, minimum, maximum)
    return joined, Seam(left.first or right.first, shift_low(left.low, rises) + kept)


def doubled(histogram: Histogram, range_: float) -> NDArray[np.int64]:
    """Return the counts of a histogram under a larger range of its grid."""
    rises = min(doublings_between(histogram.range, range_), DISTANCES - 1)
    counts = np.zeros(BINS, np.int64)
    counts[: BINS >> rises] = histogram.counts.reshape(-1, 1 << rises).sum(axis=1) if rises else histogram.counts
    return counts


def seam_arrays(seams: Sequence[Seam]) -> dict[str, Array]:
    """Return seams as the arrays of a file."""
    return {
        "seams/firsts": np.array([seam.first for seam in seams], np.float64),
        "seams/low": np.array([seam.low for seam in seams], np.int64).reshape(-1, DISTANCES),
    }


def take_seams(histograms: Mapping[str, Histogram], arrays: dict[str, Array]) -> dict[str, Seam]:
    """Return the seams in the arrays of a file, and remove those. KeyError or ValueError where they are none."""
    firsts = check_typed(arrays.pop("seams/firsts"), np.float64, (len(histograms),)).tolist()
    low = check_typed(arrays.pop("seams/low"), np.int64, (len(histograms), DISTANCES))
    seams = {name: Seam(first, row.copy()) for name, first, row in zip(histograms, firsts, low, strict=True)}
    for name, histogram in histograms.items():
        check_seam(seams[name], histogram, name)
    return seams


def check_seam(seam: Seam, histogram: Histogram, name: str) -> None:
    """Check that a seam is one of that histogram. ValueError."""
    first, most = seam.first, histogram.amax
    if not (first == float32(first) and 0.0 <= first <= most and (first > 0.0) == (most > 0.0)):
        raise ValueError(f"the first range of {name!r} is none: {first:g}")
    if histogram.range != 0.0 and not histogram.range / 2 < most:
        raise ValueError(f"the range of {name!r} is not that of its values: {histogram.range:g} for {most:g}")
    places = (BINS >> np.arange(DISTANCES)) - 1
    if (seam.low < 0).any() or (seam.low > histogram.counts[places]).any() or (seam.low.any() and not most):
        raise ValueError(f"the seam of {name!r} counts more values than there are")


class SeamRecorder:
    """An observer of the ends of batches, for all tensors of a collector."""

    def __init__(self, tensors: int) -> None:
        self._range, self._first = np.zeros(tensors), np.zeros(tensors)
        self._low = np.zeros((tensors, DISTANCES), np.int64)

    def note(self, state: NDArray[np.float64], edge: NDArray[np.int64]) -> None:
        """Take the state [T, 3] (range, minimum, maximum) at the end of a batch, and the number of values at R [T]."""
        ranges = np.where(np.isnan(state[:, 0]), 0.0, state[:, 0])
        moves = np.where(self._range * ranges > 0.0, np.frexp(ranges)[1] - np.frexp(self._range)[1], 0)
        for i in np.flatnonzero(moves):
            self._low[i] = shift_low(self._low[i], int(moves[i]))
        self._low[:, 0] += np.where(ranges > 0.0, edge, 0)
        self._range[:] = ranges
        amax = np.maximum(np.maximum(-state[:, 1], state[:, 2]), 0.0)
        self._first[:] = np.where(self._first == 0.0, amax, self._first)

    def seam(self, i: int) -> Seam:
        """Return the seam of a tensor as a frozen value."""
        return Seam(float(self._first[i]), self._low[i].copy())

    def dump(self) -> dict[str, Array]:
        """Return the state as arrays, for a checkpoint."""
        return {
            "seam ranges": self._range.copy(),
            "seam firsts": self._first.copy(),
            "seam low": self._low.copy(),
        }

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Restore the state from `dump`. KeyError or ValueError where the arrays belong to another run."""
        self._range[...] = check_typed(arrays["seam ranges"], np.float64, self._range.shape)
        self._first[...] = check_typed(arrays["seam firsts"], np.float64, self._first.shape)
        self._low[...] = check_typed(arrays["seam low"], np.int64, self._low.shape)

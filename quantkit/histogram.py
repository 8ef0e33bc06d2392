"""The histogram of one activation tensor: 2048 counts of |x| over [0, R], with exact minimum and maximum.

Two modes determine R (docs/decisions/0003-two-histogram-modes.md):

    tensorrt     R = max|x| of the first batch that holds a nonzero value; bins are closed at R
    invariant    R = the smallest power of two greater than max|x|; bins are half open

In both modes R grows by doubling, so that bins are added in pairs and no value is counted again. In `invariant` mode
the histogram depends only on the values, not on their order or their batches, so parts can be merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from quantkit.kernel import BINS, double_range

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BINS", "Histogram", "HistogramMode", "merge_histograms"]


class HistogramMode(str, Enum):
    """The way in which the range of a histogram is determined."""

    TENSORRT = "tensorrt"
    INVARIANT = "invariant"


@dataclass(frozen=True, slots=True)
class Histogram:
    """The histogram of one tensor.

    counts: int64 [2048], read-only; bin j holds |x| in [j·R/2048, (j+1)·R/2048).
    range: R, a float64; 0 while all values have been zero.
    minimum, maximum: exact, signed.
    """

    counts: NDArray[np.int64]
    range: float
    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        self.counts.setflags(write=False)

    @property
    def amax(self) -> float:
        """max|x|, exactly."""
        return max(abs(self.minimum), abs(self.maximum))

    @property
    def width(self) -> float:
        """Width of a bin, in the unit of the tensor."""
        return self.range / BINS

    @property
    def elements(self) -> int:
        """The number of values that were counted."""
        return int(self.counts.sum())


def merge_histograms(a: Histogram, b: Histogram) -> Histogram:
    """Return both histograms together. Exact in `invariant` mode, whose ranges are powers of two."""
    first, second = sorted((a, b), key=lambda h: h.range)
    counts = np.append(first.counts, 0)
    range_ = first.range
    while 0.0 < range_ < second.range:
        double_range(counts)
        range_ *= 2.0
    return Histogram(
        counts[:BINS] + second.counts,
        second.range,
        min(a.minimum, b.minimum),
        max(a.maximum, b.maximum),
    )

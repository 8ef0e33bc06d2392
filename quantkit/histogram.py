"""The histogram of one activation tensor: 2048 counts of |x| over [0, R], with exact minimum and maximum.

Two modes determine R (docs/decisions/0003-two-histogram-modes.md):

    tensorrt     R = max|x| of the first batch that holds a nonzero value; bins are closed at R
    invariant    R = the smallest power of two greater than max|x|; bins are half open

In both modes R grows by doubling, so that bins are added in pairs and no value is counted again. In `invariant` mode
the histogram depends only on the values, not on their order or their batches, so parts can be merged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from quantkit.kernel import BINS, double_range

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BINS", "ChannelImportance", "Histogram", "HistogramMode", "merge_histograms"]


class HistogramMode(str, Enum):
    """The way in which the range of a histogram is determined."""

    TENSORRT = "tensorrt"
    INVARIANT = "invariant"


PLACES = 257
"""Sizes at which the importance is computed; between them it is interpolated."""
LEAST_VALUES = 3.0
"""A tail is one of at least so many values, so that its logarithm is above 1."""
BEYOND = 50.0
"""A channel has e^−50 of its share beyond its largest value: it counts there if no other channel does."""


@dataclass(frozen=True, slots=True)
class ChannelImportance:
    """The importance of values by their size: which channels they come from, and what the next layer makes of those.

    An error counts by the gain g_c of its channel. Channels whose values are large often have small weights behind
    them, so that the largest values may matter least. Which share of the values of a size |x| = t comes from which
    channel is not recorded. It is estimated from two figures that are exact, max|x| = m and the mean square p of n
    values: an exponential tail of that share π of the values that has both,

        q(t) = π/s · exp(−t/s)  up to m,   s = m / ln(n·π),   π·2s² = p  (π at most 1)

    The importance of t is then Σ_c q_c(t)·g_c / Σ_c q_c(t).

    gain: relative gains [C]. largest: max|x| [C]. power: mean of x² [C]. elements: values per channel.
    """

    gain: NDArray[np.float32]
    largest: NDArray[np.float32]
    power: NDArray[np.float64]
    elements: int

    def of_sizes(self, most: float, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the importance of values of |x| = `sizes` [n], between 0 and `most`, the largest value."""
        live = self.largest > 0.0
        gain = self.gain[live].astype(np.float64)
        if not live.any() or most <= 0.0 or not gain.any():
            return np.ones(len(sizes))
        largest = self.largest[live].astype(np.float64)
        power = np.maximum(self.power[live], largest * largest / self.elements)  # that of one value at least
        scale = largest / np.log(max(self.elements, LEAST_VALUES))
        share = np.minimum(power / (2.0 * scale * scale), 1.0)
        scale = largest / np.maximum(np.log(np.maximum(share * self.elements, LEAST_VALUES)), 1.0)
        places = np.linspace(0.0, most, PLACES)
        with np.errstate(divide="ignore"):
            log_share = np.log(share / scale) - places[:, None] / scale
        log_share[places[:, None] > largest] -= BEYOND
        parts = np.exp(log_share - log_share.max(axis=1, keepdims=True))
        found: NDArray[np.float64] = np.interp(sizes, places, np.einsum("tc,c->t", parts, gain) / parts.sum(axis=1))
        return found


@dataclass(frozen=True, slots=True)
class Histogram:
    """The histogram of one tensor.

    counts: int64 [2048], read-only; bin j holds |x| in [j·R/2048, (j+1)·R/2048).
    range: R, a float64; 0 while all values have been zero.
    minimum, maximum: exact, signed.
    importance: what its channels are to the next layers; None where no layer with weights reads the tensor.
    samples: the number of samples that the values are of; None if it is not known.
    """

    counts: NDArray[np.int64]
    range: float
    minimum: float
    maximum: float
    importance: ChannelImportance | None = field(default=None, compare=False, repr=False)
    samples: int | None = field(default=None, compare=False, repr=False)

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

    @property
    def weighted_counts(self) -> NDArray[np.float64]:
        """The counts [2048], each times the importance of values of its size."""
        counts = self.counts.astype(np.float64)
        if self.importance is None or self.amax == 0.0:
            return counts
        middles = np.minimum((np.arange(BINS) + 0.5) * self.width, self.amax)
        return counts * self.importance.of_sizes(self.amax, middles)


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

"""The rule `wmse`: least squared error, where clipped values count more than rounded ones, and channels by their use.

Clipped values lie together, in the loudest samples, and all lose in the same direction, so that the next layer sums
their errors up; those of rounded values cancel out. And the largest values of the next samples exceed those of a few
that were seen. With n samples the squared error of a clipped value counts 1.5 + 28/n times, which is 5 times with 8.
Both numbers are chosen by measurement (docs/decisions/0026-the-default-rule.md).

Values of channels that the next layer multiplies by large weights count more (`ChannelImportance`), but only where that
matters: where the threshold of equal channels would at least double the weighted error. Below that, following the
weights of one layer gained nothing at the outputs, and cost two networks up to 1.4 dB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.rules.mse import MseFp8
from quantkit.rules.registry import RuleKind
from quantkit.rules.squared_error import edge_threshold, least_error_edge, squared_errors

if TYPE_CHECKING:
    from quantkit.histogram import Histogram


CLIPPED = 1.5
"""How much the squared error of a clipped value counts beside that of a rounded one, with any number of samples."""
FEW = 28.0
"""Divided by the number of samples: how much more it counts."""
MATTERS = 2.0
"""Factor of the weighted error from which on channels count by their use."""


@dataclass(frozen=True, slots=True)
class WeightedMse:
    """Least mean squared error of clipping and rounding to 8 bits, weighted as this module says."""

    @property
    def name(self) -> str:
        """`wmse`."""
        return "wmse"

    def threshold(self, histogram: Histogram) -> float:
        """Return a bin edge, at most max|x|; 0 for a tensor that was zero."""
        import numpy as np

        if histogram.amax == 0.0:
            return 0.0
        clipping = CLIPPED + (FEW / histogram.samples if histogram.samples else 0.0)
        equal = least_error_edge(histogram, histogram.counts.astype(np.float64), clipping)
        if histogram.importance is None:
            return edge_threshold(histogram, equal)
        counts = histogram.weighted_counts
        weighted = least_error_edge(histogram, counts, clipping)
        at_equal, least = squared_errors(counts, np.array([equal, weighted]), clipping=clipping)
        return edge_threshold(histogram, weighted if at_equal > MATTERS * least else equal)


def wmse_in_fp8(rule: WeightedMse) -> MseFp8:
    """Return `mse` in FP8 under this name: steps grow with the values, so that large channels do not coarsen others."""
    return MseFp8(rule.name)


KIND = RuleKind(
    "wmse",
    WeightedMse,
    "least squared error; clipped values count more, and channels by use where that matters",
    in_fp8=wmse_in_fp8,
    rank=5,
)

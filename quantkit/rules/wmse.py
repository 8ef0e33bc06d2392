"""The rule `wmse`: least squared error, each value weighted by what the next layer makes of its channel.

Values of channels that the next layer multiplies by large weights count more (`ChannelImportance`). A tensor
that no stored weight reads is weighted equally.

Rounding errors are as often above as below, and average out in the sums of the next layer. Clipping errors all have the
sign of their value, and do not. So the error of clipped values counts 1.5 times. The largest values of the next samples
exceed those of a few that were seen: with n samples it counts 1.5 + 28/n times, five times with 8. Both numbers are
measured: classifiers gain up to 1 dB with 2 instead of 1, and detectors lose as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.rules.mse import MseFp8
from quantkit.rules.registry import RuleKind
from quantkit.rules.squared_error import least_error_threshold

if TYPE_CHECKING:
    from quantkit.histogram import Histogram


CLIPPED = 1.5
"""How much the squared error of a clipped value counts beside that of a rounded one, with many samples."""
FEW = 28.0
"""Divided by the number of samples, it counts that much more."""


@dataclass(frozen=True, slots=True)
class WeightedMse:
    """Least mean squared error of clipping and rounding to 8 bits, weighted by the importance of channels."""

    @property
    def name(self) -> str:
        """`wmse`."""
        return "wmse"

    def threshold(self, histogram: Histogram) -> float:
        """Return a bin edge, at most max|x|."""
        clipping = CLIPPED + (FEW / histogram.samples if histogram.samples else 0.0)
        return least_error_threshold(histogram, histogram.weighted_counts, clipping)


def wmse_in_fp8(rule: WeightedMse) -> MseFp8:
    """Return `mse` in FP8 under this name: steps grow with the values, so that large channels do not coarsen others."""
    return MseFp8(rule.name)


KIND = RuleKind(
    "wmse",
    WeightedMse,
    "least squared error, weighted by the weights that read a tensor",
    in_fp8=wmse_in_fp8,
    rank=5,
)

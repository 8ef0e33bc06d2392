"""The rule `wmse`: least squared error, each value weighted by what the next layer makes of its channel.

Values of channels that the next layer multiplies by large weights count more (`ChannelImportance`). A tensor
that no stored weight reads is weighted equally.

The largest values of the next samples exceed those of a few that were seen: with n samples the error of clipped values
counts 1 + 28/n times, which is 4.5 times with 8. The number 28 is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.rules.mse import MseFp8
from quantkit.rules.registry import RuleKind
from quantkit.rules.squared_error import least_error_threshold

if TYPE_CHECKING:
    from quantkit.histogram import Histogram


FEW = 28.0
"""Divided by the number of samples: how much more the squared error of a clipped value counts than that of a rounded
one."""


@dataclass(frozen=True, slots=True)
class WeightedMse:
    """Least mean squared error of clipping and rounding to 8 bits, weighted by the importance of channels."""

    @property
    def name(self) -> str:
        """`wmse`."""
        return "wmse"

    def threshold(self, histogram: Histogram) -> float:
        """Return a bin edge, at most max|x|."""
        clipping = 1.0 + (FEW / histogram.samples if histogram.samples else 0.0)
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

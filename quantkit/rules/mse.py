"""The rule `mse`: least expected squared error of rounding and clipping, to the levels of INT8 or the numbers of FP8.

Sources: Sung et al. 2015 (arXiv 1511.06488), Nagel et al. 2021 (arXiv 2106.08295) §3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.rules.fp8_error import least_fp8_threshold
from quantkit.rules.registry import RuleKind
from quantkit.rules.squared_error import least_error_threshold

if TYPE_CHECKING:
    from quantkit.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Mse:
    """Least mean squared error of clipping and rounding to 8 bits, values spread evenly within each bin."""

    @property
    def name(self) -> str:
        """`mse`."""
        return "mse"

    def threshold(self, histogram: Histogram) -> float:
        """Return a bin edge, at most max|x|."""
        return least_error_threshold(histogram)


@dataclass(frozen=True, slots=True)
class MseFp8:
    """Least mean squared error of rounding and clipping to E4M3, values spread evenly within each bin.

    name: of the rule that it stands for.
    """

    name: str = "mse"

    def threshold(self, histogram: Histogram) -> float:
        """Return a threshold, below 2·max|x|."""
        return least_fp8_threshold(histogram)


def mse_in_fp8(_: Mse) -> MseFp8:
    """Return the rule for FP8."""
    return MseFp8()


KIND = RuleKind("mse", Mse, "least squared error", in_fp8=mse_in_fp8, rank=10)

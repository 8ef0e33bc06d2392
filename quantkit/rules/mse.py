"""The rule `mse`: least expected squared error of 8-bit rounding and clipping.

Sources: Sung et al. 2015 (arXiv 1511.06488), Nagel et al. 2021 (arXiv 2106.08295) §3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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


KIND = RuleKind("mse", Mse, "least squared error", rank=10)

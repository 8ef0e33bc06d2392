"""The rule `percentile`: a share of the values is kept, as TensorRT's IInt8LegacyCalibrator with cutoff 1 does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from quantkit.errors import UsageError
from quantkit.numerics import FLOAT32_MAX, float32
from quantkit.rules.registry import RuleKind
from quantkit.values import Algorithm
from quantkit.view import quoted

if TYPE_CHECKING:
    from quantkit.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Percentile:
    """Clip the (100 − keep) % largest |x|, as TensorRT's Legacy calibrator with quantile keep/100 does."""

    keep: float = 99.99

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 100.0:
            raise UsageError(f"percentile {self.keep:g} is not in (0, 100]", remedy="for example percentile:99.99")

    @property
    def name(self) -> str:
        """`percentile:<keep>`."""
        return f"percentile:{Decimal(repr(float(self.keep))):f}"

    @property
    def quantile(self) -> float:
        """keep/100, rounded once: 99.99 is the double 0.9999."""
        return float(Decimal(repr(float(self.keep))).scaleb(-2))

    def threshold(self, histogram: Histogram) -> float:
        """Return the upper edge of the first bin whose cumulative share reaches keep/100."""
        import numpy as np

        if histogram.amax == 0.0:
            return 0.0
        cumulative = np.cumsum(histogram.counts)
        reached = int(np.searchsorted(cumulative / cumulative[-1], self.quantile))
        bins = min(reached, len(cumulative) - 1) + 1
        return float32(min(bins * histogram.range / len(cumulative), FLOAT32_MAX))


def parse_percentile(text: str) -> Percentile:
    """Return the rule for a percentage as text. ValueError where it is not a number, UsageError outside (0, 100]."""
    if not re.fullmatch("[0-9]{1,300}(?:[.][0-9]{1,400})?", text):
        raise ValueError(f"not a percentage: {quoted(text)}")
    return Percentile(float(text))


def percentile_of(quantile: float) -> Percentile:
    """Return the rule that keeps a share of the values: 0.9999 is 99.99 %, without the rounding of 100·0.9999."""
    return Percentile(float(Decimal(repr(quantile)).scaleb(2)))


KIND = RuleKind(
    "percentile",
    Percentile,
    "keeps that percentage of the values",
    example="percentile:99.99",
    parse=parse_percentile,
    calibrators=frozenset({Algorithm.LEGACY}),
    from_quantile=percentile_of,
    rank=30,
)

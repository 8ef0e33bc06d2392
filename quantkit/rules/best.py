"""The rule `best`: for every tensor the threshold with the least squared error, of those that several rules propose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.rules.entropy import Entropy
from quantkit.rules.fp8_error import fp8_squared_error
from quantkit.rules.minmax import MinMax
from quantkit.rules.mse import Mse, MseFp8
from quantkit.rules.percentile import Percentile
from quantkit.rules.registry import Rule, RuleKind
from quantkit.rules.squared_error import squared_error

if TYPE_CHECKING:
    from quantkit.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Best:
    """For every tensor the rule with the least squared error over its histogram."""

    rules: tuple[Rule, ...] = (Mse(), Percentile(99.999), Percentile(99.99), Entropy(), MinMax())

    @property
    def name(self) -> str:
        """`best`."""
        return "best"

    def threshold(self, histogram: Histogram) -> float:
        """Return the threshold of the chosen rule."""
        return self.choice(histogram)[1]

    def choice(self, histogram: Histogram) -> tuple[Rule, float]:
        """Return the chosen rule, the first of equals, and its threshold."""
        proposed = [(rule, rule.threshold(histogram)) for rule in self.rules]
        return min(proposed, key=lambda pair: squared_error(histogram, pair[1]))


@dataclass(frozen=True, slots=True)
class BestFp8:
    """For every tensor the rule with the least squared error in FP8 over its histogram."""

    rules: tuple[Rule, ...] = (MseFp8(), Percentile(99.999), Percentile(99.99), MinMax())

    @property
    def name(self) -> str:
        """`best`."""
        return "best"

    def threshold(self, histogram: Histogram) -> float:
        """Return the threshold of the chosen rule."""
        return self.choice(histogram)[1]

    def choice(self, histogram: Histogram) -> tuple[Rule, float]:
        """Return the chosen rule, the first of equals, and its threshold."""
        proposed = [(rule, rule.threshold(histogram)) for rule in self.rules]
        return min(proposed, key=lambda pair: fp8_squared_error(histogram, pair[1]))


def best_in_fp8(_: Best) -> BestFp8:
    """Return the rule for FP8."""
    return BestFp8()


KIND = RuleKind("best", Best, "the rule of least squared error for each tensor", in_fp8=best_in_fp8, rank=20)

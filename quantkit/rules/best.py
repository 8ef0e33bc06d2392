"""The rule `best`: for every tensor the threshold with the least squared error, of those that several rules propose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.rules.entropy import Entropy
from quantkit.rules.fp8_error import fp8_squared_error
from quantkit.rules.minmax import MinMax
from quantkit.rules.mse import Mse
from quantkit.rules.percentile import Percentile
from quantkit.rules.registry import Rule, RuleKind, kind_of, rule_in_type
from quantkit.rules.squared_error import squared_error
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    from quantkit.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Best:
    """For every tensor the rule with the least squared error over its histogram.

    error: the mean squared error of a histogram at a threshold.
    """

    rules: tuple[Rule, ...] = (Mse(), Percentile(99.999), Percentile(99.99), Entropy(), MinMax())
    error: Callable[[Histogram, float], float] = squared_error

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
        return min(proposed, key=lambda pair: self.error(histogram, pair[1]))


def best_in_fp8(best: Best) -> Best:
    """Return the rule for FP8: those of its rules that know FP8, judged by their errors in FP8."""
    known = tuple(rule_in_type(rule, QuantizedType.FP8) for rule in best.rules if kind_of(rule).in_fp8 is not None)
    return Best(known, fp8_squared_error)


KIND = RuleKind("best", Best, "the rule of least squared error for each tensor", in_fp8=best_in_fp8, rank=20)

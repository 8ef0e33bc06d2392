"""The rule `best`: for every tensor the threshold with the least squared error, of those that several rules propose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.rules.entropy import Entropy
from quantkit.rules.minmax import MinMax
from quantkit.rules.mse import Mse
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


KIND = RuleKind("best", Best, "the rule of least squared error for each tensor", rank=20)

"""Rules that search each histogram only once, for networks that are quantized many times from one pass."""

from __future__ import annotations

from quantkit.histogram import Histogram
from quantkit.rules import Rule, SelectingRule, parse_rule


class MemoizedRule:
    """A rule that searches each histogram only once, however often a network is quantized with it."""

    def __init__(self, rule: Rule) -> None:
        self.name = rule.name
        self._rule = rule
        self._known: dict[int, tuple[Histogram, float]] = {}

    def threshold(self, histogram: Histogram) -> float:
        """Return the rule's threshold."""
        if id(histogram) not in self._known:  # the cache keeps the histogram alive, so that its id is not reused
            self._known[id(histogram)] = histogram, self._rule.threshold(histogram)
        return self._known[id(histogram)][1]


class MemoizedSelection:
    """A rule that chooses among others, searching each histogram only once; it still reports which one a tensor got."""

    def __init__(self, rule: SelectingRule) -> None:
        self.name = rule.name
        self._rule = rule
        self._known: dict[int, tuple[Histogram, tuple[Rule, float]]] = {}

    def choice(self, histogram: Histogram) -> tuple[Rule, float]:
        """Return the chosen rule and its threshold."""
        if id(histogram) not in self._known:
            self._known[id(histogram)] = histogram, self._rule.choice(histogram)
        return self._known[id(histogram)][1]

    def threshold(self, histogram: Histogram) -> float:
        """Return the threshold of the chosen rule."""
        return self.choice(histogram)[1]


def memoized_rule(name: str) -> Rule:
    """Return the rule of that name, searching each histogram only once. UsageError."""
    rule = parse_rule(name)
    return MemoizedSelection(rule) if isinstance(rule, SelectingRule) else MemoizedRule(rule)

"""The rules that there are, found in the files of this folder, and how text names them.

Nothing here loads numpy, so that help texts can list the rules; the files of the rules import it inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from quantkit.errors import UsageError
from quantkit.plugin import import_files
from quantkit.values import Algorithm, QuantizedType

if TYPE_CHECKING:
    from quantkit.histogram import Histogram


@runtime_checkable
class Rule(Protocol):
    """A way to choose the threshold of a tensor."""

    @property
    def name(self) -> str:
        """The rule as it is written on the command line and in file names."""

    def threshold(self, histogram: Histogram) -> float:
        """Return the clipping threshold, a float32 value in the unit of the tensor; 0 for a tensor that was zero."""


@runtime_checkable
class QuantileRule(Rule, Protocol):
    """A rule that keeps a fixed share of the values, as the header of a Legacy table records it."""

    @property
    def quantile(self) -> float:
        """The share of the values that is kept, 0 … 1."""


@runtime_checkable
class SelectingRule(Rule, Protocol):
    """A rule that takes the threshold of another rule, chosen for each tensor."""

    def choice(self, histogram: Histogram) -> tuple[Rule, float]:
        """Return the chosen rule and its threshold."""


def for_every_type(rule: Rule) -> Rule:
    """Return a rule as it is: it looks at the values of a tensor alone, not at the type that they are rounded to."""
    return rule


DEFAULT_RULE = "wmse"
"""The rule of every command: it lost least over the networks of our benchmarks (benchmarks/results/rules.md)."""
WHY_DEFAULT_RULE = (
    f"Default: {DEFAULT_RULE}, which lost least over the networks of our benchmarks; "
    "entropy gives TensorRT's own table."
)
"""The reason, for help texts."""


@dataclass(frozen=True, slots=True)
class RuleKind:
    """A rule as users know it. `rule()` is the rule with its default parameter."""

    name: str
    rule: type[Rule]
    summary: str
    """One line for help texts, without a full stop."""
    example: str = ""
    """The rule as a user may write it, where its name alone does not show that it takes a parameter."""
    parse: Callable[[str], Rule] | None = None
    """Make the rule from the text behind the colon; ValueError. None: the rule takes no parameter."""
    header: Algorithm = Algorithm.ENTROPY_2
    """The algorithm in the header of its tables; TensorRT reads any scales under Entropy2."""
    calibrators: frozenset[Algorithm] = frozenset()
    """The calibrators of TensorRT that compute this rule."""
    from_quantile: Callable[[float], Rule] | None = None
    """Make the rule from the quantile in a Legacy header."""
    in_fp8: Callable[[Any], Rule] | None = for_every_type
    """Return the rule as it is for FP8. None: the rule is about the levels of INT8."""
    rank: int = 100
    """Place in lists, and in the search of `quantkit tune`, which tries low ranks first."""

    @property
    def usage(self) -> str:
        """How a user may write it."""
        return self.example or self.name


@cache
def rule_kinds() -> Mapping[str, RuleKind]:
    """Return every rule by name, in the order of their ranks: the `KIND` of each file of this folder that has one."""
    kinds = [module.KIND for module in import_files(__package__) if hasattr(module, "KIND")]
    return {kind.name: kind for kind in sorted(kinds, key=lambda kind: (kind.rank, kind.name))}


def rule_choices(*, remarks: bool = False) -> str:
    """Return all rules as a user may write them, separated by commas; with a remark on each in brackets."""
    kinds = rule_kinds().values()
    return ", ".join(f"{kind.usage} ({kind.summary})" if remarks else kind.usage for kind in kinds)


def kind_of(rule: Rule) -> RuleKind:
    """Return the kind of a rule; a rule of the user's own has a kind with all defaults."""
    own = RuleKind(rule.name, type(rule), "a rule of your own")
    return next((kind for kind in rule_kinds().values() if isinstance(rule, kind.rule)), own)


def rule_in_type(rule: Rule, quantized_type: QuantizedType) -> Rule:
    """Return a rule as it chooses thresholds for a type. UsageError if it is about the levels of INT8."""
    if quantized_type is QuantizedType.INT8:
        return rule
    kind = kind_of(rule)
    if kind.in_fp8 is None:
        known = ", ".join(other.usage for other in rule_kinds().values() if other.in_fp8 is not None)
        raise UsageError(
            f"the rule {rule.name} counts the levels of INT8, which FP8 does not have", remedy=f"use one of {known}"
        )
    return kind.in_fp8(rule)


def rule_of_calibrator(algorithm: Algorithm, quantile: float) -> Rule:
    """Return the rule that one of TensorRT's calibrators computes; `quantile` counts for the Legacy calibrator."""
    kind = next(kind for kind in rule_kinds().values() if algorithm in kind.calibrators)
    return kind.from_quantile(quantile) if kind.from_quantile else kind.rule()


def parse_rule(text: str) -> Rule:
    """Return the rule that a text names, for example `mse` or `percentile:99.9`. UsageError."""
    name, colon, parameter = text.partition(":")
    kind = rule_kinds().get(name)
    if kind is not None and not colon:
        return kind.rule()
    try:
        if kind is not None and kind.parse is not None:
            return kind.parse(parameter)
    except ValueError:
        pass
    raise UsageError(f"unknown rule {text!r}", remedy=f"use one of {rule_choices()}")


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Return the rules of a comma-separated list, in order. UsageError where one is unknown, or named twice."""
    return as_rules([parse_rule(part.strip()) for part in text.split(",")])


def as_rules(rules: str | Rule | Sequence[Rule]) -> tuple[Rule, ...]:
    """Return rules as a tuple, however a caller gives them: as text, as one rule, or as several. UsageError."""
    if isinstance(rules, str):
        return parse_rules(rules)
    several: tuple[Any, ...] = (rules,) if isinstance(rules, Rule) or not isinstance(rules, Iterable) else tuple(rules)
    if wrong := [rule for rule in several if not isinstance(rule, Rule)]:
        raise UsageError(f"a rule is of type {type(wrong[0]).__name__}", remedy=f"name {rule_choices()}")
    if not several:
        raise UsageError("no rule is given", remedy=f"name at least one, for example {DEFAULT_RULE}")
    names = [rule.name for rule in several]
    if len(set(names)) != len(names):
        raise UsageError(f"a rule is named twice: {','.join(names)}", remedy="name each rule once")
    return several

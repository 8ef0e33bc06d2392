"""Calibration rules: each chooses the threshold that a histogram is clipped at; scale = threshold/127.

A rule is a frozen value in a file of its own, which is named after it and has a `KIND`: nothing else lists the rules.
"""

from quantkit.rules.registry import (
    DEFAULT_RULE,
    WHY_DEFAULT_RULE,
    QuantileRule,
    Rule,
    RuleKind,
    SelectingRule,
    as_rules,
    kind_of,
    parse_rule,
    parse_rules,
    rule_choices,
    rule_in_type,
    rule_kinds,
    rule_of_calibrator,
)

__all__ = [
    "DEFAULT_RULE",
    "WHY_DEFAULT_RULE",
    "QuantileRule",
    "Rule",
    "RuleKind",
    "SelectingRule",
    "as_rules",
    "kind_of",
    "parse_rule",
    "parse_rules",
    "rule_choices",
    "rule_in_type",
    "rule_kinds",
    "rule_of_calibrator",
]

"""All lint rules: every module below `quantkit.linting.rules` is one, and has a `RULE`."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from quantkit.graph.model import Model, node_name
from quantkit.linting import rules
from quantkit.linting.finding import SEVERITIES, Finding
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph, read_qdq


@cache
def lint_rules() -> tuple[LintRule, ...]:
    """Return the rules, errors first, then by name."""
    names = [found.name for found in pkgutil.walk_packages(rules.__path__, f"{rules.__name__}.") if not found.ispkg]
    found: list[LintRule] = [import_module(name).RULE for name in names]
    return tuple(sorted(found, key=lambda rule: (SEVERITIES.index(rule.severity), rule.name)))


def lint_model(model: Model) -> tuple[Finding, ...]:
    """Return what TensorRT will reject or run slowly, in graph order; empty if nothing is wrong.

    ModelError where external weights that have to be read are missing.
    """
    return lint_graph(read_qdq(model))


def lint_graph(qdq: QdqGraph) -> tuple[Finding, ...]:
    """Return all findings in a network that was read, in graph order."""
    order: dict[str, int] = {}
    for number, node in enumerate(qdq.nodes):
        order.setdefault(node_name(node), number)
    found = dict.fromkeys(finding for rule in lint_rules() for finding in rule.findings(qdq))
    return tuple(sorted(found, key=lambda finding: order[finding.where]))

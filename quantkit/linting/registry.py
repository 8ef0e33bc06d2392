"""All lint rules: every module below `quantkit.linting.rules` is one, and has a `RULE`."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from quantkit.graph.model import Model, node_name
from quantkit.graph.operators import computes_in_integers
from quantkit.graph.subgraphs import all_nodes, subgraphs
from quantkit.linting import rules
from quantkit.linting.finding import SEVERITIES, Finding
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph, is_qdq, read_qdq

if TYPE_CHECKING:
    import onnx


@cache
def lint_rules() -> tuple[LintRule, ...]:
    """Return the rules, errors first, then by name."""
    names = [found.name for found in pkgutil.walk_packages(rules.__path__, f"{rules.__name__}.") if not found.ispkg]
    found: list[LintRule] = [import_module(name).RULE for name in names]
    return tuple(sorted(found, key=lambda rule: (SEVERITIES.index(rule.severity), rule.name)))


def lint_model(model: Model) -> tuple[Finding, ...]:
    """Return what TensorRT will reject or run slowly, in graph order; empty if nothing is wrong.

    Findings in the subgraphs of If, Loop and Scan come last; none of them is fixable. ModelError where external weights
    that have to be read are missing.
    """
    return (*lint_graph(read_qdq(model)), *lint_subgraphs(model, model.proto.graph.node))


def lint_subgraphs(model: Model, nodes: Iterable[onnx.NodeProto]) -> Iterator[Finding]:
    """Yield the findings in the subgraphs of nodes, each read together with the graphs around it, those of `model`."""
    for node in nodes:
        for inner in (part for attribute in node.attribute for part in subgraphs(attribute)):
            if not any(is_qdq(inside) or computes_in_integers(inside) for inside in all_nodes(inner)):
                continue
            whole = type(model.proto)()
            whole.CopyFrom(model.proto)
            for field in ("node", "initializer", "value_info"):
                getattr(whole.graph, field).extend(getattr(inner, field))
            whole.graph.value_info.extend(inner.input)
            own = {node_name(inside) for inside in inner.node}
            together = replace(model, proto=whole)
            for finding in lint_graph(read_qdq(together)):
                if finding.where in own:
                    problem = f"{finding.problem} (inside {node.op_type} {node_name(node)!r})"
                    yield replace(finding, problem=problem, fixable=False)
            yield from lint_subgraphs(together, inner.node)


def lint_graph(qdq: QdqGraph) -> tuple[Finding, ...]:
    """Return all findings in a network that was read, in graph order."""
    order: dict[str, int] = {}
    for number, node in enumerate(qdq.nodes):
        order.setdefault(node_name(node), number)
    found = dict.fromkeys(finding for rule in lint_rules() for finding in rule.findings(qdq))
    return tuple(sorted(found, key=lambda finding: order[finding.where]))

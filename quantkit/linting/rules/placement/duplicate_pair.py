"""duplicate-pair: one activation quantized twice with the same scale."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.linting.equal_pairs import group_quantizers, parameter_key
from quantkit.linting.finding import Defect
from quantkit.linting.graph_edit import GraphEdit
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph, QdqNode


def find_duplicate_pairs(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield QuantizeLinear nodes that are equal to an earlier one of the same activation."""
    for tensor, groups in group_quantizers(qdq).items():
        for first, *others in groups:
            for node in others:
                yield Defect(
                    node.name,
                    f"{tensor!r} is quantized again with the scale of {first.name!r}",
                    "share one pair",
                    fixable=node.result not in qdq.held,
                )


def share_pairs(edit: GraphEdit) -> None:
    """Leave one of several equal QuantizeLinear nodes, and the earliest of equal DequantizeLinear nodes after it."""
    for groups in group_quantizers(edit.qdq).values():
        for first, *others in groups:
            free = [node for node in others if node.result not in edit.qdq.held]
            if free:
                merge_quantizers(edit, first, free)


def merge_quantizers(edit: GraphEdit, first: QdqNode, others: list[QdqNode]) -> None:
    """Let everything that reads `others` read the first of them."""
    results = {node.result for node in (first, *others)}
    kept: dict[tuple[object, ...], QdqNode] = {}
    for node in edit.qdq.qdq_nodes.values():
        if node.quantizes or node.data not in results:
            continue
        earliest = kept.setdefault(parameter_key(node), node)
        if earliest is not node and node.result not in edit.qdq.held:
            edit.remove_node(node.result, instead=earliest.result)
    for node in others:
        edit.remove_node(node.result, instead=first.result)


RULE = LintRule(
    "duplicate-pair",
    "slow",
    "one activation quantized twice with the same scale",
    find_duplicate_pairs,
    share_pairs,
    "one pair",
)

"""commuting-scales: another scale after an operator that only moves values than before it."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.model import node_name
from quantkit.graph.operators import SCALE_CONVERTING
from quantkit.linting.equal_pairs import scale_key, scale_range_text
from quantkit.linting.finding import Defect
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph


def find_commuting_scales(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield operators that only move values, with one scale before and another after them."""
    for node in qdq.nodes:
        if node.op_type not in SCALE_CONVERTING or not qdq.dequantizes(node.input[0]):
            continue
        before = qdq.qdq_nodes[node.input[0]]
        for after in qdq.quantizers_of(node.output[0]):
            if scale_key(before) != scale_key(after) and None not in (scale_key(before), scale_key(after)):
                texts = scale_range_text([before]), scale_range_text([after])
                problem = f"{node.op_type} has scale {texts[0]} before it and {texts[1]} after it"
                yield Defect(node_name(node), problem, "give both the scale of its input")


RULE = LintRule(
    "commuting-scales",
    "slow",
    "MaxPool, Reshape, Transpose … with another scale after than before",
    find_commuting_scales,
)

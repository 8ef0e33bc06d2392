"""commuting-scales: another scale after an operator that only moves values than before it."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.model import node_name
from quantkit.graph.operators import SCALE_CONVERTING
from quantkit.linting.equal_pairs import scale_key, scale_range_text
from quantkit.linting.finding import Defect
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph, moved_tensors


def find_commuting_scales(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield operators that only move values, with one scale before and another after them."""
    for node in qdq.nodes:
        sources = moved_tensors(qdq, node.input[0]) if node.op_type in SCALE_CONVERTING else set()
        if len(sources) != 1 or not qdq.dequantizes(source := next(iter(sources))):
            continue
        before = qdq.qdq_nodes[source]
        for after in (each for output in node.output for each in qdq.quantizers_of(output)):
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

"""unequal-types: a weighted operator whose inputs are quantized to different types."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.model import node_name
from quantkit.graph.operators import WEIGHTED
from quantkit.linting.finding import Defect
from quantkit.linting.rule import LintRule
from quantkit.qdq.layer_counts import fp8_tensors
from quantkit.qdq.reader import QdqGraph, is_dequantized, moved_tensors


def find_unequal_types(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield weighted operators that multiply INT8 by FP8."""
    in_fp8 = fp8_tensors(qdq.model)
    for node in qdq.nodes if in_fp8 else ():
        if node.op_type not in WEIGHTED or not all(is_dequantized(qdq, name) for name in node.input[:2]):
            continue
        kinds = [{name in in_fp8 for name in moved_tensors(qdq, read)} for read in node.input[:2]]
        if len(set().union(*kinds)) > 1:
            yield Defect(
                node_name(node),
                f"{node.op_type} reads INT8 and FP8: no kernel multiplies the two, so it runs in float",
                "quantize both inputs to one type",
            )


RULE = LintRule(
    "unequal-types", "slow", "one input in INT8, the other in FP8: the operator runs in float", find_unequal_types
)

"""scale-type: scales that are not float."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.linting.finding import Defect
from quantkit.linting.quantized_tensors import distinct_nodes, eight_bit_tensors
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import FLOAT_SCALES, QdqGraph


def find_scale_types(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield nodes whose scale has another type than float32, float16 and bfloat16."""
    for tensor in eight_bit_tensors(qdq):
        for node in distinct_nodes(tensor):
            if node.scale_type and node.scale_type not in FLOAT_SCALES:
                yield Defect(node.name, f"the scale is {node.scale_type}", "store scales as float32 or float16")


RULE = LintRule("scale-type", "error", "a scale that is not float", find_scale_types)

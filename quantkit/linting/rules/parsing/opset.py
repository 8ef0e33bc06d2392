"""opset: scales that need a newer opset."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.linting.finding import Defect
from quantkit.linting.quantized_tensors import FP8, distinct_nodes, eight_bit_tensors
from quantkit.linting.rule import LintRule
from quantkit.qdq.insert import LEAST_FP8_OPSET, LEAST_HALF_OPSET, LEAST_OPSET
from quantkit.qdq.reader import QdqGraph


def find_old_opsets(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield nodes with float16 scales or several scales in an opset that has none."""
    for tensor in eight_bit_tensors(qdq):
        for node in distinct_nodes(tensor):
            if node.scale_type == "float16" and qdq.model.opset < LEAST_HALF_OPSET:
                problem = f"float16 scales in opset {qdq.model.opset}"
                yield Defect(node.name, problem, f"raise the opset to {LEAST_HALF_OPSET} (onnx.version_converter)")
            if node.stored == FP8 and qdq.model.opset < LEAST_FP8_OPSET:
                problem = f"FP8 in opset {qdq.model.opset}"
                yield Defect(node.name, problem, f"raise the opset to {LEAST_FP8_OPSET} (onnx.version_converter)")
            if node.scale is not None and node.per_channel and qdq.model.opset < LEAST_OPSET:
                problem = f"{node.scale.size} scales in opset {qdq.model.opset}"
                yield Defect(node.name, problem, f"raise the opset to {LEAST_OPSET} (onnx.version_converter)")


RULE = LintRule("opset", "error", "scales per channel need opset 13, float16 scales and FP8 19", find_old_opsets)

"""weight-axis: scales of weights along another axis than that of the output channels."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.model import node_name
from quantkit.graph.operators import WEIGHTED, weight_axis
from quantkit.linting.finding import Defect
from quantkit.linting.quantized_tensors import eight_bit_tensors
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph


def find_weight_axes(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield weighted operators whose weights have scales along another axis."""
    for tensor in eight_bit_tensors(qdq):
        for node in tensor.dequantize:
            dims = qdq.shapes.get(node.data) or qdq.shapes.get(node.result) or ()
            if not node.per_channel or node.result not in qdq.constants or not -len(dims) <= node.axis < len(dims):
                continue
            axis = node.axis % len(dims)
            for reader, operator in qdq.uses(node.result):
                if operator.op_type not in WEIGHTED or reader.place > 1:
                    continue
                right = weight_axis(operator, reader.place, len(dims))
                if axis != right:
                    yield Defect(
                        node_name(operator),
                        f"the scales of {operator.op_type}'s weights lie along axis {axis}, its output channels along "
                        f"axis {right}",
                        f"quantize along axis {right}",
                    )


RULE = LintRule(
    "weight-axis",
    "error",
    "scales have to lie along the output channels: Conv 0, ConvTranspose 1, Gemm 1 (`transB` 0), MatMul the last",
    find_weight_axes,
)

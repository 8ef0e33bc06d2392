"""integer-operator: operators that compute in integers themselves."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.model import node_name
from quantkit.graph.operators import computes_in_integers
from quantkit.linting.finding import Defect
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph, is_qdq


def find_integer_operators(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield the integer operators of ONNX and onnxruntime."""
    for node in qdq.nodes:
        if computes_in_integers(node) and not is_qdq(node):  # contrib-pair is about those
            operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            yield Defect(
                node_name(node),
                f"TensorRT has no {operator}",
                "write QuantizeLinear and DequantizeLinear of ONNX around float operators "
                "(onnxruntime: quant_format=QuantFormat.QDQ)",
            )


RULE = LintRule(
    "integer-operator",
    "error",
    "QLinearConv, ConvInteger, DynamicQuantizeLinear and onnxruntime's own: TensorRT has none",
    find_integer_operators,
)

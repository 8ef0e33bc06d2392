"""lone-dequantize: a DequantizeLinear without its other half."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.operators import computes_in_integers
from quantkit.linting.finding import Defect
from quantkit.linting.neighbours import has_quantize_before
from quantkit.linting.quantized_tensors import eight_bit_tensors
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph


def find_lone_dequantize(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield DequantizeLinear nodes of what is neither quantized nor stored; integer operators have a rule."""
    inputs = qdq.inputs - qdq.weights.keys()
    for tensor in eight_bit_tensors(qdq):
        known = tensor.quantize is not None or tensor.name in inputs or tensor.name in qdq.constants
        if known or has_quantize_before(qdq, tensor.name):
            continue
        maker = qdq.maker(tensor.name)
        if maker is None or not computes_in_integers(maker):
            problem = f"it dequantizes {tensor.name!r}, which {maker.op_type if maker else 'nothing'} makes"
            remedy = "dequantize what a QuantizeLinear made, or stored INT8"
            yield Defect(tensor.dequantize[0].name, problem, remedy)


RULE = LintRule(
    "lone-dequantize", "error", "a DequantizeLinear of what is neither quantized nor stored", find_lone_dequantize
)

"""lone-quantize: a QuantizeLinear without its other half."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.operators import computes_in_integers
from quantkit.linting.finding import Defect
from quantkit.linting.neighbours import only_dequantized
from quantkit.linting.quantized_tensors import eight_bit_tensors
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph


def find_lone_quantize(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield QuantizeLinear nodes that others than DequantizeLinear read; integer operators have a rule."""
    for tensor in eight_bit_tensors(qdq):
        if tensor.quantize is None or tensor.name in qdq.outputs or only_dequantized(qdq, tensor.name):
            continue
        readers = [node for _, node in qdq.uses(tensor.name)]
        if not any(computes_in_integers(node) for node in readers):
            operators = ", ".join(dict.fromkeys(node.op_type for node in readers))
            problem = f"no DequantizeLinear follows it, but {operators}" if operators else "nothing reads its output"
            yield Defect(tensor.quantize.name, problem, "put a DequantizeLinear after it")


RULE = LintRule("lone-quantize", "error", "a QuantizeLinear without a DequantizeLinear after it", find_lone_quantize)

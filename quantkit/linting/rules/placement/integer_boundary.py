"""integer-boundary: inputs and outputs of the network that are quantized."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.linting.finding import Defect
from quantkit.linting.quantized_tensors import eight_bit_tensors
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph


def find_integer_boundaries(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield Q/DQ nodes whose quantized side is an input or output of the network."""
    inputs = qdq.inputs - qdq.weights.keys()
    for tensor in eight_bit_tensors(qdq):
        node = tensor.nodes[0]
        if tensor.quantize is not None and tensor.name in qdq.outputs:
            problem = f"the engine's output {tensor.name!r} is {node.stored}; the caller has to dequantize it"
            yield Defect(node.name, problem, "end the network with DequantizeLinear")
        elif tensor.quantize is None and tensor.name in inputs:
            problem = f"the engine's input {tensor.name!r} is {node.stored}; the caller has to quantize it"
            yield Defect(node.name, problem, "begin the network with QuantizeLinear on a float input")


RULE = LintRule(
    "integer-boundary", "slow", "an integer input or output: the host has to quantize", find_integer_boundaries
)

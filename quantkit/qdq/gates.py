"""Gates: results of a global pool that are multiplied with a tensor again, as in squeeze-and-excite (arXiv 1709.01507).

Its tensors hold one value for each channel, so that INT8 saves nothing there, and an error in one value is an error in
a whole channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantkit.graph.index import GraphIndex
from quantkit.graph.operators import COMMUTING, GATE_OPERATORS, GLOBAL_POOLS, POSSIBLY_GLOBAL_POOLS, WEIGHTED

if TYPE_CHECKING:
    import onnx


def gate_nodes(wires: GraphIndex) -> frozenset[int]:
    """Return the weighted operators of gates, by number."""
    pooled: set[str] = set()
    passing = WEIGHTED | COMMUTING | GATE_OPERATORS
    for number, node in enumerate(wires.nodes):
        inputs = wires.activations(number)
        if is_global_pool(wires, node) or (node.op_type in passing and inputs and pooled.issuperset(inputs)):
            pooled.update(node.output)
    gating: set[str] = set()
    found: set[int] = set()
    for number in range(len(wires.nodes) - 1, -1, -1):
        node, inputs = wires.nodes[number], wires.activations(number)
        if node.op_type == "Mul" and len(inputs) == 2:
            gating.update(name for name in inputs if name in pooled and not pooled.issuperset(inputs))
        if gating.intersection(node.output) and pooled.issuperset(inputs):
            gating.update(inputs)
            if node.op_type in WEIGHTED:
                found.add(number)
    return frozenset(found)


def is_global_pool(wires: GraphIndex, node: onnx.NodeProto) -> bool:
    """Return whether a node leaves at most one axis besides that of the batch, as far as shapes are known."""
    if node.op_type in GLOBAL_POOLS:
        return True
    shape = wires.shapes.get(node.output[0])
    return node.op_type in POSSIBLY_GLOBAL_POOLS and shape is not None and sum(size != 1 for size in shape[1:]) <= 1

"""Gates: results of a global pool that are multiplied with a tensor again, as in squeeze-and-excite (arXiv 1709.01507).

Its tensors hold one value for each channel, so that INT8 saves nothing there, and an error in one value is an error in
a whole channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.graph.index import GraphIndex
from quantkit.graph.operators import COMMUTING, GATE_OPERATORS, GLOBAL_POOLS, POSSIBLY_GLOBAL_POOLS, WEIGHTED

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate, by the numbers of its nodes.

    product: the Mul. place: its input that is multiplied with the gate. pools, weighted: what the gate is computed by.
    """

    product: int
    place: int
    pools: frozenset[int]
    weighted: frozenset[int]


def find_gates(wires: GraphIndex) -> list[Gate]:
    """Return the gates of a network that have weighted operators, in graph order."""
    pooled = pooled_tensors(wires)
    found = []
    for number, node in enumerate(wires.nodes):
        inputs = wires.activations(number)
        if node.op_type != "Mul" or len(inputs) != 2 or pooled.issuperset(inputs):
            continue
        for place, name in enumerate(node.input):
            pools, weighted = gate_parts(wires, node.input[1 - place], pooled)
            if name not in pooled and weighted:
                found.append(Gate(number, place, pools, weighted))
    return found


def gate_nodes(gates: list[Gate]) -> frozenset[int]:
    """Return the weighted operators of gates, by number."""
    return frozenset[int]().union(*(gate.weighted for gate in gates))


def pooled_tensors(wires: GraphIndex) -> set[str]:
    """Return the results of global pools, and what gates compute of them alone."""
    found: set[str] = set()
    passing = WEIGHTED | COMMUTING | GATE_OPERATORS
    for number, node in enumerate(wires.nodes):
        inputs = wires.activations(number)
        if is_global_pool(wires, node) or (node.op_type in passing and inputs and found.issuperset(inputs)):
            found.update(node.output)
    return found


def gate_parts(wires: GraphIndex, tensor: str, pooled: set[str]) -> tuple[frozenset[int], frozenset[int]]:
    """Return the pools and the weighted operators that a tensor is computed by, up to the pools."""
    pools, weighted, waiting, seen = set(), set(), [tensor], set[str]()
    while waiting:
        name = waiting.pop()
        number = wires.makers.get(name)
        if name in seen or name not in pooled or number is None:
            continue
        seen.add(name)
        inputs = wires.activations(number)
        if not pooled.issuperset(inputs):
            pools.add(number)
            continue
        waiting += inputs
        if wires.nodes[number].op_type in WEIGHTED:
            weighted.add(number)
    return frozenset(pools), frozenset(weighted)


def is_global_pool(wires: GraphIndex, node: onnx.NodeProto) -> bool:
    """Return whether a node leaves at most one axis besides that of the batch, as far as shapes are known."""
    if node.op_type in GLOBAL_POOLS:
        return True
    shape = wires.shapes.get(node.output[0])
    return node.op_type in POSSIBLY_GLOBAL_POOLS and shape is not None and sum(size != 1 for size in shape[1:]) <= 1

"""Readers of convolutions whose INT8 kernels write INT8 alone, in TensorRT 8: depthwise ones, and those of images.

Such a kernel has a Relu, a Clip or SiLU inside. All that reads its result is read behind pairs, or the convolution
computes in float between two conversions (measured: docs/decisions/0029-what-reads-int8.md):

    HardSwish       its input
    a gate          behind a depthwise convolution: both factors of its product, its pool, and its convolutions
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from quantkit.graph.index import GraphIndex
from quantkit.graph.operators import CLIPPING
from quantkit.qdq.patterns.gates import Gate, gate_nodes
from quantkit.qdq.patterns.int8_kernels import DEPTHWISE, HARD_SWISH, fused_with, narrow_kind, writes_int8

AVERAGING = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
"""Pools that TensorRT 8 has INT8 kernels for where they are global."""
HARD_SIGMOID = "HardSigmoid"


@dataclass(frozen=True, slots=True)
class Int8Readers:
    """Nodes that read behind pairs if the convolution before them is in INT8.

    places: node → its inputs with pairs. convolutions: node → that convolution, of products and activations. leaders:
    pool, or half of an activation → the node without which it has no pair. gates: weighted operators → their products.
    """

    places: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    convolutions: Mapping[int, int] = field(default_factory=dict)
    leaders: Mapping[int, int] = field(default_factory=dict)
    gates: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def gains(self, wires: GraphIndex, number: int, quantized: Mapping[int, tuple[int, ...]]) -> bool:
        """Return whether the pairs of one of these nodes are of use: its convolution writes INT8, and so does it."""
        if number in self.leaders:
            return self.leaders[number] in quantized
        convolution = self.convolutions[number]
        fused = fused_with(narrow_kind(wires, convolution))
        return (
            convolution in quantized
            and writes_int8(wires, wires.nodes[convolution].output[0], quantized, fused)
            and writes_int8(wires, wires.nodes[number].output[0], quantized, frozenset())
        )

    def unused(self, quantized: Mapping[int, tuple[int, ...]]) -> list[int]:
        """Return the quantized operators of gates that have no pairs around their products."""
        return [number for number, products in self.gates.items()
                if number in quantized and not products.issubset(quantized)]  # fmt: skip


def find_int8_readers(wires: GraphIndex, gates: Iterable[Gate]) -> Int8Readers:
    """Return the readers of convolutions whose INT8 kernels write INT8 alone. gates: those of the network."""
    places: dict[int, tuple[int, ...]] = {}
    convolutions: dict[int, int] = {}
    leaders: dict[int, int] = {}
    for number in range(len(wires.nodes)):
        if narrow_kind(wires, number):
            made = wires.nodes[number].output[0]
            for reader, node in wires.uses(made):
                if node.op_type == HARD_SWISH:
                    places[reader.number], convolutions[reader.number] = (0,), number
                elif node.op_type == HARD_SIGMOID and (product := product_of(wires, reader.number, made)) is not None:
                    places[reader.number], leaders[reader.number] = (0,), product
                    places[product] = (list(wires.nodes[product].input).index(made),)
                    convolutions[product] = number
    opened: list[Gate] = []
    for gate in gates:
        made = wires.nodes[gate.product].input[gate.place]
        maker = depthwise_source(wires, made)
        pools = [wires.nodes[number] for number in gate.pools]
        if maker is not None and all(p.op_type in AVERAGING and p.input[0] == made for p in pools):
            opened.append(gate)
            places[gate.product], convolutions[gate.product] = (0, 1), maker
            places |= dict.fromkeys(gate.pools, (0,))
            leaders |= dict.fromkeys(gate.pools, gate.product)
    products = {n: frozenset(gate.product for gate in opened if n in gate.weighted) for n in gate_nodes(opened)}
    return Int8Readers(places, convolutions, leaders, products)


def product_of(wires: GraphIndex, number: int, tensor: str) -> int | None:
    """Return the node that multiplies the result of a HardSigmoid, and nothing else reads, with what it was made of."""
    users = [reader.number for reader, _ in wires.uses(wires.nodes[number].output[0])]
    return users[0] if len(users) == 1 and wires.silu_input(wires.nodes[users[0]]) == tensor else None


def depthwise_source(wires: GraphIndex, tensor: str) -> int | None:
    """Return the depthwise convolution that made a tensor, with at most batch normalization and activations that are
    part of its kernel, or have pairs of their own, in between."""
    while (number := wires.makers.get(tensor)) is not None:
        node = wires.nodes[number]
        if narrow_kind(wires, number) == DEPTHWISE:
            return number
        before = wires.silu_input(node)
        if before is None and node.op_type in CLIPPING | {HARD_SWISH, "BatchNormalization"}:
            before = node.input[0]
        if before is None:
            return None
        tensor = before
    return None

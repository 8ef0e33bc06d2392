"""TODO docstring."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.inference import element_types, infer_types, tensor_shapes
from quantkit.graph.model import node_name
from quantkit.graph.operators import COMMUTING
from quantkit.graph.weights import known_weights

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class TensorReader:
    """A node, by number, that reads a tensor as its input `place`."""

    number: int
    place: int


@dataclass(frozen=True, slots=True)
class GraphIndex:
    """What the placement of Q/DQ pairs asks of a graph. Nodes go by their number in the graph."""

    nodes: tuple[onnx.NodeProto, ...]
    makers: Mapping[str, int]
    """Tensor → node that makes it."""
    readers: Mapping[str, tuple[TensorReader, ...]]
    outputs: frozenset[str]
    constants: frozenset[str]
    """Weights, and all that is computed from weights and shapes alone."""
    weights: Mapping[str, onnx.TensorProto]
    """Weights whose values are in the file: initializers, Constant nodes, and other names of them."""
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int | None, ...]]

    def name(self, number: int) -> str:
        """A node's name; its first output where it has none."""
        return node_name(self.nodes[number])

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for inputs and weights."""
        number = self.makers.get(tensor)
        return None if number is None else self.nodes[number]

    def reading(self, tensor: str) -> Iterator[tuple[TensorReader, onnx.NodeProto]]:
        """Every node that reads a tensor."""
        for reader in self.readers.get(tensor, ()):
            yield reader, self.nodes[reader.number]

    def activations(self, number: int) -> list[str]:
        """The inputs of a node that depend on the data."""
        return [name for name in self.nodes[number].input if name and name not in self.constants]

    def behind(self, tensor: str, through: frozenset[str] = COMMUTING) -> Iterator[tuple[TensorReader, onnx.NodeProto]]:
        """Who reads a tensor, directly or through operators of the kinds `through`; each of these is passed once.

        With Sigmoid passes SiLU, written out as x·sigmoid(x).
        """
        waiting, seen = [tensor], {tensor}
        while waiting:
            for reader, node in self.reading(waiting.pop()):
                passes = node.op_type in through and (reader.place == 0 or node.op_type == "Concat")
                if passes or ("Sigmoid" in through and self.is_silu(node)):
                    waiting.extend(name for name in node.output if name and name not in seen)
                    seen.update(node.output)
                else:
                    yield reader, node

    def is_silu(self, node: onnx.NodeProto) -> bool:
        """Whether a node multiplies a tensor with the Sigmoid or HardSigmoid of itself."""
        if node.op_type != "Mul":
            return False
        for x, gate in (tuple(node.input), tuple(node.input)[::-1]):
            maker = self.maker(gate)
            if maker is not None and maker.op_type in ("Sigmoid", "HardSigmoid") and maker.input[0] == x:
                return True
        return False


def index_graph(proto: onnx.ModelProto) -> GraphIndex:
    """Look at a graph. Types and shapes come from ONNX shape inference where the file lacks them."""
    graph = proto.graph
    readers: dict[str, list[TensorReader]] = defaultdict(list)
    for number, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            readers[name].append(TensorReader(number, place))
    typed = infer_types(proto).graph
    return GraphIndex(
        nodes=tuple(graph.node),
        makers={name: number for number, node in enumerate(graph.node) for name in node.output if name},
        readers={name: tuple(found) for name, found in readers.items()},
        outputs=frozenset(value.name for value in graph.output),
        constants=frozenset(constant_tensors(graph.node, {tensor.name for tensor in graph.initializer})),
        weights=known_weights(graph),
        types=element_types(typed),
        shapes=tensor_shapes(typed),
    )

"""The index of a graph: which node makes a tensor, which nodes read it, what is constant, of which type and shape.

Wiring        makers, readers and outputs; for graphs that are being edited
GraphIndex    the same with constants, weights, types and shapes
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.model import node_name
from quantkit.graph.operators import COMMUTING, SIGMOIDS
from quantkit.graph.shape_inference import element_types, infer_types, tensor_shapes
from quantkit.graph.subgraphs import captured_names
from quantkit.graph.weights import stored_tensors

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class TensorReader:
    """A node, by number, that reads a tensor as its input number `place`."""

    number: int
    place: int


@dataclass(frozen=True, slots=True, eq=False)
class Wiring:
    """The nodes of a graph by number, and the tensors between them."""

    nodes: tuple[onnx.NodeProto, ...]
    makers: Mapping[str, int]
    """Tensor → node that makes it."""
    readers: Mapping[str, tuple[TensorReader, ...]]
    """Tensor → the inputs that it is, in graph order."""
    captured: Mapping[str, tuple[int, ...]]
    """Tensor → nodes inside whose subgraphs it is read."""
    inputs: frozenset[str]
    """Inputs of the graph; old files list weights among them."""
    outputs: frozenset[str]
    held: frozenset[str]
    """Names that are visible outside the nodes: graph inputs and outputs, and what subgraphs read."""

    def name(self, number: int) -> str:
        """Return a node's name, or that of its first output if it has none."""
        return node_name(self.nodes[number])

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor; None for inputs and weights."""
        number = self.makers.get(tensor)
        return None if number is None else self.nodes[number]

    def uses(self, tensor: str) -> Iterator[tuple[TensorReader, onnx.NodeProto]]:
        """Yield every node that reads a tensor, with the input that the tensor is."""
        for reader in self.readers.get(tensor, ()):
            yield reader, self.nodes[reader.number]

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor, themselves or in a subgraph, each once and in graph order."""
        numbers = {reader.number for reader in self.readers.get(tensor, ())} | set(self.captured.get(tensor, ()))
        return [self.nodes[number] for number in sorted(numbers)]

    def has_sole_reader(self, tensor: str) -> bool:
        """Return whether exactly one input is the tensor, which is not visible outside the nodes."""
        return len(self.readers.get(tensor, ())) == 1 and tensor not in self.held

    def read_counts(self) -> Counter[str]:
        """Count how often each tensor is read: by nodes, in subgraphs, and as an output of the graph."""
        counts = Counter({tensor: len(readers) for tensor, readers in self.readers.items()})
        counts.update({tensor: len(numbers) for tensor, numbers in self.captured.items()})
        counts.update(self.outputs)
        return counts

    def uses_through(
        self, tensor: str, through: frozenset[str] = COMMUTING
    ) -> Iterator[tuple[TensorReader, onnx.NodeProto]]:
        """Yield what reads a tensor, directly or behind operators of the kinds `through`, each of which is passed once.

        If Sigmoid is among them, so is SiLU written as x·sigmoid(x).
        """
        waiting, seen = [tensor], {tensor}
        while waiting:
            for reader, node in self.uses(waiting.pop()):
                passes = node.op_type in through and (reader.place == 0 or node.op_type == "Concat")
                if passes or ("Sigmoid" in through and self.is_silu(node)):
                    waiting.extend(name for name in node.output if name and name not in seen)
                    seen.update(node.output)
                else:
                    yield reader, node

    def is_silu(self, node: onnx.NodeProto) -> bool:
        """Return whether a node multiplies a tensor with the Sigmoid or HardSigmoid of itself."""
        return self.silu_input(node) is not None

    def silu_input(self, node: onnx.NodeProto) -> str | None:
        """Return the tensor that a node multiplies with the Sigmoid or HardSigmoid of itself; None if it does not."""
        if node.op_type != "Mul":
            return None
        for x, gate in (tuple(node.input), tuple(node.input)[::-1]):
            maker = self.maker(gate)
            if maker is not None and maker.op_type in SIGMOIDS and maker.input[0] == x:
                return str(x)
        return None


@dataclass(frozen=True, slots=True, eq=False)
class GraphIndex(Wiring):
    """The wiring of a graph with what is known about its tensors."""

    constants: frozenset[str]
    """Weights, and everything computed from weights and shapes alone."""
    weights: Mapping[str, onnx.TensorProto]
    """Tensors whose values are in the file: initializers, Constant nodes, and their aliases."""
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int | None, ...]]

    def activations(self, number: int) -> list[str]:
        """Return the inputs of a node that depend on the data."""
        return [name for name in self.nodes[number].input if name and name not in self.constants]


def wire_graph(graph: onnx.GraphProto) -> Wiring:
    """Index who makes and who reads the tensors of a graph."""
    readers: dict[str, list[TensorReader]] = defaultdict(list)
    captured: dict[str, list[int]] = defaultdict(list)
    for number, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            if name:
                readers[name].append(TensorReader(number, place))
        for name in captured_names(node):
            if name:
                captured[name].append(number)
    return Wiring(
        nodes=tuple(graph.node),
        makers={name: number for number, node in enumerate(graph.node) for name in node.output if name},
        readers={name: tuple(found) for name, found in readers.items()},
        captured={name: tuple(found) for name, found in captured.items()},
        inputs=frozenset(value.name for value in graph.input),
        outputs=frozenset(value.name for value in graph.output),
        held=frozenset({value.name for value in (*graph.input, *graph.output)} | captured.keys()),
    )


def index_graph(proto: onnx.ModelProto) -> GraphIndex:
    """Index a graph. Types and shapes are inferred by ONNX if the file lacks them."""
    graph = proto.graph
    typed = infer_types(proto).graph
    return GraphIndex(
        **wiring_fields(wire_graph(graph)),
        constants=frozenset(constant_tensors(graph)),
        weights=stored_tensors(graph),
        types=element_types(typed),
        shapes=tensor_shapes(typed),
    )


def wiring_fields(wiring: Wiring) -> dict[str, Any]:
    """Return the fields of a wiring or an index, to build a larger one."""
    return {field.name: getattr(wiring, field.name) for field in fields(wiring)}

"""The Q/DQ nodes of a network, read as any tool may have written them.

    QdqNode            one QuantizeLinear or DequantizeLinear: data, scale, zero point, type of the quantized side, axis
    QuantizedTensor    a quantized tensor: what makes it (a QuantizeLinear, or stored integers) and what reads it
    QdqGraph           the index of the graph with all of them

Only the main graph is read, not the graphs inside If, Loop and Scan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.graph.index import GraphIndex, Wiring, index_graph, wiring_fields
from quantkit.graph.model import DTYPES, Model, dtype_name, node_name
from quantkit.graph.operators import DEQUANTIZED_BEFORE, ONNX_DOMAINS, QDQ, QDQ_DOMAINS
from quantkit.graph.subgraphs import all_nodes
from quantkit.graph.weights import stored_values
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
KNOWN_TYPES = frozenset(DTYPES.values()) | {QuantizedType.FP8.stored}
FLOAT_SCALES = frozenset({"float32", "float16", "bfloat16"})
DEFAULT_AXIS = 1
"""The axis of QuantizeLinear and DequantizeLinear without the attribute."""


@dataclass(frozen=True, slots=True, eq=False)
class QdqNode:
    """A QuantizeLinear or DequantizeLinear node. scale and zero are None unless they are constant.

    stored: dtype of the quantized side, "" if unknown. axis: as written, possibly negative. block: elements that share
    a scale along the axis; 0: all.
    """

    node: onnx.NodeProto
    stored: str
    scale_type: str
    scale: Array | None
    zero: Array | None
    axis: int
    block: int

    @property
    def quantizes(self) -> bool:
        """True for a QuantizeLinear."""
        return bool(self.node.op_type == QUANTIZE)

    @property
    def name(self) -> str:
        """The node's name, or that of its output if it has none."""
        return node_name(self.node)

    @property
    def data(self) -> str:
        """The tensor that it reads."""
        return str(self.node.input[0])

    @property
    def result(self) -> str:
        """The tensor that it makes."""
        return str(self.node.output[0])

    @property
    def scale_name(self) -> str:
        """The name of its scale."""
        return str(self.node.input[1])

    @property
    def zero_name(self) -> str:
        """The name of its zero point; empty if it has none."""
        return str(self.node.input[2]) if len(self.node.input) > 2 else ""

    @property
    def output_type(self) -> int:
        """The ONNX element type that its `output_dtype` asks for; 0 without the attribute."""
        return next((int(a.i) for a in self.node.attribute if a.name == "output_dtype"), 0)

    @property
    def per_channel(self) -> bool:
        """True if it has more than one scale."""
        return self.scale is not None and self.scale.size > 1

    @property
    def quantized_tensor(self) -> str:
        """The tensor on its quantized side."""
        return self.result if self.quantizes else self.data


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedTensor:
    """A quantized tensor. quantize: the node that makes it, None if it is stored; dequantize: its readers."""

    name: str
    quantize: QdqNode | None
    dequantize: tuple[QdqNode, ...]

    @property
    def nodes(self) -> tuple[QdqNode, ...]:
        """All of its Q/DQ nodes, the QuantizeLinear first."""
        return (*([self.quantize] if self.quantize else []), *self.dequantize)


@dataclass(frozen=True, slots=True, eq=False)
class QdqGraph(GraphIndex):
    """The index of a graph with its Q/DQ nodes. Types and shapes include those of stored tensors."""

    model: Model
    qdq_nodes: Mapping[str, QdqNode]
    """By the tensor that they make, in graph order."""
    quantized: tuple[QuantizedTensor, ...]

    @property
    def graph(self) -> onnx.GraphProto:
        """The graph that was read."""
        return self.model.proto.graph

    def values(self, name: str) -> Array | None:
        """Return the values of a stored tensor; None if there is none of that name."""
        return stored_values(self.model, self.weights, name)

    def dequantizes(self, tensor: str) -> bool:
        """Return whether a DequantizeLinear makes a tensor."""
        node = self.qdq_nodes.get(tensor)
        return node is not None and not node.quantizes

    def quantizer(self, tensor: str) -> QdqNode | None:
        """Return the QuantizeLinear before the DequantizeLinear that makes a tensor."""
        node = self.qdq_nodes[tensor] if self.dequantizes(tensor) else None
        before = self.qdq_nodes.get(node.data) if node is not None else None
        return before if before is not None and before.quantizes else None

    def quantizers_of(self, tensor: str) -> list[QdqNode]:
        """Return the QuantizeLinear nodes that read a tensor."""
        found = (self.qdq_nodes.get(node.output[0]) for reader, node in self.uses(tensor) if reader.place == 0)
        return [node for node in found if node is not None and node.quantizes]


def read_qdq(model: Model, domains: Collection[str] = ONNX_DOMAINS) -> QdqGraph:
    """Read a network's Q/DQ nodes that are of `domains`. ModelError if external weights that are needed are missing."""
    index = index_graph(model.proto)
    stored_types = {name: dtype_name(tensor.data_type) for name, tensor in index.weights.items()}
    stored_shapes = {name: tuple(tensor.dims) for name, tensor in index.weights.items()}
    types = {**index.types, **stored_types}
    nodes: dict[str, QdqNode] = {}
    for node in index.nodes:
        if node.op_type in QDQ and node.domain in domains and len(node.input) > 1:
            read = read_qdq_node(model, node, index.weights, types)
            types[read.result] = read.stored if read.quantizes else read.scale_type
            nodes[read.result] = read
    known = {**wiring_fields(index), "types": types, "shapes": {**index.shapes, **stored_shapes}}
    return QdqGraph(**known, model=model, qdq_nodes=nodes, quantized=tuple(group_quantized_tensors(nodes)))


def read_qdq_node(
    model: Model, node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], types: Mapping[str, str]
) -> QdqNode:
    """Return a Q/DQ node as a value."""
    numbers = {a.name: a.i for a in node.attribute}
    zero_name = node.input[2] if len(node.input) > 2 else ""
    scale_type = types.get(node.input[1], "")
    if node.op_type == DEQUANTIZE:
        stored = types.get(node.input[0]) or types.get(zero_name, "")
    elif zero_name:
        stored = types.get(zero_name, "")
    else:  # the default of the ONNX operator is uint8
        stored = dtype_name(numbers["output_dtype"]) if numbers.get("output_dtype") else "uint8"
    return QdqNode(
        node=node,
        stored=stored,
        scale_type=scale_type,
        scale=stored_values(model, weights, node.input[1]) if scale_type in FLOAT_SCALES else None,
        zero=stored_values(model, weights, zero_name) if types.get(zero_name, "") in KNOWN_TYPES else None,
        axis=numbers.get("axis", DEFAULT_AXIS),
        block=numbers.get("block_size", 0),
    )


def group_quantized_tensors(nodes: Mapping[str, QdqNode]) -> Iterator[QuantizedTensor]:
    """Yield the quantized tensors, in graph order."""
    found: dict[str, list[QdqNode]] = {}
    for node in nodes.values():
        found.setdefault(node.quantized_tensor, []).append(node)
    for name, group in found.items():
        maker = next((node for node in group if node.quantizes), None)
        yield QuantizedTensor(name, maker, tuple(node for node in group if not node.quantizes))


def is_qdq(node: onnx.NodeProto) -> bool:
    """Return whether a node is a QuantizeLinear or DequantizeLinear, ONNX's or onnxruntime's."""
    return node.op_type in QDQ and node.domain in QDQ_DOMAINS


def has_qdq(model: Model) -> bool:
    """Return whether QuantizeLinear or DequantizeLinear nodes say what is INT8 in a network."""
    return any(is_qdq(node) for node in all_nodes(model.proto.graph))


def moved_tensors(wiring: Wiring, tensor: str) -> set[str]:
    """Return the tensors whose values a tensor holds: those behind the operators that only move them, or clip at 0.

    A Concat holds the values of all of its inputs. A tensor that something else makes is the only one itself.
    """
    waiting, seen, found = [tensor], {tensor}, set[str]()
    while waiting:
        name = waiting.pop()
        node = wiring.maker(name)
        if node is None or node.op_type not in DEQUANTIZED_BEFORE or is_qdq(node):
            found.add(name)
            continue
        sources = node.input if node.op_type == "Concat" else node.input[:1]
        waiting.extend(source for source in sources if source not in seen)
        seen.update(sources)
    return found


def is_dequantized(wiring: Wiring, tensor: str) -> bool:
    """Return whether a DequantizeLinear makes a tensor, with nothing but operators that move values in between."""
    makers = [wiring.maker(name) for name in moved_tensors(wiring, tensor)]
    return all(node is not None and is_qdq(node) and node.op_type == DEQUANTIZE for node in makers)

"""The Q/DQ nodes of a network, read as any tool may have written them.

    Step       one QuantizeLinear or DequantizeLinear: data, scale, zero point, type of the quantized side, axis
    Carrier    a quantized tensor: what makes it (a QuantizeLinear, or a stored integer tensor) and what reads it
    Reading    the graph with all of them, who makes and who reads a tensor, constants, types and shapes

Only the main graph is read, not the graphs inside If, Loop and Scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.inference import element_types, infer_types
from quantkit.graph.model import DTYPES, Model, dtype_name, place
from quantkit.graph.subgraphs import captured_names
from quantkit.graph.weights import stored_tensors, stored_values

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
ONNX_DOMAINS = frozenset({"", "ai.onnx"})
FLOAT_SCALES = frozenset({"float32", "float16", "bfloat16"})
DEFAULT_AXIS = 1
"""Of QuantizeLinear and DequantizeLinear, where the attribute is absent."""


@dataclass(frozen=True, slots=True, eq=False)
class QdqNode:
    """A QuantizeLinear or DequantizeLinear node. scale and zero are None where no constant says them.

    stored: dtype of the quantized side, "" where nothing tells. axis: as written, it may be negative.
    """

    node: onnx.NodeProto
    stored: str
    scale_type: str
    scale: Array | None
    zero: Array | None
    axis: int

    @property
    def quantizes(self) -> bool:
        """Whether it is a QuantizeLinear."""
        return bool(self.node.op_type == QUANTIZE)

    @property
    def where(self) -> str:
        """The node's name, or its output where it has none."""
        return place(self.node)

    @property
    def data(self) -> str:
        """The tensor that it reads."""
        return str(self.node.input[0])

    @property
    def result(self) -> str:
        """The tensor that it makes."""
        return str(self.node.output[0])

    @property
    def zero_name(self) -> str:
        """The name of its zero point; empty where it has none."""
        return str(self.node.input[2]) if len(self.node.input) > 2 else ""

    @property
    def per_channel(self) -> bool:
        """Whether it has more than one scale."""
        return self.scale is not None and self.scale.size > 1

    @property
    def carrier(self) -> str:
        """The quantized tensor."""
        return self.result if self.quantizes else self.data


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedTensor:
    """A quantized tensor. quantize: what makes it, None for a stored one; dequantize: what reads it."""

    name: str
    quantize: QdqNode | None
    dequantize: tuple[QdqNode, ...]

    @property
    def steps(self) -> tuple[QdqNode, ...]:
        """All of its nodes, the QuantizeLinear first."""
        return (*([self.quantize] if self.quantize else []), *self.dequantize)


@dataclass(frozen=True, slots=True, eq=False)
class QdqGraph:
    """A network as its Q/DQ nodes see it. readers: tensor → nodes of the main graph that read it, with the place."""

    model: Model
    graph: onnx.GraphProto
    steps: Mapping[str, QdqNode]
    """By the tensor that they make, in graph order."""
    carriers: tuple[QuantizedTensor, ...]
    producers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, tuple[tuple[onnx.NodeProto, int], ...]]
    constants: frozenset[str]
    """Tensors that follow from stored values alone."""
    weights: Mapping[str, onnx.TensorProto]
    """Tensors whose values are in the file."""
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int | None, ...]]
    held: frozenset[str]
    """Names that are seen from outside: graph inputs and outputs, and what inner graphs read."""

    def values(self, name: str) -> Array | None:
        """The values of a stored tensor; None where there is none of that name."""
        return stored_values(self.model, self.weights, name)

    def before(self, name: str) -> QdqNode | None:
        """The Q/DQ node that makes a tensor."""
        return self.steps.get(name)

    def sole_reader(self, name: str) -> bool:
        """Whether one node reads a tensor, and nothing from outside."""
        return len(self.readers.get(name, ())) == 1 and name not in self.held


def read_qdq(model: Model) -> QdqGraph:
    """Read a network's Q/DQ nodes. ModelError where external weights that are needed are missing."""
    graph = model.proto.graph
    weights = stored_tensors(graph)
    typed = infer_types(model.proto).graph
    types = {**element_types(typed), **{name: dtype_name(t.data_type) for name, t in weights.items()}}
    shapes: dict[str, tuple[int | None, ...]] = {name: tuple(t.dims) for name, t in weights.items()}
    for value in (*typed.value_info, *typed.output, *typed.input):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
            shapes.setdefault(value.name, dims)
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    held = {value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        held |= captured_names(node)
        for k, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, k))
    steps: dict[str, QdqNode] = {}
    for node in graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE) and node.domain in ONNX_DOMAINS and len(node.input) > 1:
            step = read_qdq_node(model, node, weights, types)
            types[step.result] = step.stored if step.quantizes else step.scale_type
            steps[step.result] = step
    return QdqGraph(
        model=model,
        graph=graph,
        steps=steps,
        carriers=tuple(group_quantized_tensors(steps)),
        producers={name: node for node in graph.node for name in node.output},
        readers={name: tuple(found) for name, found in readers.items()},
        constants=frozenset(constant_tensors(graph.node, set(weights))),
        weights=weights,
        types=types,
        shapes=shapes,
        held=frozenset(held),
    )


def read_qdq_node(
    model: Model, node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], types: Mapping[str, str]
) -> QdqNode:
    """A Q/DQ node as a value."""
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
        zero=stored_values(model, weights, zero_name) if types.get(zero_name, "") in DTYPES.values() else None,
        axis=numbers.get("axis", DEFAULT_AXIS),
    )


def group_quantized_tensors(steps: Mapping[str, QdqNode]) -> Iterator[QuantizedTensor]:
    """Quantized tensors, in graph order."""
    found: dict[str, list[QdqNode]] = {}
    for step in steps.values():
        found.setdefault(step.carrier, []).append(step)
    for name, those in found.items():
        makes = next((step for step in those if step.quantizes), None)
        yield QuantizedTensor(name, makes, tuple(step for step in those if not step.quantizes))


def has_qdq(model: Model) -> bool:
    """Whether a network says itself, by QuantizeLinear or DequantizeLinear, what is INT8."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.proto.graph.node)


def is_qdq(node: onnx.NodeProto) -> bool:
    """Whether a node is ONNX's QuantizeLinear or DequantizeLinear, or onnxruntime's of 16 bits."""
    return node.op_type in QDQ and node.domain in ("", "ai.onnx", "com.microsoft")

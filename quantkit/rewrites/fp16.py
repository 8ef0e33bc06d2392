"""Conversion of the float part of a network to FP16, for TensorRT 11, where the network alone determines its precision.

Every float32 tensor becomes float16 unless its maker stays float32 (`fp32_exceptions`). Between the two lies one Cast
per tensor, however many nodes read it. Q/DQ pairs take float16, with float16 scales, which ONNX has from opset 19 on.

    x float32 ─ Cast ─ Q ─ int8 ─ DQ ─ float16 ─ Conv ─ float16 ─ … ─ Cast ─ y float32

Weights are rounded to the nearest; magnitudes above 65504 become 65504. (onnxruntime's own converter appends its Casts
at the end, where the checker rejects them, rounds every scale, and reads no external weights.)
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.index import GraphIndex, index_graph
from quantkit.graph.model import Model
from quantkit.graph.names import tensor_names, unique_name
from quantkit.graph.operators import ONNX_DOMAINS, QDQ
from quantkit.graph.opset import raise_opset
from quantkit.graph.subgraphs import captured_names, subgraphs
from quantkit.graph.weights import weight_values
from quantkit.rewrites.fp16_scales import raise_fine_scales
from quantkit.rewrites.fp32_exceptions import HALF_MAX, fp16_scale, fp32_reasons, type_slots

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

LEAST_OPSET = 19
"""The first opset whose QuantizeLinear and DequantizeLinear take float16."""
FLOAT, HALF = "float32", "float16"
CODES = {FLOAT: 1, HALF: 10}
FREELY_CAST = frozenset({"bool", "int8", "uint8", "float16", "float32", "bfloat16"})
"""Types that can be cast to float16: it holds their numbers, or has no fewer digits; others stay float32."""


@dataclass(frozen=True, slots=True)
class Fp16Network:
    """A network in FP16.

    kept: node → why it stays float32, except for nodes that compute constants. saturated: weights that exceed 65504 →
    their largest |w|. raised: number of channels of weights whose scale was below what float16 holds.
    """

    proto: onnx.ModelProto
    kept: Mapping[str, str]
    saturated: Mapping[str, float]
    raised: int = 0


def convert_to_fp16(model: Model, *, keep_io: bool = True, ranges: Mapping[str, float] | None = None) -> Fp16Network:
    """Convert a network, with or without Q/DQ pairs, to FP16.

    keep_io: inputs and outputs stay float32. ranges: tensor → the largest absolute value that was recorded; tensors
    that come near 65504 stay float32. The model itself is not modified; external weights are read one at a time.
    ModelError if the opset cannot be converted to 19.
    """
    proto = raise_opset(model, LEAST_OPSET)
    wires = index_graph(proto)
    raised = raise_fine_scales(model, proto, wires)
    if raised:
        wires = index_graph(proto)
    kept = fp32_reasons(model, wires, max(model.opset, LEAST_OPSET), ranges or {})
    halving = Fp16Conversion(model, proto, wires, kept, keep_io)
    for number in range(len(wires.nodes)):
        halving.copy(number)
    halving.finish()
    why = {wires.name(number): reason for number, reason in kept.items() if affects_result(wires, wires.nodes[number])}
    return Fp16Network(proto, why, halving.saturated, raised)


def affects_result(wires: GraphIndex, node: onnx.NodeProto) -> bool:
    """Return whether the precision of a node matters: it reads data or quantized weights; the rest is folded."""
    return node.op_type in QDQ or not wires.constants.issuperset(node.output)


class Fp16Conversion:
    """A copy of a network in progress, and the types and names under which each tensor exists in it."""

    def __init__(
        self, model: Model, proto: onnx.ModelProto, wires: GraphIndex, kept: Container[int], keep_io: bool
    ) -> None:
        self._model, self._proto, self._wires = model, proto, wires
        self._border = FLOAT if keep_io else HALF
        self._names = tensor_names(proto.graph)
        self._node_names = {node.name for node in proto.graph.node}
        self._weights = float_weights(proto.graph)
        self._floats = self._weights | {name for name, dtype in wires.types.items() if dtype == FLOAT}
        self._outputs = {v.name for v in proto.graph.output if v.type.tensor_type.elem_type == CODES[FLOAT]}
        opset = max(model.opset, LEAST_OPSET)
        self._halves = [
            set() if number in kept else self._halved(node, opset) for number, node in enumerate(wires.nodes)
        ]
        self._asked = self._asks()
        self._there: dict[str, dict[str, str]] = {}
        self._nodes: list[onnx.NodeProto] = []
        self.saturated: dict[str, float] = {}
        for name in sorted(self._weights):
            self._place_weight(name)
        for value in proto.graph.input:
            if value.name in self._floats - self._weights:
                self._there[value.name] = {self._border: value.name}

    def copy(self, number: int) -> None:
        """Copy a node, with its float32 tensors in their new types."""
        node = self._wires.nodes[number]
        copied = type(node)()
        copied.CopyFrom(node)
        halves = self._halves[number]
        if not is_constant_node(node):
            for place, name in enumerate(node.input):
                if name in self._floats:
                    copied.input[place] = self._as(name, HALF if ("input", place) in halves else FLOAT)
            captured = sorted(captured_names(node) & self._floats & (self._there.keys() | self._weights))
            rename_captured(copied, {name: self._as(name, FLOAT) for name in captured})
        self._nodes.append(copied)
        for place, name in enumerate(node.output):
            if name in self._floats - self._weights:
                made = HALF if ("output", place) in halves else FLOAT
                copied.output[place] = self._made(name, made)
                for attribute in copied.attribute:
                    if node.op_type == "Cast" and attribute.name == "to":
                        attribute.i = CODES[made]
        for name in node.output:
            if name in self._outputs - self._weights and self._border not in self._there[name]:
                self._cast(name, self._border, name)

    def finish(self) -> None:
        """Put the copies in place, and the weights in the types that are needed."""
        graph = self._proto.graph
        del graph.node[:]
        graph.node.extend(self._nodes)
        for node in graph.node:
            if is_constant_node(node) and node.output[0] in self._weights:
                self._convert(node.output[0], next(a.t for a in node.attribute if a.name == "value"))
        for tensor in list(graph.initializer):
            if tensor.name in self._weights:
                self._convert(tensor.name, tensor)
        types = {name: dtype for there in self._there.values() for dtype, name in there.items()}
        for value in (*graph.value_info, *graph.output, *graph.input):
            if value.name in types and value.type.tensor_type.elem_type == CODES[FLOAT]:
                value.type.tensor_type.elem_type = CODES[types[value.name]]

    def _halved(self, node: onnx.NodeProto, opset: int) -> set[tuple[str, int]]:
        """Return which inputs and outputs of a node become float16."""
        found = list(type_slots(node, opset))
        inputs, outputs = found[: len(node.input)], found[len(node.input) :]
        variables = {place: v for place, (name, v, half) in enumerate(inputs) if half and name in self._floats}
        # A type that no input sets is float32 by itself, or by an attribute.
        made = {place for place, (_, variable, _) in enumerate(outputs) if variable in variables.values()}
        if node.op_type == "DequantizeLinear" and 1 in variables:  # a variable of its own from set 23 on
            made.add(0)
        if node.op_type == "Cast" and self._wires.types.get(node.input[0]) in FREELY_CAST:
            made.add(0)
        return {("input", place) for place in variables} | {("output", place) for place in made}

    def _asks(self) -> dict[str, set[str]]:
        """Return weight → the types in which it is needed."""
        asked: dict[str, set[str]] = {name: set() for name in self._weights}
        for node, halves in zip(self._wires.nodes, self._halves, strict=True):
            for place, name in enumerate(node.input):
                if name in asked:
                    asked[name].add(HALF if ("input", place) in halves else FLOAT)
            for name in captured_names(node) & asked.keys():
                asked[name].add(FLOAT)
        return asked

    def _place_weight(self, name: str) -> None:
        """Choose the names of a weight: its own, and another if both types are needed."""
        asked = self._asked[name] | ({self._border} if name in self._outputs else set())
        own = self._border if name in self._outputs else HALF if asked == {HALF} else FLOAT
        others = sorted(asked - {own})
        self._there[name] = {own: name} | {dtype: unique_name(f"{name}_{dtype}", self._names) for dtype in others}

    def _as(self, name: str, dtype: str) -> str:
        """Return the name of a tensor in a type; a Cast makes it if it does not exist yet."""
        if dtype not in self._there[name]:
            self._cast(name, dtype, unique_name(f"{name}_{dtype}", self._names))
        return self._there[name][dtype]

    def _cast(self, name: str, dtype: str, result: str) -> None:
        from onnx import helper

        (source,) = self._there[name].values()
        node_name = unique_name(f"{name}_Cast", self._node_names)
        self._nodes.append(helper.make_node("Cast", [source], [result], node_name, to=CODES[dtype]))
        self._there[name][dtype] = result

    def _made(self, name: str, dtype: str) -> str:
        """Note in which type a node makes a tensor; return the name of the result."""
        taken = name in self._outputs and dtype != self._border
        result = unique_name(f"{name}_{dtype}", self._names) if taken else name
        self._there[name] = {dtype: result}
        return result

    def _convert(self, name: str, tensor: onnx.TensorProto) -> None:
        """Convert a weight to the types in which it is needed."""
        from onnx import numpy_helper

        there = self._there[name]
        if HALF not in there:
            return
        half = numpy_helper.from_array(self._rounded(name, weight_values(tensor, self._model)), there[HALF])
        if FLOAT not in there:
            half.doc_string = tensor.doc_string
            half.name = tensor.name
            tensor.CopyFrom(half)
            return
        graph = self._proto.graph
        if there[HALF] == name:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = there[FLOAT]
            half.name = tensor.name
            tensor.CopyFrom(half)
        else:
            graph.initializer.append(half)

    def _rounded(self, name: str, values: Array) -> Array:
        """Return a weight in float16, rounded as a scale if it is one."""
        readers = [node for reader, node in self._wires.uses(name) if reader.place == 1]
        if any(node.op_type in QDQ for node in readers):
            return fp16_scale(values, any(node.op_type == "QuantizeLinear" for node in readers))
        largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
        if largest > HALF_MAX:
            self.saturated[name] = largest
            values = np.where(np.isfinite(values), np.clip(values, -HALF_MAX, HALF_MAX), values)
        return np.asarray(values).astype(np.float16)


def float_weights(graph: onnx.GraphProto) -> set[str]:
    """Return the float32 weights of a graph: initializers and Constant nodes."""
    names = {tensor.name for tensor in graph.initializer if tensor.data_type == CODES[FLOAT]}
    for node in graph.node:
        if is_constant_node(node) and any(a.name == "value" and a.t.data_type == CODES[FLOAT] for a in node.attribute):
            names.add(node.output[0])
    return names


def is_constant_node(node: onnx.NodeProto) -> bool:
    """Return whether a node is ONNX's Constant."""
    return node.op_type == "Constant" and node.domain in ONNX_DOMAINS


def rename_captured(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Rename what the subgraphs of a node read from outside, in place."""
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            for inner in graph.node:
                for place, name in enumerate(inner.input):
                    inner.input[place] = names.get(name, name)
                rename_captured(inner, names)
            for value in graph.output:
                value.name = names.get(value.name, value.name)

"""Insertion of Q/DQ pairs in given places of a float network.

An activation has one pair of each type, which all of its readers in that type share. Weights that several operators
read have one for each of them, with the same scales: TensorRT 8.6 runs operators that share it in float (measured;
TensorRT-RTX does not). Activations have one scale, weights one for each output channel: max|w|/127, in FP8 max|w|/448.
Biases and graph outputs stay as they are.

    weights    in the file                                 size        what TensorRT and onnxruntime compute
    float      float initializer → Q → DQ                  unchanged   both the same, bit for bit
    int8       INT8 initializer → DQ                       a quarter
    fp8        FLOAT8E4M3FN initializer → DQ               a quarter
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.errors import ModelError
from quantkit.graph.dead_nodes import remove_unread
from quantkit.graph.index import GraphIndex
from quantkit.graph.messages import copy_without
from quantkit.graph.model import Model
from quantkit.graph.names import tensor_names, unique_name
from quantkit.graph.operators import scale_axis
from quantkit.graph.subgraphs import captured_names
from quantkit.graph.weights import weight_values
from quantkit.numerics import e4m3_codes
from quantkit.qdq.float_reason import FloatCause, FloatReason, remedy_for
from quantkit.qdq.placement import Placement
from quantkit.qdq.shared_scales import TypedScales
from quantkit.values import NamedChoice, QuantizedType

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array


class WeightForm(NamedChoice):
    """The form in which a file stores quantized weights."""

    FLOAT = "float"
    INT8 = "int8"
    FP8 = "fp8"
    MIXED = "mixed"
    """Each in the type of the operator that reads it."""


@dataclass(frozen=True, slots=True)
class QuantizedNetwork:
    """A network with Q/DQ pairs.

    typed_pairs: type → quantized activation → scale. weights: quantized weight → axis of its channels, None for a
    single scale. left: node → why it stays float. types: node that reads behind pairs → its type.
    """

    proto: onnx.ModelProto
    typed_pairs: Mapping[QuantizedType, Mapping[str, float]]
    weights: Mapping[str, int | None]
    left: Mapping[str, FloatReason]
    types: Mapping[str, QuantizedType]

    @property
    def pairs(self) -> dict[str, float]:
        """Quantized activation → scale; that of INT8 where it has a pair of both types."""
        return {name: scale for kind in reversed(QuantizedType) for name, scale in self.typed_pairs[kind].items()}

    @property
    def also_fp8(self) -> dict[str, float]:
        """Activation with a pair of both types → its scale in FP8."""
        both = self.typed_pairs[QuantizedType.INT8].keys()
        return {name: scale for name, scale in self.typed_pairs[QuantizedType.FP8].items() if name in both}


def insert_pairs(
    model: Model,
    proto: onnx.ModelProto,
    wires: GraphIndex,
    placement: Placement,
    scales: TypedScales,
    form: WeightForm = WeightForm.FLOAT,
) -> QuantizedNetwork:
    """Insert pairs into a copy of `proto`, which is the model's or a converted one and is indexed by `wires`.

    scales: activation → scale. External weights stay in their file unless they are stored in 8 bits. ModelError if a
    weight is not finite.
    """
    editor = PairInserter(model, proto, wires, scales.shared(placement.scale_of), form)
    for number, node in enumerate(wires.nodes):
        editor.copy(node, placement.inputs.get(number, ()), placement.types.get(number, QuantizedType.INT8))
    types = {wires.name(number): kind for number, kind in placement.types.items()}
    return QuantizedNetwork(editor.finished(), editor.pairs, editor.weights, placement.left, types)


def refuse_nothing_quantized(model: Model, placement: Placement) -> None:
    """Raise ModelError for a network in which nothing gets a pair."""
    if placement.inputs:
        return
    reasons = list(placement.left.values())
    texts = [r.summary if r.cause is FloatCause.SLOWER else str(r) for r in reasons]  # its figures differ everywhere
    why = "; ".join(dict.fromkeys(texts)) or "it has no weighted operators"
    remedy = (
        remedy_for(reasons)
        if reasons
        else "leave it float: INT8 pays in Conv, ConvTranspose, Gemm and MatMul with weights"
    )
    raise ModelError(f"{model.path}: no operator of this network can be quantized: {why}", remedy=remedy)


class PairInserter:
    """A copy of a network in progress: nodes with Q/DQ pairs before their inputs, one of each type for a tensor."""

    def __init__(
        self,
        model: Model,
        proto: onnx.ModelProto,
        wires: GraphIndex,
        scales: TypedScales,
        form: WeightForm,
    ) -> None:
        self._model, self._proto, self._wires, self._scales, self._form = model, proto, wires, scales, form
        self._names = tensor_names(proto.graph)
        self._node_names = {node.name for node in proto.graph.node}
        self._made: dict[tuple[str, QuantizedType], str] = {}
        """Activation and type → the result of its pair."""
        self._shared: dict[tuple[str, int | None, QuantizedType], list[str]] = {}
        """Weight, axis and type → the inputs of the first node behind it."""
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self.pairs: dict[QuantizedType, dict[str, float]] = {kind: {} for kind in QuantizedType}
        self.weights: dict[str, int | None] = {}

    def copy(self, node: onnx.NodeProto, places: tuple[int, ...], kind: QuantizedType) -> None:
        """Copy a node, with a pair of a type before each input in `places`."""
        inputs = {k: self._behind(node, k, kind) for k in places}
        copied = type(node)()
        copied.CopyFrom(node)
        for k, name in inputs.items():
            copied.input[k] = name
        self._nodes.append(copied)

    def finished(self) -> onnx.ModelProto:
        """Return the new network. Float weights that are no longer read are not even copied: they may be gigabytes."""
        made = copy_without(self._proto, "graph")
        graph = made.graph
        graph.CopyFrom(copy_without(self._proto.graph, "node", "initializer"))
        graph.node.extend(self._nodes)
        stored = self.weights.keys() if self._form is not WeightForm.FLOAT else set()
        read = {name for node in graph.node for name in (*node.input, *captured_names(node))}
        read.update(value.name for value in (*graph.input, *graph.output))
        for weight in self._proto.graph.initializer:
            if weight.name in read or weight.name not in stored:
                graph.initializer.append(weight)
        if stored:
            remove_unread(graph, sorted(stored), ())
        graph.initializer.extend(self._initializers)
        return made

    def _behind(self, node: onnx.NodeProto, k: int, kind: QuantizedType) -> str:
        name: str = node.input[k]
        if name not in self._wires.constants:
            half = self._wires.types.get(name) == "float16"
            given = self._scales.by_type[kind][name]
            scale = np.asarray(given, np.float16 if half else np.float32)
            self.pairs[kind][name] = given if np.float32(given) == scale else float(scale)
            return self._pair(name, scale, kind)
        weight = self._wires.weights[name]
        axis = scale_axis(node, k, len(weight.dims))
        if (name, axis, kind) not in self._shared:
            self.weights[name] = axis
            self._shared[name, axis, kind] = self._weight_inputs(name, weight, axis, kind)
        inputs = self._shared[name, axis, kind]
        if self._form is WeightForm.FLOAT:
            return self._nodes_behind(name, axis, inputs)
        return self._dequantized(name, axis, inputs)

    def _weight_inputs(self, name: str, weight: onnx.TensorProto, axis: int | None, kind: QuantizedType) -> list[str]:
        """Add the scales of a weight, and its codes if they are stored; return what its first node reads."""
        values, tag = self._values(weight), axis_tag(axis)
        scales = channel_scales(values, axis, kind)
        if self._form is WeightForm.FLOAT:
            return [name, *self._parameters(name, tag, scales, kind)]
        stored = self._fresh(f"{name}_quantized{tag}")
        codes = weight_codes(values, scales, axis, kind)
        self._initializers.append(codes_tensor(codes, kind, stored))
        return [stored, *self._parameters(name, tag, scales, kind)]

    def _pair(self, name: str, scale: Array, kind: QuantizedType) -> str:
        """Add Q and DQ behind an activation; return the output of DQ."""
        if (name, kind) not in self._made:
            self._made[name, kind] = self._nodes_behind(name, None, [name, *self._parameters(name, "", scale, kind)])
        return self._made[name, kind]

    def _nodes_behind(self, name: str, axis: int | None, inputs: list[str]) -> str:
        """Add Q and DQ behind a tensor; return the output of DQ. inputs: of the Q."""
        quantized = self._fresh(f"{name}_quantized{axis_tag(axis)}")
        self._node("Quantize", name, axis, inputs, quantized)
        return self._dequantized(name, axis, [quantized, *inputs[1:]])

    def _parameters(self, name: str, tag: str, scale: Array, kind: QuantizedType) -> list[str]:
        """Add initializers for a scale, in the type of the tensor, and for its zero point."""
        from onnx import numpy_helper

        names = [self._fresh(f"{name}_scale{tag}"), self._fresh(f"{name}_zero_point{tag}")]
        self._initializers += [
            numpy_helper.from_array(np.asarray(scale), names[0]),
            codes_tensor(np.zeros(np.shape(scale), np.uint8), kind, names[1]),
        ]
        return names

    def _dequantized(self, name: str, axis: int | None, inputs: list[str]) -> str:
        result = self._fresh(f"{name}_dequantized{axis_tag(axis)}")
        self._node("Dequantize", name, axis, inputs, result)
        return result

    def _node(self, operator: str, name: str, axis: int | None, inputs: list[str], output: str) -> None:
        from onnx import helper

        how = {} if axis is None else {"axis": axis}
        node_name = unique_name(f"{name}_{operator}{axis_tag(axis)}", self._node_names)
        self._nodes.append(helper.make_node(f"{operator}Linear", inputs, [output], node_name, **how))

    def _fresh(self, name: str) -> str:
        return unique_name(name, self._names)

    def _values(self, weight: onnx.TensorProto) -> Array:
        values = weight_values(weight, self._model)
        if not np.isfinite(values).all():
            raise ModelError(
                f"{self._model.path}: weight {weight.name!r} holds NaN or Inf", remedy="export the model again"
            )
        return values


def axis_tag(axis: int | None) -> str:
    """Return the end of the names of what belongs to scales along an axis."""
    return "" if axis is None else f"_{axis}"


def codes_tensor(codes: Array, quantized_type: QuantizedType, name: str) -> onnx.TensorProto:
    """Return the codes of quantized values, one byte each, as a tensor of their type."""
    from onnx import TensorProto, helper

    kind = TensorProto.DataType.Value(quantized_type.stored.upper())
    return helper.make_tensor(name, kind, codes.shape, np.ascontiguousarray(codes).tobytes(), raw=True)


def channel_scales(values: Array, axis: int | None, quantized_type: QuantizedType = QuantizedType.INT8) -> Array:
    """Return max|w|/127 of every output channel in the type of the weight; the least normal number where that is 0.

    In FP8 it is max|w|/448.
    """
    others = None if axis is None else tuple(d for d in range(values.ndim) if d != axis)
    largest = np.abs(values.astype(np.float32, copy=False)).max(axis=others, initial=0.0)
    return raise_to_normal(largest / np.float32(quantized_type.largest), values.dtype.type)


def raise_to_normal(scale: Array, dtype: type[np.floating[Any]]) -> Array:
    """Return a scale in the type of the file, normal throughout: subnormals lose digits, and TensorRT rejects them."""
    result: Array = np.maximum(np.asarray(scale, dtype), np.finfo(dtype).tiny)
    return result


def weight_codes(
    values: Array, scales: Array, axis: int | None, quantized_type: QuantizedType = QuantizedType.INT8
) -> Array:
    """Return the codes of a weight as QuantizeLinear computes them, half to even: int8, or uint8 with the bits of FP8.

    float16 is divided in float32, as onnxruntime does: a quotient that is first rounded to float16 is rounded twice.
    """
    shape = [1] * values.ndim
    if axis is not None:
        shape[axis] = -1
    quotients = values.astype(np.float32, copy=False) / scales.astype(np.float32, copy=False).reshape(shape)
    if quantized_type is QuantizedType.FP8:
        return e4m3_codes(quotients)
    result: Array = np.clip(np.rint(quotients), -128, 127).astype(np.int8)
    return result

"""Q/DQ pairs into a float network, where TensorRT wants them, with the scales of a calibration table.

The rules are those of TensorRT's developer guide ("Working with quantized types", explicit quantization):

    weighted operators    Conv, ConvTranspose, Gemm, MatMul with weights: the activation per tensor, the weights per
                          output channel with scale max|w|/127; the bias stays float. A product of two activations
                          (attention) stays float
    residual Add          the skip input only, so that Conv + Add + activation fuse and hand on INT8
    average pools         their input, since they do not commute with quantization
    everything else       nothing: Q moves backward, DQ forward through what commutes (ReLU, MaxPool, Reshape, Concat)

A tensor has one pair, which all of its quantized consumers share. Graph outputs stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantkit.errors import ModelError
from quantkit.graph.model import DTYPES, Model, subgraphs
from quantkit.graph.tensors import derived_from_constants, element_types, inferred
from quantkit.numerics import LEVELS

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

LEAST_OPSET = 13
"""The first with per-channel QuantizeLinear."""
LEAST_IR = 4
"""The first whose initializers need not be graph inputs."""
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
POOLS = frozenset({"AveragePool", "GlobalAveragePool"})
TRANSPARENT = frozenset({"BatchNormalization", "Relu", "Clip", "LeakyRelu", "HardSwish", "Mul", "Sigmoid", "Identity"})
"""What TensorRT fuses behind a convolution, looked through to find the convolution's side of an Add."""
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Quantized:
    """A network with Q/DQ. pairs: tensors that got a pair, with the scale; left: node → why it stays float."""

    proto: onnx.ModelProto
    pairs: Mapping[str, float]
    left: Mapping[str, str]


def has_qdq(model: Model) -> bool:
    """Whether a network says itself, by QuantizeLinear or DequantizeLinear, what is INT8."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.proto.graph.node)


def is_half(model: Model) -> bool:
    """Whether the weights of a network are float16."""
    kinds = {DTYPES.get(tensor.data_type) for tensor in model.proto.graph.initializer}
    return "float16" in kinds and "float32" not in kinds


def with_qdq(model: Model, scales: Mapping[str, float], exclude: Collection[str] = ()) -> Quantized:
    """Insert Q/DQ pairs. `scales`: tensor → scale, as a calibration table has them; `exclude`: names of nodes that stay
    float (a node without a name goes by its first output).

    The model itself is untouched; external weights stay where they are. ModelError where the operator set is older
    than 13 and cannot be raised, a weight is not finite, or nothing gets a pair.
    """
    proto = raised(model)
    graph = proto.graph
    weights = known_weights(graph)
    constants = derived_from_constants(graph.node, {tensor.name for tensor in graph.initializer})
    producers = {name: node for node in graph.node for name in node.output}
    types = element_types(inferred(proto).graph)
    quantized: set[str] = set()
    wanted: dict[int, list[int]] = {}
    left: dict[str, str] = {}
    for number, node in enumerate(graph.node):
        places = places_of(node, producers, constants, quantized)
        if not places:
            continue
        name = node.name or node.output[0]
        reason = "excluded" if name in exclude else obstacle(node, places, weights, constants, types, scales)
        if reason:
            left[name] = reason
            continue
        wanted[number] = places
        if node.op_type in WEIGHTED:
            quantized.update(node.output)
    editor = Editor(model, proto, weights, scales)
    for number, node in enumerate(graph.node):
        editor.copy(node, wanted.get(number, []), constants)
    if not editor.pairs:
        why = "; ".join(dict.fromkeys(left.values())) or "it has no weighted operators"
        raise ModelError(
            f"{model.path}: no operator of this network can be quantized: {why}",
            remedy="give the table of this network; networks with float16 weights have to be exported in float32",
        )
    del graph.node[:]
    graph.node.extend(editor.nodes)
    graph.initializer.extend(editor.initializers)
    return Quantized(proto, editor.pairs, left)


def raised(model: Model) -> onnx.ModelProto:
    """A copy of the model with an operator set of 13 at least. ModelError."""
    import onnx
    from onnx import version_converter

    copy = onnx.ModelProto()
    try:
        newer = model.opset >= LEAST_OPSET
        copy.CopyFrom(model.proto if newer else version_converter.convert_version(model.proto, LEAST_OPSET))
    except (RuntimeError, ValueError, version_converter.ConvertError) as error:
        raise ModelError(
            f"{model.path} has operator set {model.opset}, which cannot be raised to {LEAST_OPSET}: {error}",
            remedy="export the model with a newer operator set",
        ) from None
    copy.ir_version = max(copy.ir_version, LEAST_IR)
    return copy


def known_weights(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Weights whose values are in the file: initializers, Constant nodes, and other names of them."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            weights[node.output[0]] = node.attribute[0].t
        elif node.op_type == "Identity" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    return weights


def obstacle(
    node: onnx.NodeProto,
    places: Collection[int],
    weights: Mapping[str, onnx.TensorProto],
    constants: set[str],
    types: Mapping[str, str],
    scales: Mapping[str, float],
) -> str | None:
    """Why a node cannot be quantized."""
    names = [node.input[k] for k in places]
    constant = [name for name in names if name in constants]
    if any(name not in weights for name in constant):
        return "its weights are computed by other operators"
    if any(DTYPES.get(weights[name].data_type) != "float32" for name in constant):
        return "its weights are not float32"
    if any(len(weights[name].dims) < 2 for name in constant):
        return "its weights are a vector"
    others = [name for name in names if types.get(name, "float32") != "float32"]
    if others:
        return f"not float32: {', '.join(others)}"
    lacking = [name for name in names if name not in constants and not scales.get(name)]
    return f"no scale: {', '.join(lacking)}" if lacking else None


def places_of(
    node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], constants: set[str], quantized: set[str]
) -> list[int]:
    """The inputs of a node that get a pair. quantized: outputs of weighted operators that got theirs."""
    if node.op_type in WEIGHTED:
        return [0, 1] if sum(name in constants for name in node.input[:2]) == 1 else []
    if node.op_type in POOLS:
        return [0]
    skip = skip_input(node, producers, constants, quantized) if node.op_type == "Add" else None
    return [] if skip is None else [skip]


def skip_input(
    node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], constants: set[str], quantized: set[str]
) -> int | None:
    """The input of an Add that is not the convolution which the Add fuses into; None where there is none.

    Where both come from convolutions, the one with the shorter way behind it is the skip: a projection.
    """
    if len(node.input) != 2 or any(name in constants for name in node.input):
        return None
    convolutions = [k for k in (0, 1) if comes_from_weighted(node.input[k], producers, quantized)]
    if not convolutions:
        return None
    if len(convolutions) == 1:
        return 1 - convolutions[0]
    lengths = [way(node.input[k], producers) for k in (0, 1)]
    return 0 if lengths[0] < lengths[1] else 1


def comes_from_weighted(name: str, producers: Mapping[str, onnx.NodeProto], quantized: set[str]) -> bool:
    """Whether a quantized weighted operator made a tensor, batch normalization at most in between."""
    while name not in quantized and name in producers and producers[name].op_type in ("BatchNormalization", "Identity"):
        name = producers[name].input[0]
    return name in quantized


def way(name: str, producers: Mapping[str, onnx.NodeProto]) -> int:
    """How many weighted operators lie behind a tensor along its first inputs."""
    count, node = 0, producers.get(name)
    while node is not None:
        count += node.op_type in WEIGHTED
        if node.op_type not in WEIGHTED | TRANSPARENT:
            break
        node = producers.get(node.input[0])
    return count


class Editor:
    """Copies nodes, with Q/DQ pairs before their inputs; a pair is made once for a tensor."""

    def __init__(
        self,
        model: Model,
        proto: onnx.ModelProto,
        weights: Mapping[str, onnx.TensorProto],
        scales: Mapping[str, float],
    ) -> None:
        self._model, self._weights, self._scales = model, weights, scales
        self._names = names_of(proto.graph)
        self._node_names = {node.name for node in proto.graph.node}
        self._made: dict[tuple[str, int | None], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.pairs: dict[str, float] = {}

    def copy(self, node: onnx.NodeProto, places: list[int], constants: set[str]) -> None:
        """The node, its inputs at `places` behind a pair."""
        inputs = {k: self._behind(node, k, constants) for k in places if k < len(node.input) and node.input[k]}
        copied = type(node)()
        copied.CopyFrom(node)
        for k, name in inputs.items():
            copied.input[k] = name
        self.nodes.append(copied)

    def _behind(self, node: onnx.NodeProto, k: int, constants: set[str]) -> str:
        name: str = node.input[k]
        if name not in constants:
            scale = self._scales[name]
            self.pairs[name] = scale
            return self._pair(name, None, np.float32(max(scale, TINY)))
        axis = weight_axis(node, k, len(self._weights[name].dims))
        if (name, axis) in self._made:  # a shared weight is read once
            return self._made[name, axis]
        return self._pair(name, axis, channel_scales(self._values(self._weights[name]), axis))

    def _pair(self, name: str, axis: int | None, scale: Array | np.float32) -> str:
        from onnx import helper, numpy_helper

        if (name, axis) in self._made:
            return self._made[name, axis]
        tag = "" if axis is None else f"_{axis}"
        scale_name, zero_name = self._fresh(f"{name}_scale{tag}"), self._fresh(f"{name}_zero_point{tag}")
        quantized, dequantized = self._fresh(f"{name}_quantized{tag}"), self._fresh(f"{name}_dequantized{tag}")
        self.initializers += [
            numpy_helper.from_array(np.asarray(scale, np.float32), scale_name),
            numpy_helper.from_array(np.zeros(np.shape(scale), np.int8), zero_name),
        ]
        how = {} if axis is None else {"axis": axis}
        for operator, source, target in (("Quantize", name, quantized), ("Dequantize", quantized, dequantized)):
            inputs = [source, scale_name, zero_name]
            node_name = fresh(f"{name}_{operator}{tag}", self._node_names)
            self.nodes.append(helper.make_node(f"{operator}Linear", inputs, [target], node_name, **how))
        self._made[name, axis] = dequantized
        return dequantized

    def _fresh(self, name: str) -> str:
        return fresh(name, self._names)

    def _values(self, weight: onnx.TensorProto) -> Array:
        from onnx import numpy_helper

        values: Array = numpy_helper.to_array(weight, str(self._model.folder))
        if not np.isfinite(values).all():
            raise ModelError(
                f"{self._model.path}: weight {weight.name!r} holds NaN or Inf", remedy="export the model again"
            )
        return values


def fresh(name: str, taken: set[str]) -> str:
    """A name that is not taken, which it is then."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def names_of(graph: onnx.GraphProto) -> set[str]:
    """Every name of a tensor in a graph and the graphs inside it."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)}
    names |= {sparse.values.name for sparse in graph.sparse_initializer}
    for node in graph.node:
        names.update(node.input, node.output)
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                names |= names_of(inner)
    return names


def weight_axis(node: onnx.NodeProto, k: int, rank: int) -> int:
    """The axis of the output channels of a weight."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        transposed = any(a.name == ("transA" if k == 0 else "transB") and a.i for a in node.attribute)
        return int(transposed) if k == 0 else int(not transposed)
    return rank - 1 if k == 1 else max(rank - 2, 0)


def channel_scales(values: Array, axis: int) -> Array:
    """max|w|/127 of every output channel, in float32; the least normal number where a channel is zero."""
    others = tuple(d for d in range(values.ndim) if d != axis)
    largest = np.abs(values).max(axis=others, initial=0.0)
    scales: Array = np.maximum(largest / np.float32(LEVELS), np.float32(TINY))
    return scales

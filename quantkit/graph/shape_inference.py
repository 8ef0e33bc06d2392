"""Types and shapes as ONNX infers them, without reading large weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quantkit.graph.model import DTYPES, Model
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    import onnx


FP8 = 17
"""The element type FLOAT8E4M3FN."""
TYPES = {**DTYPES, FP8: QuantizedType.FP8.stored}
"""The element types of tensors in a graph: those of weights and inputs, and FP8."""
FEW_BYTES = 1024
LONG = 1 << 20
"""Elements of a vector from which on values are not propagated: ONNX makes a message for each of them."""


def infer_types(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with inferred types, without its large weights; unchanged types if inference fails."""
    import onnx

    light = without_large_weights(proto)
    try:
        plain = onnx.shape_inference.infer_shapes(light)
        vectors = [shape[0] or 0 for shape in tensor_shapes(plain.graph).values() if len(shape) == 1]
        return plain if max(vectors, default=0) > LONG else onnx.shape_inference.infer_shapes(light, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, MemoryError):
        return light


def without_large_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which large weights have a type and a shape but no values; small ones may define shapes."""
    copy = type(proto)()
    copy.opset_import.extend(proto.opset_import)
    copy.functions.extend(proto.functions)
    copy.ir_version = proto.ir_version
    copy.graph.name = "light"
    for part in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(copy.graph, part).extend(getattr(proto.graph, part))
    for weight in proto.graph.initializer:
        if weight.ByteSize() < FEW_BYTES:
            copy.graph.initializer.append(weight)
        else:
            copy.graph.initializer.add(name=weight.name, data_type=weight.data_type, dims=weight.dims)
    return copy


def element_types(graph: onnx.GraphProto) -> dict[str, str]:
    """Return tensor → dtype for every tensor whose type is known; `other` for what is not a tensor."""
    values = [*graph.value_info, *graph.output, *graph.input]
    return {
        value.name: TYPES.get(value.type.tensor_type.elem_type, "other")
        if value.type.HasField("tensor_type")
        else "other"
        for value in values
        if value.type.WhichOneof("value")
    }


def tensor_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int | None, ...]]:
    """Return tensor → shape for every tensor of known rank; None for a dimension that is not fixed."""
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
            for d in value.type.tensor_type.shape.dim
        )
        for value in (*graph.value_info, *graph.output, *graph.input)
        if value.type.tensor_type.HasField("shape")
    }


def shapes_for_inputs(
    model: Model, tensors: Sequence[str], shapes: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...] | None]:
    """Return the shape of each tensor when the inputs have `shapes`; None if inference cannot find it."""
    proto = without_large_weights(model.proto)
    del proto.graph.value_info[:]
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = infer_types(proto).graph
    known: dict[str, tuple[int, ...]] = {}
    for value in (*graph.value_info, *graph.output, *graph.input):
        tensor = value.type.tensor_type
        fixed = tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
        if fixed:
            known[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    return {name: known.get(name) for name in tensors}

"""The values of weights: in the file of a model, and in files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from quantkit.errors import ModelError
from quantkit.graph.identity import tensor_bytes
from quantkit.graph.messages import is_external
from quantkit.graph.model import Model
from quantkit.graph.shape_inference import FEW_BYTES, FP8
from quantkit.numerics import e4m3_codes, e4m3_values

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array


def stored_tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the tensors whose values are in the file: initializers, Constant nodes in any form, aliases of both, and
    small tensors that are cast (PyTorch's exporter casts zero points)."""
    from onnx import helper, numpy_helper

    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        source = found.get(node.input[0]) if node.input else None
        if node.op_type == "Constant":
            values = (constant_value(attribute, node.output[0]) for attribute in node.attribute)
            found.update((node.output[0], tensor) for tensor in values if tensor is not None)
        elif node.op_type == "Identity" and source is not None:
            found[node.output[0]] = source
        elif node.op_type == "Cast" and source is not None and is_small(source):
            kind = helper.tensor_dtype_to_np_dtype(next(a.i for a in node.attribute if a.name == "to"))
            numbers = numpy_helper.to_array(source).astype(kind)
            found[node.output[0]] = numpy_helper.from_array(numbers, node.output[0])
    return found


def constant_value(attribute: onnx.AttributeProto, name: str) -> onnx.TensorProto | None:
    """Return the tensor that an attribute of a Constant node holds; None for strings and sparse tensors."""
    from onnx import helper, numpy_helper

    if attribute.name == "value":
        return attribute.t
    kind = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}.get(
        attribute.name
    )
    if kind is None:
        return None
    return numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), kind), name)


def is_small(tensor: onnx.TensorProto) -> bool:
    """Return whether a tensor lies inside the model and has few values."""
    return not tensor.external_data and tensor.ByteSize() < FEW_BYTES


def stored_values(model: Model, weights: Mapping[str, onnx.TensorProto], name: str) -> Array | None:
    """Return the values of a stored tensor; None if there is none of that name. ModelError."""
    tensor = weights.get(name)
    return None if tensor is None else weight_values(tensor, model)


def weight_values(weight: onnx.TensorProto, model: Model) -> Array:
    """Return the values of a weight, read-only; they are read from its file if it lies outside the model.

    FP8 (E4M3) comes as float32.

    The file may be a link, as in the caches of model hubs, which ONNX's own reader refuses. ModelError if the weight is
    damaged, or its file is missing.
    """
    from onnx import numpy_helper

    if is_external(weight):
        content = b"".join(tensor_bytes(weight, model.folder, str(model.path)))
        weight = type(weight)(name=weight.name, data_type=weight.data_type, dims=weight.dims, raw_data=content)
    try:
        values: Array = fp8_values(weight) if weight.data_type == FP8 else numpy_helper.to_array(weight)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ModelError(
            f"{model.path}: weight {weight.name!r} is damaged: {error}", remedy="export the model again"
        ) from None
    return values


def fp8_values(weight: onnx.TensorProto) -> Array:
    """Return the values of an E4M3 tensor as float32, whichever Python types this version of onnx has for them.

    ValueError if it has too few values.
    """
    packed = bytes(weight.raw_data) or np.asarray(weight.int32_data, np.uint8).tobytes()
    codes = np.frombuffer(packed, np.uint8)
    return e4m3_values(codes).reshape(tuple(weight.dims))


def tensor_like(weight: onnx.TensorProto, values: Array, name: str) -> onnx.TensorProto:
    """Return values as a tensor of the same element type; FP8 is rounded to it."""
    from onnx import helper, numpy_helper

    if weight.data_type != FP8:
        return numpy_helper.from_array(np.ascontiguousarray(values), name)
    return helper.make_tensor(name, FP8, values.shape, e4m3_codes(values).tobytes(), raw=True)

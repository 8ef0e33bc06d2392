"""Folding of operators that only change the form of a weight into initializers.

    w → Transpose → MatMul        w, transposed → MatMul
    float16 w → Cast → Conv       float32 w → Conv

Exporters write a Transpose, a Reshape or a Cast of a weight and leave folding to the runtime, as TensorRT and
onnxruntime do. As written, such weights depend on no data but are no initializers either, so that nothing could be
quantized or repaired there. The initializer takes the name of the tensor; what nothing else reads is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.errors import ModelError
from quantkit.graph.dead_nodes import names_read_by, remove_unread
from quantkit.graph.model import DTYPES, Model
from quantkit.graph.operators import ONNX_DOMAINS, WEIGHT_FORMING
from quantkit.graph.opset import LEAST_IR
from quantkit.graph.tensors import FLOATS
from quantkit.graph.weights import stored_tensors, stored_values
from quantkit.qdq.stored_weights import LARGEST

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array


def fold_constants(model: Model) -> onnx.ModelProto:
    """Return the network with such weights as initializers: the model's own proto, which is never edited, if it has
    none.

    Weights that a caller may override (initializers that are inputs too) stay as they are, and so does what would make
    the model too large for a file. ModelError if a weight is damaged.
    """
    formed = folded_weights(model)
    if not formed:
        return model.proto
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    spare = [name for node in graph.node if node.output[0] in formed for name in node.input]
    kept = [node for node in graph.node if node.output[0] not in formed]
    read = {name for node in kept for name in names_read_by(node)}
    annotations = [value for value in graph.value_info if value.name not in formed]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.value_info.extend(annotations)
    for name, tensor in formed.items():
        if name in read:
            graph.initializer.append(tensor)
            if proto.ir_version < LEAST_IR:
                graph.input.append(as_graph_input(tensor))
    remove_unread(graph, spare, formed.keys() - read)
    return proto


def folded_weights(model: Model) -> dict[str, onnx.TensorProto]:
    """Return tensor → initializer for the results of operators that change the form of a float weight, in graph order.

    An Identity alone is not folded: everything that reads weights looks through it.
    """
    from onnx import numpy_helper

    graph = model.proto.graph
    listed_too = {value.name for value in graph.input} if model.proto.ir_version >= LEAST_IR else set()
    computed = {name for node in graph.node if node.op_type != "Constant" for name in node.output}
    stored = stored_tensors(graph)
    known = {name: tensor for name, tensor in stored.items() if name not in listed_too | computed}
    outputs = set(model.outputs)
    room = LARGEST - model.proto.ByteSize()
    found: dict[str, onnx.TensorProto] = {}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in known.keys() - found.keys():
            known[node.output[0]] = known[node.input[0]]
        if not is_foldable(node, known) or node.output[0] in outputs | known.keys():
            continue
        values = evaluate_node(node, known, model)
        if values is None or values.nbytes > room:
            continue
        room -= values.nbytes
        name = node.output[0]
        found[name] = known[name] = numpy_helper.from_array(np.array(values, order="C"), name)
    return found


def is_foldable(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> bool:
    """Return whether a node changes the form of a float weight, and its other inputs are known too."""
    if node.op_type not in WEIGHT_FORMING or node.domain not in ONNX_DOMAINS or len(node.output) != 1:
        return False
    return all(name in known for name in node.input if name) and DTYPES.get(known[node.input[0]].data_type) in FLOATS


def evaluate_node(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto], model: Model) -> Array | None:
    """Return the result of such a node; None if it casts to something else than float32 or float16, or is not valid."""
    from onnx import helper

    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Cast" and DTYPES.get(attributes.get("to", 0)) not in ("float32", "float16"):
        return None
    values = read_stored_weight(known, node.input[0], model)
    given = node.input[1] if len(node.input) > 1 else ""
    numbers = [int(n) for n in read_stored_weight(known, given, model).reshape(-1)] if given else None
    try:
        return apply_form(node.op_type, values, numbers, attributes)
    except ValueError:
        return None


def apply_form(kind: str, values: Array, numbers: list[int] | None, attributes: Mapping[str, Any]) -> Array:
    """Return a weight in another form. numbers: the shape or the axes, if an input. ValueError if it does not fit."""
    from onnx import helper

    axes = attributes.get("axes") if numbers is None else numbers
    result = values
    if kind == "Cast":
        result = cast_values(values, helper.tensor_dtype_to_np_dtype(attributes["to"]))
    elif kind == "Transpose":
        result = values.transpose(attributes.get("perm"))
    elif kind == "Flatten":
        axis = attributes.get("axis", 1)
        axis += values.ndim if axis < 0 else 0
        result = values.reshape(prod(values.shape[:axis]), -1)
    elif kind == "Reshape":
        result = reshape_values(
            values, attributes.get("shape", []) if numbers is None else numbers, bool(attributes.get("allowzero"))
        )
    elif kind == "Squeeze":
        result = values.squeeze(None if axes is None else tuple(axes))
    elif kind == "Unsqueeze":
        result = np.expand_dims(values, tuple(axes or ()))
    return result


def read_stored_weight(known: Mapping[str, onnx.TensorProto], name: str, model: Model) -> Array:
    """Return the values of a weight. ModelError if it is damaged."""
    try:
        values = stored_values(model, known, name)
    except ValueError as error:
        raise ModelError(
            f"{model.path}: weight {name!r} is damaged: {error}", remedy="export the model again"
        ) from None
    assert values is not None
    return values


def cast_values(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return values in another type; what exceeds its range becomes infinite, as in ONNX."""
    with np.errstate(over="ignore"):
        result: Array = values.astype(dtype)
    return result


def reshape_values(values: Array, shape: list[int], zeros: bool) -> Array:
    """Reshape as ONNX does: 0 copies a dimension, unless `zeros` means real zeros."""
    wanted = [values.shape[k] if n == 0 and not zeros and k < values.ndim else n for k, n in enumerate(shape)]
    return values.reshape(wanted)


def as_graph_input(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    """Return a weight as a graph input, which old IR versions require."""
    from onnx import helper

    return helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))

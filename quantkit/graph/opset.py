"""Conversion of a model to a newer opset that changes nothing else.

ONNX's own converter rewrites the operators. It sees a copy with placeholders for large weights, so that gigabytes cost
neither time nor memory. Only the operators are taken from its result: names, documentation, metadata, inputs and
outputs remain the model's own.

    operators up to opset   become        what the converter forgets, and is set here
    Upsample 7, 9           Resize        asymmetric coordinates, no longer the default, and rounding down
    Resize 10               Resize        the same
    Hardmax 1, 11           Hardmax       that it flattened its input; refused
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.errors import ModelError
from quantkit.graph.identity import tensor_bytes
from quantkit.graph.messages import (
    copy_without,
    is_external,
    is_replaceable,
    restore_placeholders,
    with_placeholders,
)
from quantkit.graph.model import Model
from quantkit.graph.operators import ONNX_DOMAINS
from quantkit.graph.subgraphs import all_nodes
from quantkit.graph.weights import stored_tensors

if TYPE_CHECKING:
    import onnx

LEAST_IR = 4
"""The first IR version whose initializers need not be graph inputs."""
OLD_RESIZE = 10
"""The last opset whose Resize and Upsample compute with asymmetric coordinates."""
FLATTENING = 12
"""The last opset whose Hardmax flattens its input to a matrix."""
REMEDY = "export the model with a newer opset"


def raise_opset(model: Model, least: int) -> onnx.ModelProto:
    """Return a copy of a model with opset `least` or newer, and the IR version that this opset requires.

    Sources: onnx.version_converter; onnx.helper.VERSION_TABLE. ModelError if the converter fails or would lose
    something.
    """
    import onnx
    from onnx import helper

    foreign = not model.opset and all(node.domain not in ONNX_DOMAINS for node in all_nodes(model.proto.graph))
    if model.opset >= least or foreign:
        copy = onnx.ModelProto()
        copy.CopyFrom(model.proto)
        if foreign:  # nothing to convert: all operators are of other domains
            copy.opset_import.add(version=least)
        copy.ir_version = max(copy.ir_version, LEAST_IR)
        return copy
    reason = conversion_obstacle(model)
    if reason:
        raise opset_error(model, least, reason)
    light, heavy = with_placeholders(model.proto)
    copy = assemble_model(model, convert_operators(model, light, least), light, heavy, least)
    needed = helper.find_min_ir_version_for(list(copy.opset_import), ignore_unknown=True)
    copy.ir_version = max(copy.ir_version, needed, LEAST_IR)
    return copy


def opset_error(model: Model, least: int, reason: str) -> ModelError:
    """Return the error of a conversion that is not possible."""
    return ModelError(
        f"{model.path} has opset {model.opset}, which cannot be converted to {least}: {reason}", remedy=REMEDY
    )


def conversion_obstacle(model: Model) -> str:
    """Return what ONNX's converter would silently lose or change; empty if nothing."""
    if model.proto.functions:
        return f"it has local functions, for example {model.proto.functions[0].name!r}"
    if model.proto.graph.sparse_initializer:
        return f"it has sparse weights, for example {model.proto.graph.sparse_initializer[0].values.name!r}"
    weights = stored_tensors(model.proto.graph)
    for node in all_nodes(model.proto.graph):
        if node.domain not in ONNX_DOMAINS:
            continue
        name = f"{node.op_type} {node.name or node.output[0]!r}"
        if node.op_type == "Hardmax" and model.opset <= FLATTENING:
            return f"{name} computes something else in newer opsets"
        old = node.op_type == "Upsample" or (node.op_type == "Resize" and model.opset <= OLD_RESIZE)
        if old and not only_enlarges(node, weights):
            return f"{name} may reduce the size, and its rounding was never specified"
    return ""


def only_enlarges(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Return whether an old Resize interpolates, or only enlarges, so that its rounding was always well defined.

    An Upsample whose scales are computed only enlarges, by the definition of the operator.
    """
    from onnx import numpy_helper

    if resize_mode(node) != "nearest":
        return True
    for attribute in node.attribute:
        if attribute.name == "scales":
            return min(attribute.floats, default=0.0) >= 1
    scales = weights.get(node.input[1]) if len(node.input) > 1 else None
    if scales is None or is_external(scales):
        return bool(node.op_type == "Upsample")
    return bool((numpy_helper.to_array(scales) >= 1).all())


def resize_mode(node: onnx.NodeProto) -> str:
    """Return the `mode` of a Resize."""
    return next((a.s.decode("utf-8", "replace") for a in node.attribute if a.name == "mode"), "nearest")


def convert_operators(model: Model, light: onnx.ModelProto, least: int) -> onnx.ModelProto:
    """Return the model as ONNX's converter rewrites it. ModelError if it fails."""
    import onnx
    from onnx import version_converter

    named = onnx.ModelProto()
    named.CopyFrom(light)
    # the converter renames what the operators make that it replaces (Upsample, Scatter), except outputs of the graph
    inner = sorted(produced_names(light.graph.node) - {value.name for value in light.graph.output})
    named.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    try:
        result: onnx.ModelProto = version_converter.convert_version(named, least)
    except (RuntimeError, ValueError, version_converter.ConvertError, onnx.shape_inference.InferenceError) as error:
        # The message starts with a position in the converter's source code.
        raise opset_error(model, least, str(error).split("failed: ")[-1].strip()) from None
    return result


def assemble_model(
    model: Model, new: onnx.ModelProto, light: onnx.ModelProto, heavy: list[onnx.TensorProto], least: int
) -> onnx.ModelProto:
    """Return the model with the operators that the converter wrote. ModelError if it lost something."""
    result: onnx.ModelProto = copy_without(model.proto, "graph", "opset_import")
    result.graph.CopyFrom(copy_without(model.proto.graph, "node", "initializer"))
    for opset in model.proto.opset_import:
        version = least if opset.domain in ONNX_DOMAINS else opset.version
        result.opset_import.add(domain=opset.domain, version=version)
    before = {node.output[0]: number for number, node in enumerate(light.graph.node) if node.output}
    for node in new.graph.node:
        number = before.get(node.output[0]) if node.output else None
        if number is not None and is_same_node(node, light.graph.node[number]):
            result.graph.node.append(model.proto.graph.node[number])
            continue
        added = result.graph.node.add()
        added.CopyFrom(node)
        restore_placeholders([added], heavy)
        if number is not None and hasattr(added, "metadata_props"):
            added.metadata_props.extend(model.proto.graph.node[number].metadata_props)
    set_resize_modes(model, result.graph)
    weights = {tensor.name: tensor for tensor in new.graph.initializer}
    for tensor in model.proto.graph.initializer:
        new_weight = weights.pop(tensor.name, tensor)
        kept = is_replaceable(tensor) or has_same_values(new_weight, tensor)
        result.graph.initializer.append(tensor if kept else new_weight)
        if new_weight.dims != result.graph.initializer[-1].dims:
            raise opset_error(model, least, f"ONNX's converter reshapes the weight {tensor.name!r}")
    result.graph.initializer.extend(weights.values())
    made = Counter(name for node in result.graph.node for name in node.output if name)
    twice = next((name for name, times in made.items() if times > 1), None)
    if twice is not None:
        raise opset_error(model, least, f"ONNX's converter makes a second tensor {twice!r}")
    lost = produced_names(model.proto.graph.node) - made.keys()
    foreign = [node for node in model.proto.graph.node if node.domain not in ONNX_DOMAINS]
    if lost or any(node not in list(result.graph.node) for node in foreign):
        raise opset_error(model, least, f"ONNX's converter loses {min(lost, default=foreign and foreign[0].op_type)!r}")
    return result


def is_same_node(node: onnx.NodeProto, other: onnx.NodeProto) -> bool:
    """Return whether two nodes compute the same of the same inputs; documentation does not count."""
    if (node.op_type, node.domain, *node.input) != (other.op_type, other.domain, *other.input):
        return False
    if list(node.output) != list(other.output) or len(node.attribute) != len(other.attribute):
        return False
    attributes = ({a.name: copy_without(a, "doc_string") for a in n.attribute} for n in (node, other))
    return next(attributes) == next(attributes)


def has_same_values(tensor: onnx.TensorProto, other: onnx.TensorProto) -> bool:
    """Return whether two weights inside a file are equal, however they are encoded."""
    if (tensor.data_type, *tensor.dims) != (other.data_type, *other.dims):
        return False
    return b"".join(tensor_bytes(tensor, Path(), "")) == b"".join(tensor_bytes(other, Path(), ""))


def set_resize_modes(model: Model, graph: onnx.GraphProto) -> None:
    """Make explicit in every Resize that was an old one how it computes."""
    from onnx import helper

    if model.opset > OLD_RESIZE:
        return
    for node in all_nodes(graph):
        if node.op_type == "Resize" and node.domain in ONNX_DOMAINS:
            modes = {"coordinate_transformation_mode": "asymmetric"}
            if resize_mode(node) == "nearest":
                modes["nearest_mode"] = "floor"
            for attribute in [a for a in node.attribute if a.name in modes]:
                node.attribute.remove(attribute)
            node.attribute.extend(helper.make_attribute(name, value) for name, value in modes.items())


def produced_names(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Return the tensors that the nodes of a graph make."""
    return {name for node in nodes for name in node.output if name}

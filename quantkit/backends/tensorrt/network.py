"""An ONNX model as a TensorRT network: parsing with all errors at once, tensors, shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantkit.backends.tensorrt.messages import Messages
from quantkit.backends.tensorrt.shapes import ShapeRange
from quantkit.backends.tensorrt.versions import library_version, parser_error
from quantkit.errors import ModelError
from quantkit.graph import Model

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

PARSER_REMEDY = "export with another opset, replace that operator, or give TensorRT a plugin for it"


@dataclass(frozen=True, slots=True)
class NetworkTensor:
    """A float tensor of the network for which TensorRT needs a scale.

    constant: its values, if it is a constant. same_as: the tensor whose values it holds in another shape.
    """

    name: str
    constant: Array | None = None
    same_as: str | None = None


def name_nodes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with names for all nodes, after which TensorRT names layers; a missing one is its output's."""
    if all(node.name for node in proto.graph.node):
        return proto
    copy = type(proto)()
    copy.CopyFrom(proto)
    for node in copy.graph.node:
        if not node.name:
            node.name = next((name for name in node.output if name), "")
    return copy


def parse_model(trt: Any, network: Any, model: Model, logger: Any, messages: Messages) -> Any:
    """Parse `model` into `network`; returns the parser, which the network needs alive.

    ModelError names node and operator of everything that TensorRT cannot parse.
    """
    parser = trt.OnnxParser(network, logger)
    beside = str(model.folder / model.path.name)  # where external weights are searched
    if parser.parse(name_nodes(model.proto).SerializeToString(), beside) and network.num_outputs:
        return parser
    nodes = [(node.name, node.op_type) for node in name_nodes(model.proto).graph.node]
    faults = [parser_error(trt, parser.get_error(i), nodes) for i in range(parser.num_errors)]
    faults += [
        f"node {name!r} ({operator}): TensorRT's parser has no operator {operator}"
        for name, operator in nodes
        if not parser.supports_operator(operator) and not any(repr(name) in text for text in faults)
    ]
    faults = faults or list(messages.errors) or ["the parser gives no reason"]
    problem = f"TensorRT {library_version(trt)} cannot parse {model.path}"
    raise ModelError(problem, details=list(dict.fromkeys(faults)), remedy=PARSER_REMEDY)


def network_tensors(trt: Any, network: Any) -> list[NetworkTensor]:
    """Return the float tensors of the network, in TensorRT's order: inputs, then the outputs of the layers."""
    floats = (trt.float32, trt.float16)
    found = [
        NetworkTensor(network.get_input(i).name)
        for i in range(network.num_inputs)
        if network.get_input(i).dtype in floats
    ]
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = layer.type
        for k in range(layer.num_outputs):
            output = layer.get_output(k)
            if output is None or output.dtype not in floats or output.is_shape_tensor:
                continue
            found.append(
                NetworkTensor(
                    output.name,
                    constant_values(trt, layer) if kind == trt.LayerType.CONSTANT else None,
                    layer.get_input(0).name if kind in (trt.LayerType.SHUFFLE, trt.LayerType.IDENTITY) else None,
                )
            )
    return found


def constant_values(trt: Any, layer: Any) -> Array:
    """Return a copy of the values of a constant layer."""
    import numpy as np

    layer.__class__ = trt.IConstantLayer  # the bindings return the base class, and this is how they cast it
    return np.array(layer.weights, dtype=np.float32)


def layers_by_name(network: Any) -> dict[str, Any]:
    """Return the layers by name."""
    return {network.get_layer(i).name: network.get_layer(i) for i in range(network.num_layers)}


def network_inputs(network: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the inputs by name, −1 for a dynamic dimension."""
    return {network.get_input(i).name: tuple(network.get_input(i).shape) for i in range(network.num_inputs)}


def add_profile(builder: Any, network: Any, ranges: Mapping[str, ShapeRange]) -> Any | None:
    """Return an optimization profile over the dynamic inputs; None if every shape is fixed."""
    dynamic = [name for name, shape in network_inputs(network).items() if -1 in shape]
    if not dynamic:
        return None
    profile = builder.create_optimization_profile()
    for name in dynamic:
        r = ranges[name]
        profile.set_shape(name, r.least, r.best, r.most)
    return profile


def calibration_profile(builder: Any, network: Any, shapes: Mapping[str, Sequence[int]]) -> Any | None:
    """Return the profile of the one shape for calibration; None if every shape is fixed."""
    return add_profile(builder, network, {name: ShapeRange(tuple(s), tuple(s), tuple(s)) for name, s in shapes.items()})

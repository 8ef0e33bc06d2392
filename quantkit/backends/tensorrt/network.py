"""An ONNX model as a TensorRT network: parsed with all errors at once, its tensors, its shapes."""

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

PARSER_REMEDY = "export with another opset, rewrite that operator, or give TensorRT a plugin for it"


@dataclass(frozen=True, slots=True)
class NetworkTensor:
    """A float tensor of the network that TensorRT wants a scale for.

    constant: its values, where it is a constant. same_as: the tensor whose values it holds in another shape.
    """

    name: str
    constant: Array | None = None
    same_as: str | None = None


def name_nodes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model, each node named: TensorRT's layers take these names, and a node without one gets its output's."""
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
    # external weights are looked for beside the path that is given here
    if parser.parse(name_nodes(model.proto).SerializeToString(), str(model.path.absolute())) and network.num_outputs:
        return parser
    nodes = [(node.name, node.op_type) for node in name_nodes(model.proto).graph.node]
    told = [parser_error(trt, parser.get_error(i), nodes) for i in range(parser.num_errors)]
    told += [
        f"node {name!r} ({operator}): TensorRT's parser has no operator {operator}"
        for name, operator in nodes
        if not parser.supports_operator(operator) and not any(repr(name) in text for text in told)
    ]
    told = told or list(messages.errors) or ["the parser says no more"]
    lines = "".join(f"\n    {text}" for text in dict.fromkeys(told))
    raise ModelError(f"TensorRT {library_version(trt)} cannot parse {model.path}:{lines}", remedy=PARSER_REMEDY)


def network_tensors(trt: Any, network: Any) -> list[NetworkTensor]:
    """The float tensors of the network, in TensorRT's order: inputs, then the outputs of the layers."""
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
    """The values of a constant layer, copied."""
    import numpy as np

    layer.__class__ = trt.IConstantLayer  # the binding hands out the base class, and this is its way down
    return np.array(layer.weights, dtype=np.float32)


def layers_by_name(network: Any) -> dict[str, Any]:
    """Layer name → layer."""
    return {network.get_layer(i).name: network.get_layer(i) for i in range(network.num_layers)}


def network_inputs(network: Any) -> dict[str, tuple[int, ...]]:
    """Input → shape, −1 where a dimension is dynamic."""
    return {network.get_input(i).name: tuple(network.get_input(i).shape) for i in range(network.num_inputs)}


def add_profile(builder: Any, network: Any, ranges: Mapping[str, ShapeRange]) -> Any | None:
    """An optimization profile over the dynamic inputs; None where every shape is fixed."""
    dynamic = [name for name, shape in network_inputs(network).items() if -1 in shape]
    if not dynamic:
        return None
    profile = builder.create_optimization_profile()
    for name in dynamic:
        r = ranges[name]
        profile.set_shape(name, r.least, r.best, r.most)
    return profile


def calibration_profile(builder: Any, network: Any, shapes: Mapping[str, Sequence[int]]) -> Any | None:
    """The profile of the one shape that calibration runs in; None where every shape is fixed."""
    return add_profile(builder, network, {name: ShapeRange(tuple(s), tuple(s), tuple(s)) for name, s in shapes.items()})

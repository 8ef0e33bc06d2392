"""A network whose inner tensors are outputs, with the types that ONNX infers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from quantkit.graph.dependencies import constant_tensors, live_tensors
from quantkit.graph.model import Model
from quantkit.graph.shape_inference import element_types, infer_types
from quantkit.graph.tensors import FLOATS
from quantkit.qdq.reader import is_qdq

if TYPE_CHECKING:
    import onnx


def float_activations(model: Model) -> tuple[str, ...]:
    """Return the float tensors that operators make from the data, except those of Q and DQ nodes, in graph order."""
    graph = model.proto.graph
    types = element_types(infer_types(model.proto).graph)
    known = constant_tensors(graph)
    live = live_tensors(graph)
    made = (name for node in graph.node if not is_qdq(node) for name in node.output)
    outputs = dict.fromkeys(model.outputs)
    return tuple(
        dict.fromkeys((*(n for n in made if types.get(n) in FLOATS and n in live and n not in known), *outputs))
    )


def with_shown_tensors(model: Model, tensors: Iterable[str]) -> onnx.ModelProto:
    """Return a copy with `tensors` as typed outputs behind its own; the model itself is not modified."""
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    there = {value.name for value in proto.graph.output}
    inferred = {value.name: value for value in infer_types(model.proto).graph.value_info}
    proto.graph.output.extend(inferred[name] for name in tensors if name in inferred and name not in there)
    return proto

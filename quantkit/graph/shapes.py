"""The shapes of tensors for given input shapes, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantkit.graph.model import Model
from quantkit.graph.tensors import infer_types, without_large_weights


def shapes_for_inputs(
    model: Model, tensors: Sequence[str], shapes: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...] | None]:
    """The shape of each tensor when the inputs have `shapes`; None where inference cannot tell."""
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

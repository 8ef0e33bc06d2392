"""Float weights restored from stored integers: (integer − zero point)·scale, as DequantizeLinear computes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from quantkit.errors import ModelError
from quantkit.graph.dead_nodes import names_read_by
from quantkit.graph.messages import copy_without
from quantkit.graph.model import Model
from quantkit.graph.names import tensor_names
from quantkit.graph.weights import weight_values
from quantkit.qdq.grid import Grid
from quantkit.qdq.pairs import StoredWeight, find_pairs

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

LARGEST = 2**31 - 1
"""Size of the largest protobuf message in bytes."""
INTEGERS_NAME = re.compile(r"(.+)_quantized(_\d+)?_*")
"""The names that quantkit and onnxruntime give to the integers of a weight."""


@dataclass(frozen=True, slots=True)
class RestoredWeights:
    """weights: result of a DequantizeLinear → the float weight. by_source: integers → float weights made from them."""

    weights: Mapping[str, onnx.TensorProto]
    by_source: Mapping[str, tuple[onnx.TensorProto, ...]]


def restore_weights(model: Model, stored: Iterable[StoredWeight]) -> RestoredWeights:
    """Compute the float weights.

    A weight takes its original name if that is known and free, or else the name of the result of its DequantizeLinear.
    ModelError if the weights do not fit into a file, or one is damaged.
    """
    from onnx import numpy_helper

    stored = tuple(stored)
    refuse_oversized(model, stored)
    taken = tensor_names(model.proto.graph)
    outputs = set(model.outputs)
    once: dict[tuple[object, ...], onnx.TensorProto] = {}
    weights: dict[str, onnx.TensorProto] = {}
    sources: dict[str, list[onnx.TensorProto]] = {}
    for item in stored:
        key = (item.source, item.grid.names, item.grid.axis)
        if key not in once or item.dequantized in outputs:
            name = item.dequantized if item.dequantized in outputs else float_weight_name(item, taken)
            taken.add(name)
            once[key] = numpy_helper.from_array(dequantize_weight(item, model), name)
            sources.setdefault(item.source, []).append(once[key])
        weights[item.dequantized] = once[key]
    return RestoredWeights(weights, {source: tuple(made) for source, made in sources.items()})


def with_float_weights(model: Model) -> onnx.ModelProto:
    """Return a copy of a network whose stored weights are floats, the numbers that DequantizeLinear makes.

    It computes the same. A runtime that folds DequantizeLinear into weights makes several copies of them on the way.
    ModelError if a weight is damaged.
    """
    from onnx import numpy_helper

    stored = {item.dequantized: item for item in find_pairs(model).stored}
    copy: onnx.ModelProto = copy_without(model.proto, "graph")
    copy.graph.CopyFrom(copy_without(model.proto.graph, "node", "initializer"))
    copy.graph.node.extend(node for node in model.proto.graph.node if stored.keys().isdisjoint(node.output))
    sources = {item.source for item in stored.values()}
    read = {name for node in copy.graph.node for name in names_read_by(node)} | set(model.outputs)
    kept = (tensor for tensor in model.proto.graph.initializer if tensor.name in read or tensor.name not in sources)
    copy.graph.initializer.extend(kept)
    for name, item in stored.items():
        copy.graph.initializer.append(numpy_helper.from_array(dequantize_weight(item, model), name))
    return copy


def refuse_oversized(model: Model, stored: Iterable[StoredWeight]) -> None:
    """Raise ModelError if the model with float weights is larger than a file can be."""
    size = model.proto.ByteSize() + sum(4 * prod(item.weight.dims) for item in stored)
    if size > LARGEST:
        raise ModelError(
            f"{model.path}: with its integer weights as float32 the model would have {size / 1e9:.1f} GB, "
            f"more than the {LARGEST / 1e9:.1f} GB that an ONNX file can hold",
            remedy="use a Q/DQ model with float weights behind QuantizeLinear",
        )


def float_weight_name(item: StoredWeight, taken: set[str]) -> str:
    """Return the name of a float weight: `w` for `w_quantized`, if no tensor has that name."""
    match = INTEGERS_NAME.fullmatch(item.source)
    return match[1] if match and match[1] not in taken else item.dequantized


def dequantize_weight(item: StoredWeight, model: Model) -> Array:
    """Return what DequantizeLinear computes: products in float32, in the type of the scale."""
    scale, zero = item.grid.scale, item.grid.zero
    assert scale is not None
    assert zero is not None
    integers = weight_values(item.weight, model)
    if zero.any():
        integers = integers - broadcast_to_channels(zero, item.grid, integers.ndim)
    values: Array = integers.astype(np.float32)
    values *= broadcast_to_channels(scale, item.grid, integers.ndim).astype(np.float32)
    return values.astype(scale.dtype, copy=False)


def broadcast_to_channels(values: Array, grid: Grid, rank: int) -> Array:
    """Return one value, or one per channel, in a shape that broadcasts along the channels."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[grid.axis] = -1
    return values.reshape(shape)

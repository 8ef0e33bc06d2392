"""Weights that a file holds as integers as float again: (integer − zero point)·scale, as DequantizeLinear has it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from quantkit.errors import ModelError
from quantkit.graph.model import Model
from quantkit.graph.names import tensor_names
from quantkit.qdq.grid import Grid
from quantkit.qdq.pairs import StoredWeight

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

LARGEST = 2**31 - 1
"""Bytes of the largest protobuf message."""
INTEGERS_NAME = re.compile(r"(.+)_quantized(_\d+)?_*")
"""How quantkit and onnxruntime name the integers of a weight."""


@dataclass(frozen=True, slots=True)
class RestoredWeights:
    """weights: result of a DequantizeLinear → the float weight. by_source: integers → what was made of them."""

    weights: Mapping[str, onnx.TensorProto]
    by_source: Mapping[str, tuple[onnx.TensorProto, ...]]


def restore_weights(model: Model, stored: Iterable[StoredWeight]) -> RestoredWeights:
    """Compute the float weights. One takes the name that its weight had, where that is known and free, else the name
    of its DequantizeLinear's result. ModelError where they do not fit into a file, or one is damaged."""
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


def refuse_oversized(model: Model, stored: Iterable[StoredWeight]) -> None:
    """ModelError where the model with float weights is larger than a file can be."""
    size = model.proto.ByteSize() + sum(4 * prod(item.weight.dims) for item in stored)
    if size > LARGEST:
        raise ModelError(
            f"{model.path}: with its integer weights as float32 the model would have {size / 1e9:.1f} GB, "
            f"more than the {LARGEST / 1e9:.1f} GB that an ONNX file can hold",
            remedy="give a Q/DQ model with float weights, QuantizeLinear in front of them",
        )


def float_weight_name(item: StoredWeight, taken: set[str]) -> str:
    """The name of a float weight: `w` for `w_quantized`, if no tensor is called so."""
    match = INTEGERS_NAME.fullmatch(item.source)
    return match[1] if match and match[1] not in taken else item.dequantized


def dequantize_weight(item: StoredWeight, model: Model) -> Array:
    """What DequantizeLinear computes: products in float32, in the type of the scale."""
    from onnx import numpy_helper

    scale, zero = item.grid.scale, item.grid.zero
    assert scale is not None
    assert zero is not None
    try:
        integers = numpy_helper.to_array(item.weight, str(model.folder))
    except ValueError as error:
        raise ModelError(
            f"{model.path}: weight {item.source!r} is damaged: {error}", remedy="export the model again"
        ) from None
    if zero.any():
        integers = integers - broadcast_to_channels(zero, item.grid, integers.ndim)
    values: Array = integers.astype(np.float32)
    values *= broadcast_to_channels(scale, item.grid, integers.ndim).astype(np.float32)
    return values.astype(scale.dtype, copy=False)


def broadcast_to_channels(values: Array, grid: Grid, rank: int) -> Array:
    """One value, or one per channel, shaped so that it meets its channel."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[grid.axis] = -1
    return values.reshape(shape)

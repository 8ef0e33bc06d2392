"""Deviation of the weight scales in a Q/DQ file from those that TensorRT computes itself.

Implicit INT8 needs no table for weights: TensorRT takes max|w|/127 for every output channel of Conv, ConvTranspose and
of Gemm or MatMul with constant weights (developer guide, "Working with quantized types").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import Model
from quantkit.graph.operators import WEIGHTED, weight_axis
from quantkit.graph.weights import stored_tensors, weight_values
from quantkit.numerics import LEVELS
from quantkit.qdq.grid import Grid
from quantkit.qdq.removal import LostGrid
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array


def weight_deviations(model: Model, lost: Mapping[str, Sequence[LostGrid]]) -> dict[str, float]:
    """Return weight → largest |scale/(max|w|/127) − 1| over its channels and its grids.

    Included are weights in `lost` that weighted operators read and whose values and scales are in the file; inf if a
    grid was not symmetric or lay along another axis. `model` is the float network. Weights are read one after another.
    If operators read a weight along two axes, a grid is compared with the nearer one: its own is no longer known.
    """
    known = stored_tensors(model.proto.graph)
    axes: dict[str, set[int]] = {}
    for node in model.proto.graph.node:
        for name, axis in weights_with_axis(node, known):
            axes.setdefault(name, set()).add(axis)
    worst: dict[str, float] = {}
    for name in axes.keys() & lost.keys():
        grids = [item.grid for item in lost[name] if item.grid.scale is not None and item.grid.zero is not None]
        if grids:
            values = weight_values(known[name], model)
            worst[name] = max(min(largest_deviation(grid, values, axis) for axis in axes[name]) for grid in grids)
    return {name: worst[name] for name in lost if name in worst}


def weights_with_axis(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> Iterator[tuple[str, int]]:
    """Yield the weights that a node reads, each with the axis of its output channels."""
    if node.op_type in WEIGHTED:
        for k, name in enumerate(node.input[:2]):
            if name in known and len(known[name].dims) > 1:
                yield name, weight_axis(node, k, len(known[name].dims))


def largest_deviation(grid: Grid, values: Array, axis: int) -> float:
    """Return the largest |scale/(max|w|/127) − 1| of the channels along `axis` that are not zero throughout.

    In FP8 it is max|w|/448.
    """
    assert grid.scale is not None
    assert grid.zero is not None
    if (grid.zero != (128 if grid.type == "uint8" else 0)).any():
        return float("inf")
    if grid.scale.size > 1 and (grid.axis % values.ndim != axis or grid.scale.size != values.shape[axis]):
        return float("inf")
    others = tuple(d for d in range(values.ndim) if d != axis)
    largest = np.abs(values).max(axis=others, initial=0.0).astype(np.float64)
    live = largest > 0
    scale = np.broadcast_to(grid.scale.reshape(-1).astype(np.float64), largest.shape)
    most = QuantizedType.FP8.largest if grid.is_fp8 else LEVELS
    return float(np.abs(scale[live] * most / largest[live] - 1).max(initial=0.0))

"""Gains of channels: how much of a change in a channel of an activation reaches what the next layers compute.

An independent change of variance 1 in channel c of a layer's input adds on average

    g_c = Σ_o Σ_k W[o, c, k]²

to the variance of its outputs, summed over the outputs. Gains are relative: their mean over the channels is 1. Where
several nodes read a tensor, each counts the same; all channels are equal to those without weights, such as an Add.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.index import wire_graph
from quantkit.graph.operators import CONVOLUTIONS
from quantkit.graph.tensors import ChannelView, weighted_inputs
from quantkit.graph.weights import stored_tensors, stored_values

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from quantkit.graph.model import Model
    from quantkit.values import Array


def channel_gains(model: Model) -> dict[ChannelView, NDArray[np.float32]]:
    """Return the gains [C] of the inputs of operators with stored weights. ModelError where a weight is damaged.

    Weights that are zero, not finite, or of another type than float have none.
    """
    graph = model.proto.graph
    constant, weights = constant_tensors(graph), stored_tensors(graph)
    reads = wire_graph(graph).read_counts()
    sums: dict[ChannelView, NDArray[np.float64]] = {}
    counted: Counter[ChannelView] = Counter()
    for node in graph.node:
        for tensor, axis in weighted_inputs(node, constant):
            place = 1 if node.input[0] == tensor else 0
            values = stored_values(model, weights, node.input[place])
            gains = None if values is None else relative_gains(node, place, values)
            view = ChannelView(tensor, axis)
            if gains is not None and len(sums.get(view, gains)) == len(gains):
                sums[view] = sums.get(view, 0.0) + gains
                counted[view] += 1
    found = {}
    for view, gains in sums.items():
        every = gains + max(reads[view.tensor] - counted[view], 0)
        found[view] = (every / every.mean()).astype(np.float32)
    return found


def relative_gains(node: onnx.NodeProto, place: int, weight: Array) -> NDArray[np.float64] | None:
    """Return the gains [C] of a layer whose weight is input `place`, with a mean of 1; None if it has none."""
    if weight.dtype.kind != "f" or weight.ndim < 2 or not weight.size:
        return None
    squares = np.square(weight, dtype=np.float64)
    gains = input_sums(node, place, squares)
    mean = gains.mean()
    return gains / mean if np.isfinite(mean) and mean > 0.0 else None


def input_sums(node: onnx.NodeProto, place: int, squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of a weight's squares [as the weight] for every input channel [C]."""
    flags = {a.name: a.i for a in node.attribute}
    if node.op_type == "ConvTranspose":
        axis = 0
    elif node.op_type in CONVOLUTIONS:
        groups = flags.get("group", 1)
        per_group = squares.reshape(groups, squares.shape[0] // groups, squares.shape[1], -1)
        sums: NDArray[np.float64] = per_group.sum(axis=(1, 3)).reshape(-1)
        return sums
    elif node.op_type == "Gemm":
        axis = 1 if flags.get("transB", 0) else 0
    else:
        axis = squares.ndim - 2 if place == 1 else squares.ndim - 1
    summed: NDArray[np.float64] = squares.sum(axis=tuple(k for k in range(squares.ndim) if k != axis))
    return summed

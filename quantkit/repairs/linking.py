"""Groups of tensors whose channels can be scaled together without changing what a network computes.

A positive factor per channel passes through operators that are positively homogeneous in each channel, f(s·x) = s·f(x):

    Relu, LeakyRelu, PRelu, Identity, Cast between floats, Mul and Div by a constant, pools, ReduceMean over other axes
    Add and Sub of activations      all of them belong to the group (the residual stream)
    Add and Sub of a constant       the constant takes the factor (a bias, a position embedding)
    Flatten, Reshape, Squeeze …     where the channels stay together: a factor serves H·W entries

It ends where a parameter takes it: the output channels of Conv, ConvTranspose, Gemm, MatMul and BatchNormalization, and
the input channels of those. Anything else that touches the group forbids it, with a reason.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", §4.1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.index import index_graph
from quantkit.repairs.editing import WeightEditor

if TYPE_CHECKING:
    from quantkit.values import Array

HUGE = 1e30
"""A bound of Clip that no activation reaches: exporters write ReLU with one."""
HALF_MAX = 65504.0
"""The end of float16: a bound of Clip there does nothing either."""
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class ChannelLayout:
    """The place of the group's channels in a tensor: along `axis`, each `repeat` entries long."""

    axis: int
    repeat: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class GroupEnd:
    """A parameter that takes the factors s to the power of `power` (+1 or −1) along `axis`, counted from the right.

    blocks: number of channel groups along the first axis of a grouped convolution's weight, whose second axis holds
    the channels of one group. reads: the activation that a weight meets, None for anything but a consumer's weight.
    """

    node: int
    place: int
    power: int
    axis: int
    repeat: Fraction
    blocks: int = 1
    reads: str | None = None


@dataclass(slots=True)
class ChannelGroup:
    """Tensors that take the same factors, and the parameters at their ends."""

    tensors: dict[str, ChannelLayout] = field(default_factory=dict)
    ends: list[GroupEnd] = field(default_factory=list)
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class GroupStep:
    """The effect of a node on a group: tensors that join it, parameters at its end, or why it cannot be scaled."""

    tensors: Mapping[str, ChannelLayout] = field(default_factory=dict)
    ends: tuple[GroupEnd, ...] = ()
    reason: str | None = None


class Network:
    """A graph in which groups are looked for: its index, and an editor of its weights.

    absorbing: operators whose constants take the factors of their output (LayerNormalization, Mul).
    """

    def __init__(self, editor: WeightEditor, absorbing: Collection[str] = ()) -> None:
        self.editor, self.absorbing = editor, absorbing
        self.index = index_graph(editor.proto)
        self.nodes, self.shapes = self.index.nodes, self.index.shapes

    def fixed_reason(self, tensor: str) -> str:
        """Return why the values of a tensor have to stay as they are; empty if they need not."""
        inside = self.index.captured.get(tensor)
        if inside:
            return f"{self.nodes[inside[-1]].op_type} reads it in a subgraph"
        return "it is an output of the network" if tensor in self.index.outputs else ""


def spread_factors(end: GroupEnd, factors: Array, shape: tuple[int, ...]) -> Array | None:
    """Return the factors (already to their power) as they multiply a parameter of `shape`; None if they do not fit."""
    if end.repeat.denominator != 1:
        return None
    each = np.repeat(factors, int(end.repeat))
    if end.blocks == 1:
        long = shape[end.axis] if len(shape) >= -end.axis else 1
        bias = end.reads is None and long == 1
        return each.reshape(-1, *(1,) * (-end.axis - 1)) if long == len(each) or bias else None
    if len(each) != end.blocks * shape[1] or shape[0] % end.blocks:
        return None
    rows = np.repeat(each.reshape(end.blocks, shape[1]), shape[0] // end.blocks, axis=0)
    return rows.reshape(*rows.shape, *(1,) * (len(shape) - 2))


def layout_after_reshape(where: ChannelLayout, source: Shape | None, target: Shape | None) -> ChannelLayout | None:
    """Return the layout after a reshape from `source` to `target`; None if the channels do not stay together.

    The first dimension, the batch, may be unknown: it stays as it is where the others hold as much as before. The
    channels stay an axis, or become one with all that follows them.
    """
    if source is None or target is None or not 1 <= where.axis < len(source):
        return None
    before, after = [d for d in source[1:] if d is not None], [d for d in target[1:] if d is not None]
    if len(before) != len(source) - 1 or len(after) != len(target) - 1 or prod(before) != prod(after):
        return None
    ahead, size, inner = prod(before[: where.axis - 1]), before[where.axis - 1], prod(before[where.axis :])
    for k, long in enumerate(after):
        if prod(after[:k]) == ahead and long in (size, size * inner):
            return ChannelLayout(k + 1, where.repeat * (long // size))
    return None


def layout_before_merge(where: ChannelLayout, source: Shape | None, target: Shape | None) -> ChannelLayout | None:
    """Return the layout after a reshape that separates the channels again from an axis that they were merged with."""
    for axis in range(1, len(target or ())):
        back = layout_after_reshape(ChannelLayout(axis), target, source)
        if back is not None and back.axis == where.axis:
            return ChannelLayout(axis, where.repeat / back.repeat)
    return None

"""Groups of tensors whose channels can be scaled together without changing what a network computes.

A positive factor per channel passes through operators that are positively homogeneous in each channel, f(s·x) = s·f(x):

    Relu, LeakyRelu, PRelu, Identity, Mul and Div by a constant, pools, ReduceMean over other axes
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

from quantkit.graph.inference import infer_types
from quantkit.graph.subgraphs import captured_names
from quantkit.repairs.editing import Editor

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

SCALAR = frozenset({"Relu", "LeakyRelu", "Identity"})
POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
HUGE = 1e30
"""A bound of Clip that no activation reaches: exporters write ReLU with one."""
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a tensor has the group's channels: along `axis`, each `repeat` entries long."""

    axis: int
    repeat: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class End:
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
class Group:
    """Tensors that take the same factors, and the parameters at their ends."""

    tensors: dict[str, Layout] = field(default_factory=dict)
    ends: list[End] = field(default_factory=list)
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a node does to a group: other tensors that belong to it, or parameters at its end, or why it forbids it."""

    tensors: Mapping[str, Layout] = field(default_factory=dict)
    ends: tuple[End, ...] = ()
    reason: str | None = None


class Network:
    """A graph as groups are looked for in it: who makes and reads a tensor, and its shape.

    absorbing: operators of which the constants take the factors of their output (LayerNormalization, Mul).
    """

    def __init__(self, editor: Editor, absorbing: Collection[str] = ()) -> None:
        graph = editor.proto.graph
        self.editor, self.absorbing = editor, absorbing
        self.nodes = list(graph.node)
        self.shapes = shapes(infer_types(editor.proto).graph)
        self.makers = {name: number for number, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[tuple[int, int]]] = {}
        self.fixed = {value.name: "it is an output of the network" for value in graph.output}
        for number, node in enumerate(self.nodes):
            for place, name in enumerate(node.input):
                self.readers.setdefault(name, []).append((number, place))
            self.fixed.update(dict.fromkeys(captured_names(node), f"{node.op_type} reads it in a subgraph"))


def shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Tensor name → shape, None for a dimension that is not known."""
    return {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output, *graph.input)
        if value.type.tensor_type.HasField("shape")
    }


def spread(end: End, factors: Array, shape: tuple[int, ...]) -> Array | None:
    """The factors (already to their power) as they multiply a parameter of `shape`; None where they do not fit."""
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


def reshaped(where: Layout, source: Shape | None, target: Shape | None) -> Layout | None:
    """The layout behind a reshape from `source` to `target`; None where the channels do not stay together.

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
            return Layout(k + 1, where.repeat * (long // size))
    return None


def folded(where: Layout, source: Shape | None, target: Shape | None) -> Layout | None:
    """`reshaped` the other way: channels that were one with what follows get an axis of their own again."""
    for axis in range(1, len(target or ())):
        back = reshaped(Layout(axis), target, source)
        if back is not None and back.axis == where.axis:
            return Layout(axis, where.repeat / back.repeat)
    return None

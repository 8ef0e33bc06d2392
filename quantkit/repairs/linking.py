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

from quantkit.graph.tensors import inferred, outer_names
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
        self.shapes = shapes(inferred(editor.proto).graph)
        self.makers = {name: number for number, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[tuple[int, int]]] = {}
        self.fixed = {value.name: "it is an output of the network" for value in graph.output}
        for number, node in enumerate(self.nodes):
            for place, name in enumerate(node.input):
                self.readers.setdefault(name, []).append((number, place))
            self.fixed.update(dict.fromkeys(outer_names(node), f"{node.op_type} reads it in a subgraph"))


def shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Tensor name → shape, None for a dimension that is not known."""
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim
        )
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


def reshaped(where: Layout, source: Shape, target: Shape) -> Layout | None:
    """The layout behind a reshape from `source` to `target`; None where the channels do not stay together.

    What lies before the channels must keep its size, and the channels either stay an axis or take up all that follows.
    """
    before, inner = source[: where.axis], source[where.axis + 1 :]
    size = source[where.axis] if where.axis < len(source) else None
    if size is None or None in before[1:]:
        return None
    for axis, long in enumerate(target):
        ahead = target[:axis]
        if None in ahead[1:] or prod(d or 1 for d in ahead[1:]) != prod(d or 1 for d in before[1:]):
            continue
        # One unknown size, the batch, may lie ahead on both sides: it then is the same, since the rest is.
        if (ahead[:1] != before[:1] and (ahead and before)) or bool(ahead) != bool(before):
            continue
        rest = target[axis + 1 :]
        if long == size and None not in inner and None not in rest and prod(inner) == prod(rest):  # type: ignore[type-var]
            return Layout(axis, where.repeat)
        if None not in inner and long == size * prod(inner) and prod(d or 0 for d in rest) == 1:  # type: ignore[type-var]
            return Layout(axis, where.repeat * prod(inner))  # type: ignore[type-var]
    return None

"""Weighted operators as matrices: which input meets which weight, and the weight as rows that meet patches of it.

operator          input [N, …]            rows of the weight [G, R, K]
Conv              patches, K = C/G·taps   an output channel each
ConvTranspose     pixels, K = C/G         an output channel and a tap each; stride ≥ kernel, so that taps do not meet
Gemm, MatMul      vectors, K              an output each
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.graph.operators import ONNX_DOMAINS, WEIGHTED, weight_axis
from quantkit.qdq.float_reason import FloatCause
from quantkit.qdq.insertion import channel_scales
from quantkit.repairs.editing import WeightEditor
from quantkit.repairs.group_steps import attribute

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array


@dataclass(frozen=True, slots=True)
class PatchGeometry:
    """How the rows of a weight meet an input: channels along `axis`, `groups` of them apart, patches of `kernel`.

    kernel, strides, dilations: one number a spatial dimension, empty where there are no patches. pads: as in ONNX,
    the beginnings before the ends.
    """

    axis: int
    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    same: str = ""
    """SAME_UPPER or SAME_LOWER: pads follow from the input's size."""


@dataclass(frozen=True, slots=True)
class WeightedLayer:
    """A weighted operator: node number, the node's name, its input tensor, and the place and axis of its weight.

    dtype: the type in which the weight is stored, which its scales have too.
    """

    node: int
    name: str
    tensor: str
    place: int
    axis: int
    operator: str
    geometry: PatchGeometry
    dtype: type[np.floating[Any]]

    def rows(self, weight: Array) -> Array:
        """Return the weight as [G, R, K]."""
        groups = self.geometry.groups
        if self.operator == "Conv":
            return weight.reshape(groups, weight.shape[0] // groups, -1)
        if self.operator == "ConvTranspose":
            outputs = np.moveaxis(weight.reshape(groups, weight.shape[0] // groups, -1), 1, 2)
            return np.ascontiguousarray(outputs)
        return (weight if self.axis == 0 else weight.T)[None]

    def rows_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return G, R and K for a weight of `shape`."""
        groups = self.geometry.groups
        if self.operator == "Conv":
            return groups, shape[0] // groups, prod(shape[1:])
        if self.operator == "ConvTranspose":
            return groups, prod(shape[1:]), shape[0] // groups
        return 1, shape[self.axis], shape[1 - self.axis]

    def back(self, rows: Array, shape: tuple[int, ...]) -> Array:
        """Return the weight of `shape` from its rows."""
        if self.operator == "ConvTranspose":
            return np.moveaxis(rows, 2, 1).reshape(shape)
        return rows.reshape(shape) if self.operator == "Conv" or self.axis == 0 else rows[0].T

    def scales(self, weight: Array) -> Array:
        """Return the scale max|w|/127 of every row, float32 [G, R], rounded to its type: that of its output channel."""
        groups, grouped = self.geometry.groups, self.operator == "ConvTranspose"
        if grouped:  # output channels lie along axis 1, a group's at a time
            weight = np.moveaxis(weight.reshape(groups, -1, *weight.shape[1:]), 2, 1)
            weight = weight.reshape(groups * weight.shape[1], -1)
        each = channel_scales(weight.astype(self.dtype, copy=False), 0 if grouped else self.axis).astype(np.float32)
        return np.repeat(each, prod(self.geometry.kernel) if grouped else 1).reshape(groups, -1)


def weighted_layers(editor: WeightEditor, skipped: dict[str, str]) -> Iterator[WeightedLayer]:
    """Yield the weighted operators with known weights, in graph order; `skipped` gets the others with the reason."""
    for number, node in enumerate(editor.proto.graph.node):
        if node.op_type not in WEIGHTED or node.domain not in ONNX_DOMAINS:
            continue
        known = [k for k in (0, 1) if editor.constant(node.input[k])]
        name = node.name or node.output[0]
        if len(known) != 1:
            skipped[name] = editor.reason(node.input[:2]) if not known else "both of its inputs are weights"
            continue
        place = known[0]
        if 0 in editor.shape(node.input[place]):
            skipped[name] = FloatCause.WEIGHTS_EMPTY.value
            continue
        geometry = patch_geometry(node, place, editor.shape(node.input[place]))
        if isinstance(geometry, str):
            skipped[name] = geometry
            continue
        axis = weight_axis(node, place, len(editor.shape(node.input[place])))
        dtype = editor.dtype(node.input[place])
        yield WeightedLayer(number, name, node.input[1 - place], place, axis, node.op_type, geometry, dtype)


def patch_geometry(node: onnx.NodeProto, place: int, shape: tuple[int, ...]) -> PatchGeometry | str:
    """Return how a weight of `shape` meets the other input, or a text why that is not supported."""
    if node.op_type in ("Gemm", "MatMul"):
        if len(shape) != 2:
            return f"its weight has {len(shape)} dimensions"
        first = "transA" if place == 1 else "transB"
        flipped = node.op_type == "Gemm" and bool(attribute(node, first, 0))
        return PatchGeometry(axis=-1 if (place == 1) != flipped else -2)
    if place != 1:
        return "its input is a weight"
    kernel, spatial = shape[2:], len(shape) - 2
    strides = tuple(attribute(node, "strides", (1,) * spatial))
    dilations = tuple(attribute(node, "dilations", (1,) * spatial))
    groups = int(attribute(node, "group", 1))
    if node.op_type == "ConvTranspose":
        if any(s < (k - 1) * d + 1 for s, k, d in zip(strides, kernel, dilations, strict=True)):
            return "its kernel overlaps itself: stride below the kernel's size"
        return PatchGeometry(1, groups, kernel)
    same = attribute(node, "auto_pad", b"NOTSET").decode()
    pads = tuple(attribute(node, "pads", (0,) * 2 * spatial))
    return PatchGeometry(1, groups, kernel, strides, dilations, pads, same if same.startswith("SAME") else "")

"""The grid that a Q or DQ node puts values on: scale, zero point, type of the quantized values, and axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantkit.numerics import round_to_e4m3
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    from quantkit.qdq.reader import QdqGraph, QdqNode
    from quantkit.values import Array


@dataclass(frozen=True, slots=True)
class Grid:
    """Scale and zero point of a Q or DQ node, None if the network computes them.

    type: of the quantized values, empty if unknown. axis: of the scales, if there is one per channel. block: elements
    that share a scale along the axis; 0: all. names: of scale and zero point.
    """

    type: str
    scale: Array | None
    zero: Array | None
    axis: int
    block: int
    names: tuple[str, str]

    def is_same(self, other: Grid) -> bool:
        """Return whether both put every value on the same integers."""
        several = self.scale is None or self.scale.size > 1
        if len({self.type, other.type} - {""}) > 1 or (several and self.channels != other.channels):
            return False
        values = ((self.scale, other.scale), (self.zero, other.zero))
        return all(a == b or are_equal(*two) for a, b, two in zip(self.names, other.names, values, strict=True))

    @property
    def is_fp8(self) -> bool:
        """True if the values are numbers of FP8 (E4M3), not integers."""
        return self.type == QuantizedType.FP8.stored

    @property
    def channels(self) -> tuple[int, int]:
        """The axis and the block size, which say how several scales lie along the tensor."""
        return self.axis, self.block

    @property
    def is_known(self) -> bool:
        """True if the file holds scale and zero point, one for the tensor or one for each channel."""
        return self.scale is not None and self.zero is not None and not (self.block and self.scale.size > 1)

    def scale_for_a_table(self) -> float | str:
        """Return the one float32 scale of a symmetric int8 tensor, or the reason why a table cannot hold the grid.

        uint8 around 128 is int8 around 0: the same values under another name.
        """
        zero = {"int8": 0, "uint8": 128}.get(self.type)
        if self.is_fp8:
            return "it is quantized to FP8, and a table holds scales of INT8"
        if zero is None:
            return f"its integers are {self.type or 'of an unknown type'}"
        if self.scale is None or self.zero is None:
            return "its scale or zero point is computed by the network"
        if (self.zero != zero).any():
            return f"its zero point is {self.zero.flat[np.argmax(self.zero != zero)]} ({self.type})"
        if np.unique(self.scale).size != 1:
            return f"it has {self.scale.size} scales, one per channel"
        scale = float(np.float32(self.scale.flat[0]))
        return scale if 0.0 < scale < float("inf") else f"its scale is {scale}"

    def round_trip(self, values: Array) -> Array:
        """Return what Q and DQ make of values: rounded half to even, clipped to the range of the type."""
        assert self.scale is not None
        assert self.zero is not None
        shape = [1] * values.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        scale, zero = self.scale.astype(np.float32).reshape(shape), np.broadcast_to(self.zero, self.scale.shape)
        offset = zero.astype(np.float32).reshape(shape)
        if self.is_fp8:
            rounded: Array = round_to_e4m3(values.astype(np.float32, copy=False) / scale) * scale
            return rounded
        low, high = integer_limits(self.type)
        codes = np.clip(np.rint(values.astype(np.float32, copy=False) / scale) + offset, low, high)
        result: Array = (codes - offset) * scale
        return result


def read_grid(node: QdqNode, graph: QdqGraph) -> Grid:
    """Return the grid of a Q or DQ node; a zero point that is absent is 0."""
    zero = graph.values(node.zero_name) if node.zero_name else np.zeros(())
    return Grid(
        node.stored,
        node.scale,
        None if zero is None else np.nan_to_num(zero, nan=1.0).astype(np.int64),
        node.axis,
        node.block,
        (node.scale_name, node.zero_name),
    )


def are_equal(a: Array | None, b: Array | None) -> bool:
    """Return whether both are known, of one type, and hold the same values; one value stands for many."""
    if a is None or b is None or a.dtype != b.dtype or (a.size != b.size and 1 not in (a.size, b.size)):
        return False
    return bool((a.reshape(-1) == b.reshape(-1)).all())


def integer_limits(kind: str) -> tuple[int, int]:
    """Return the least and the largest integer of a type."""
    bits = int("".join(c for c in kind if c.isdigit()) or 8)
    return (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

"""The tables that a launch gets: where tensors and views lie on the device, and which block does what.

The layouts are those of `counting.cu`. The functions are pure; a pointer is an int.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from quantkit.values import Array

TENSOR = np.dtype([("x", np.uint64), ("elements", np.int64), ("type", np.int64)])
VIEW = np.dtype(
    [
        ("x", np.uint64), ("type", np.int64), ("units", np.int64), ("rows", np.int64), ("channels", np.int64),
        ("inner", np.int64), ("unit_stride", np.int64), ("row_stride", np.int64), ("channel_stride", np.int64),
        ("first", np.int64),
    ]
)  # fmt: skip
WORK = np.dtype([("subject", np.int32), ("part", np.int32), ("group", np.int32), ("groups", np.int32)])
SUM = np.dtype((np.int64, 4))
CHANNEL = np.dtype([("sums", np.int64, (2, 4)), ("keys", np.int32, 2), ("pad", np.int64)])
TYPES = {"float32": 0, "float16": 1, "float64": 2}
CHUNK, PLANES, THREADS = 65536, 32, 256
MOST_GROUPS, MOST_PARTS = 32, 1 << 20
"""Parts into which the units of a view are divided, and channels of all parts together: 88 MiB."""


@dataclass(frozen=True, slots=True)
class DeviceTensor:
    """A contiguous float tensor in the memory of a device. pointer: its address there; others keep it alive."""

    pointer: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """How many values it holds."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class UnitLayout:
    """How a tensor divides into units, rows, channels and inner elements, with strides; see `kernel.channel_sums`."""

    units: int
    rows: int
    channels: int
    inner: int
    unit_stride: int
    row_stride: int
    channel_stride: int


def unit_layout(shape: Sequence[int], axis: int, *, batch_first: bool) -> UnitLayout:
    """Return the layout of channels along `axis`: the units of `statistics.ChannelSums`, without moving an element."""
    axis %= len(shape)
    channels, inner, outer = shape[axis], prod(shape[axis + 1 :]), prod(shape[:axis])
    if axis == 0:  # as if the axis were moved to the end: every other element is a row of its own
        rest = inner
        leading = shape[1] if batch_first and len(shape) > 1 else rest
        rows = rest // max(leading, 1)
        return UnitLayout(leading, rows, channels, 1, rows, 1, rest)
    units = shape[0] if batch_first and inner == 1 else outer
    rows = outer // max(units, 1)
    return UnitLayout(units, rows, channels, inner, rows * channels * inner, channels * inner, inner)


def tensor_table(tensors: Sequence[DeviceTensor]) -> Array:
    """Return the table of tensors."""
    return np.array([(t.pointer, t.elements, TYPES[t.dtype]) for t in tensors], TENSOR)


def tensor_work(tensors: Sequence[DeviceTensor]) -> Array:
    """Return a block for every `CHUNK` elements of every tensor."""
    chunks = np.array([-(-t.elements // CHUNK) for t in tensors], np.int64)
    work = np.zeros(int(chunks.sum()), WORK)
    work["subject"] = np.repeat(np.arange(len(tensors)), chunks)
    work["part"] = np.arange(len(work)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    return work


def view_table(views: Sequence[tuple[DeviceTensor, UnitLayout]]) -> Array:
    """Return the table of views; `first` counts the channels before a view."""
    table, first = np.zeros(len(views), VIEW), 0
    for row, (tensor, layout) in zip(table, views, strict=True):
        row["x"], row["type"], row["first"] = tensor.pointer, TYPES[tensor.dtype], first
        for name in ("units", "rows", "channels", "inner", "unit_stride", "row_stride", "channel_stride"):
            row[name] = getattr(layout, name)
        first += layout.channels
    return table


def view_groups(layouts: Sequence[UnitLayout]) -> list[int]:
    """Return in how many groups the units of each view are added up; the sums are exact, whatever their number."""
    most = max(1, min(MOST_GROUPS, MOST_PARTS // max(sum(layout.channels for layout in layouts), 1)))
    return [max(1, min(layout.units, most)) for layout in layouts]


def view_work(layouts: Sequence[UnitLayout]) -> Array:
    """Return a block for every tile of channels of every group of units of every view."""
    blocks = []
    for number, (layout, groups) in enumerate(zip(layouts, view_groups(layouts), strict=True)):
        tiles = -(-layout.channels // (THREADS if layout.inner == 1 else PLANES))
        work = np.zeros((tiles, groups), WORK)
        work["subject"], work["groups"] = number, groups
        work["part"], work["group"] = np.arange(tiles)[:, None], np.arange(groups)
        blocks.append(work.ravel())
    return np.concatenate(blocks) if blocks else np.zeros(0, WORK)


def channel_groups(layouts: Sequence[UnitLayout]) -> Array:
    """Return the number of groups of every channel of all views."""
    return np.repeat(np.array(view_groups(layouts), np.int32), [layout.channels for layout in layouts])

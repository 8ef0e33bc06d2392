"""All tensors of a run of the network, counted in a few launches.

    extremes      minimum, maximum and finiteness of every tensor
    histograms    |x| in 2049 bins, under a range for every tensor; the last bin is the edge |x| = R
    channel_sums  minimum, maximum and exact sums per channel of every view

The results are those of `quantkit.kernel` on the same values, to the last element and the last bit. A device is
whatever allocates, copies and launches: CuPy's, or the tests' threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quantkit.gpu_counting.tables import (
    CHANNEL,
    THREADS,
    DeviceTensor,
    UnitLayout,
    channel_groups,
    tensor_table,
    tensor_work,
    view_table,
    view_work,
)
from quantkit.kernel import BINS
from quantkit.values import Array

KEYS = (2**31 - 1, -(2**31))
"""The keys of minimum and maximum before the first value."""
KEY_INF, KEY_MINUS_INF = 0x7F800000, -0x7F800001
NUDGE = 1.0 + 2.0**-45
"""Makes the floor of |x|·(2048/R) that of the quotient; `_kernel.c` says why."""


class Memory(Protocol):
    """A piece of memory of a device; it is freed with the object."""

    @property
    def pointer(self) -> int:
        """Its address on the device."""


class CountingDevice(Protocol):
    """A device, as launches need it; everything runs in order."""

    def copy_in(self, array: Array) -> Memory:
        """Return a copy of an array on the device."""

    def zeros(self, size: int) -> Memory:
        """Return `size` bytes of zeros."""

    def launch(self, kernel: str, blocks: int, *arguments: Memory | int) -> None:
        """Start `blocks` blocks of a kernel of `counting.cu`."""

    def copy_out(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """Wait for all launches, and return the beginning of a piece of memory."""


def kernel_source() -> str:
    """Return the text of the kernels."""
    return files("quantkit.gpu_counting").joinpath("counting.cu").read_text("utf-8")


class Launcher:
    """The launches of one thread. Tables stay on the device while tensors keep their places and shapes."""

    def __init__(self, device: CountingDevice) -> None:
        self._device = device
        self._tensors: tuple[DeviceTensor, ...] = ()
        self._table: Memory | None = None
        self._work: Memory | None = None
        self._blocks = 0
        self._views: tuple[tuple[DeviceTensor, UnitLayout], ...] = ()
        self._view_tables: tuple[Memory, Memory, Memory] | None = None
        self._view_blocks = 0

    def extremes(self, tensors: Sequence[DeviceTensor]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return minimum and maximum [tensors, 2] (inf, -inf if empty), and whether all of each tensor is finite."""
        self._place(tensors)
        keys = self._device.copy_in(np.tile(np.array(KEYS, np.int32), (len(tensors), 1)))
        self._count("extremes", keys)
        found = self._device.copy_out(keys, (len(tensors), 2), np.dtype(np.int32))
        finite = (found[:, 1] < KEY_INF) & (found[:, 0] > KEY_MINUS_INF)
        empty = found[:, 0] > found[:, 1]
        values = float_of(found).astype(np.float64)
        values[empty] = np.inf, -np.inf
        return values, finite | empty

    def histograms(self, tensors: Sequence[DeviceTensor], ranges: Sequence[float]) -> NDArray[np.int64]:
        """Return counts [tensors, 2049] of |x| ≤ R. A range 0 puts everything into bin 0; NaN counts nothing."""
        self._place(tensors)
        factors = np.array([-1.0 if np.isnan(r) else BINS / r * NUDGE if r else 0.0 for r in ranges])
        counts = self._device.zeros(8 * (BINS + 1) * len(tensors))
        self._count("histograms", self._device.copy_in(factors), counts)
        return self._device.copy_out(counts, (len(tensors), BINS + 1), np.dtype(np.int64))

    def channel_sums(
        self, views: Sequence[tuple[DeviceTensor, UnitLayout]]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Return ranges [channels, 2] and exact sums [channels, 2, 4] of every view; no view may be empty."""
        if not views:
            return []
        self._place_views(views)
        assert self._view_tables is not None
        table, work, groups = self._view_tables
        layouts = [layout for _, layout in views]
        each = channel_groups(layouts)
        channels = len(each)
        parts = self._device.zeros(CHANNEL.itemsize * channels * int(each.max()))
        self._device.launch("unit_sums", self._view_blocks, table, work, channels, parts)
        self._device.launch("merge_groups", -(-channels // THREADS), groups, channels, parts)
        found = self._device.copy_out(parts, (channels,), CHANNEL)
        ends = np.cumsum([layout.channels for layout in layouts])[:-1]
        ranges, sums = float_of(np.ascontiguousarray(found["keys"])), found["sums"]
        return list(zip(np.split(ranges, ends), np.split(sums, ends), strict=True))

    def _place(self, tensors: Sequence[DeviceTensor]) -> None:
        if tuple(tensors) == self._tensors:
            return
        work = tensor_work(tensors)
        self._table, self._work = self._device.copy_in(tensor_table(tensors)), self._device.copy_in(work)
        self._tensors, self._blocks = tuple(tensors), len(work)

    def _place_views(self, views: Sequence[tuple[DeviceTensor, UnitLayout]]) -> None:
        if tuple(views) == self._views:
            return
        layouts = [layout for _, layout in views]
        work = view_work(layouts)
        tables = (view_table(views), work, channel_groups(layouts))
        first, second, third = (self._device.copy_in(table) for table in tables)
        self._view_tables, self._views, self._view_blocks = (first, second, third), tuple(views), len(work)

    def _count(self, kernel: str, *arguments: Memory) -> None:
        if self._blocks:
            assert self._table is not None
            assert self._work is not None
            self._device.launch(kernel, self._blocks, self._table, self._work, *arguments)


def float_of(keys: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the floats of order-preserving keys; -0 becomes 0."""
    bits = keys ^ ((keys >> 31) & 0x7FFFFFFF)
    values: NDArray[np.float32] = bits.view(np.float32) + np.float32(0)
    return values

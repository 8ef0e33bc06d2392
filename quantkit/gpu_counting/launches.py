"""All tensors of a run of the network, counted in a few launches.

    extremes      minimum, maximum and finiteness of every tensor
    histograms    |x| in 2049 bins, under a range for every tensor; the last bin is the edge |x| = R
    add_channels  minimum, maximum and exact sums per channel of every view, added to what `take_channels` fetches

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
from quantkit.kernel import BINS, EMPTY
from quantkit.values import Array

KEYS = (2**31 - 1, -(2**31))
"""The keys of minimum and maximum before the first value."""
KEY_INF, KEY_MINUS_INF = 0x7F800000, -0x7F800001
NUDGE = 1.0 + 2.0**-45
"""Makes the floor of |x|·(2048/R) that of the quotient; `_kernel.c` says why."""
Placed = tuple[DeviceTensor, UnitLayout]
"""A tensor, and how its channels lie in it."""


class Memory(Protocol):
    """A piece of memory of a device; it is freed with the object."""

    @property
    def pointer(self) -> int:
        """Its address on the device."""


class CountingDevice(Protocol):
    """A device, as launches need it; everything runs in order."""

    def copy_in(self, array: Array) -> Memory:
        """Return a copy of an array on the device."""

    def allocate(self, size: int, *, zeros: bool = False) -> Memory:
        """Return `size` bytes."""

    def launch(self, kernel: str, blocks: int, *arguments: Memory | int) -> None:
        """Start `blocks` blocks of a kernel of `counting.cu`."""

    def copy_out(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """Wait for all launches, and return the beginning of a piece of memory."""


def kernel_source() -> str:
    """Return the text of the kernels."""
    return files("quantkit.gpu_counting").joinpath("counting.cu").read_text("utf-8")


class TensorTables:
    """The tables of tensors on the device; they stay while the tensors keep their places and shapes."""

    def __init__(self, device: CountingDevice, tensors: Sequence[DeviceTensor]) -> None:
        work = tensor_work(tensors)
        self.tensors, self.blocks = tuple(tensors), len(work)
        self.pointers = device.copy_in(tensor_table(tensors)), device.copy_in(work)


class ViewTables:
    """The tables of views on the device, and memory for the parts of their sums."""

    def __init__(self, device: CountingDevice, views: Sequence[Placed]) -> None:
        layouts = [layout for _, layout in views]
        work, groups = view_work(layouts), channel_groups(layouts)
        self.views, self.blocks = tuple(views), len(work)
        self.pointers = device.copy_in(view_table(views)), device.copy_in(work)
        self.groups = device.copy_in(groups)
        self.parts = device.allocate(CHANNEL.itemsize * len(groups) * int(groups.max(initial=0)))


class Launcher:
    """The launches of one thread, on one device."""

    def __init__(self, device: CountingDevice) -> None:
        self._device = device
        self._tensors: TensorTables | None = None
        self._views: ViewTables | None = None
        self._sizes: tuple[int, ...] = ()
        self._sums: Memory | None = None

    def extremes(self, tensors: Sequence[DeviceTensor]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return minimum and maximum [tensors, 2] (inf, -inf if empty), and whether all of each tensor is finite."""
        keys = self._device.copy_in(np.tile(np.array(KEYS, np.int32), (len(tensors), 1)))
        self._count("extremes", tensors, keys)
        found = self._device.copy_out(keys, (len(tensors), 2), np.dtype(np.int32))
        finite = (found[:, 1] < KEY_INF) & (found[:, 0] > KEY_MINUS_INF)
        empty = found[:, 0] > found[:, 1]
        values = float_of(found).astype(np.float64)
        values[empty] = np.inf, -np.inf
        return values, finite | empty

    def histograms(self, tensors: Sequence[DeviceTensor], ranges: Sequence[float]) -> NDArray[np.int64]:
        """Return counts [tensors, 2049] of |x| ≤ R. A range 0 puts everything into bin 0; NaN counts nothing."""
        factors = np.array([-1.0 if np.isnan(r) else BINS / r * NUDGE if r else 0.0 for r in ranges])
        counts = self._device.allocate(8 * (BINS + 1) * len(tensors), zeros=True)
        self._count("histograms", tensors, self._device.copy_in(factors), counts)
        return self._device.copy_out(counts, (len(tensors), BINS + 1), np.dtype(np.int64))

    def _count(self, kernel: str, tensors: Sequence[DeviceTensor], *arguments: Memory) -> None:
        if self._tensors is None or self._tensors.tensors != tuple(tensors):
            self._tensors = TensorTables(self._device, tensors)
        if self._tensors.blocks:
            self._device.launch(kernel, self._tensors.blocks, *self._tensors.pointers, *arguments)

    def add_channels(self, views: Sequence[Placed]) -> None:
        """Add the figures of every view to those so far. Views are not empty, and have the channels of earlier calls,
        unless `take_channels` has come between."""
        if not views:
            return
        if self._views is None or self._views.views != tuple(views):
            self._views = ViewTables(self._device, views)
        sizes = tuple(layout.channels for _, layout in views)
        channels = sum(sizes)
        if self._sums is None:
            nothing = np.zeros(channels, CHANNEL)
            nothing["sums"][..., 0], nothing["keys"] = EMPTY, KEYS
            self._sums, self._sizes = self._device.copy_in(nothing), sizes
        assert sizes == self._sizes, "bug in quantkit: other channels than those that are being added up"
        tables = self._views
        self._device.launch("unit_sums", tables.blocks, *tables.pointers, channels, tables.parts)
        self._device.launch("merge_groups", -(-channels // THREADS), tables.groups, channels, tables.parts, self._sums)

    def take_channels(self) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Return ranges [channels, 2] and exact sums [channels, 2, 4] of every view since the last call; often none."""
        if self._sums is None:
            return []
        found = self._device.copy_out(self._sums, (sum(self._sizes),), CHANNEL)
        ends = np.cumsum(self._sizes)[:-1]
        ranges, sums = float_of(np.ascontiguousarray(found["keys"])), found["sums"]
        self._sums = None
        return list(zip(np.split(ranges, ends), np.split(sums, ends), strict=True))


def float_of(keys: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the floats of order-preserving keys; -0 becomes 0."""
    bits = keys ^ ((keys >> 31) & 0x7FFFFFFF)
    values: NDArray[np.float32] = bits.view(np.float32) + np.float32(0)
    return values

"""The collector: it takes activations, slice by slice and from several threads, and returns statistics.

A tensor that holds a value no scale is for (NaN, Inf, or one at the limit of its type, as overflows and masks leave
there) is not counted any further and has no histogram in the end; the range of its row is NaN from then on.

A batch may arrive in slices, in any order. In `tensorrt` mode the range of a tensor is that of the first whole batch
in which it is not zero: such a batch is read twice, first for its extremes, then (`recount`) for its values. Where
the collector is given the first ranges, as for a part of the batches, it counts on their grid, and reads nothing twice.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from quantkit.histogram import BINS, Histogram, HistogramMode
from quantkit.kernel import DIGITS, EMPTY, channel_sums, extremes, grow_range, merge_sums, observe, widen
from quantkit.statistics.sealed import check_typed
from quantkit.statistics.seams import Seam, SeamRecorder, start_of_grid
from quantkit.statistics.statistics import Channels, Origin, Statistics
from quantkit.values import Array

ABSURD = 2.0**100
"""Beyond this, a number is no activation but an overflow, or a mask: the least float32 is −2^128."""
HALF_LIMIT = 65504.0
"""The largest float16."""


class ChannelSums:
    """An accumulator of figures per channel of one tensor along one axis."""

    def __init__(self, tensor: str, axis: int, *, batch_first: bool) -> None:
        self.tensor, self.axis, self.batch_first = tensor, axis, batch_first
        self.ranges = np.zeros((0, 2), np.float32)
        self.sums = np.zeros((0, 2, DIGITS + 1), np.int64)
        self.elements = 0

    def add(self, x: NDArray[np.float32]) -> None:
        """Add a slice."""
        axis = self.axis % x.ndim
        if axis == 0:
            x, axis = np.ascontiguousarray(np.moveaxis(x, 0, -1)), x.ndim - 1
        channels, inner = x.shape[axis], prod(x.shape[axis + 1 :])
        self._begin(channels)
        outer = prod(x.shape[:axis])
        # A unit is added up in floating point, units are added exactly: a unit must not hold two samples. Where axis 0
        # is known to be the batch, its elements are units; otherwise every row is one, which is right and slower.
        # A vector has no axis but that of its channels.
        units = x.shape[0] if self.batch_first and inner == 1 and x.ndim > 1 else outer
        channel_sums(x, units, outer // units, channels, inner, self.ranges, self.sums)
        self.elements += outer * inner

    def join(self, ranges: NDArray[np.float32], sums: NDArray[np.int64], elements: int) -> None:
        """Add figures of the same channels that were taken elsewhere; `elements` values per channel."""
        self._begin(len(ranges))
        self.ranges[:, 0] = np.minimum(self.ranges[:, 0], ranges[:, 0])
        self.ranges[:, 1] = np.maximum(self.ranges[:, 1], ranges[:, 1])
        self.sums = merge_sums(self.sums, sums)
        self.elements += elements

    def _begin(self, channels: int) -> None:
        if not self.elements:
            self.ranges = np.tile(np.array([[np.inf, -np.inf]], np.float32), (channels, 1))
            self.sums = np.zeros((channels, 2, DIGITS + 1), np.int64)
            self.sums[..., 0] = EMPTY

    def value(self) -> Channels:
        """Return the figures so far as a frozen value."""
        low, high = self.ranges[:, 0].copy(), self.ranges[:, 1].copy()
        return Channels(self.tensor, self.axis, low, high, self.sums.copy(), self.elements)


class Row:
    """The state of one tensor: views into the collector's arrays, the channel sums, and a lock."""

    __slots__ = ("channels", "counts", "lock", "pending", "state")

    def __init__(self, counts: Array, state: Array, pending: Array, channels: list[ChannelSums]) -> None:
        self.counts, self.state, self.pending, self.channels = counts, state, pending, channels
        self.lock = threading.Lock()

    def scalable(self, *, finite: bool, half: bool) -> bool:
        """Return whether a scale can represent all values so far; if not, nothing is counted any more."""
        low, high = self.state[1:] if finite else (-np.inf, np.inf)
        if max(-low, high) < (HALF_LIMIT if half else ABSURD):
            return True
        self.state[0] = np.nan
        self.pending[:] = 0.0
        return False

    def add_channels(self, x: NDArray[np.float32]) -> None:
        """Add a slice to the channel sums."""
        for view in self.channels:
            view.add(x)


@dataclass(frozen=True, slots=True)
class SliceExtremes:
    """The facts of a slice of a tensor that is counted elsewhere. half: its type is float16."""

    low: float
    high: float
    finite: bool
    elements: int
    half: bool = False


def as_float32(values: Array) -> NDArray[np.float32]:
    """Return contiguous float32; values beyond its range become infinite, which is refused later."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


class Collector:
    """A counter of activations per tensor. `count` and `recount` may be called from several threads at once.

    views: tensors with the axis of their channels, for sums per channel. batch_first: tensors whose axis 0 is the
    batch. first_ranges: in `tensorrt` mode, the range that an earlier batch gave a tensor, so that its range is one of
    the doublings of that (or halves, while its values fit).
    """

    def __init__(
        self,
        tensors: Sequence[str],
        views: Sequence[tuple[str, int]],
        mode: HistogramMode,
        batch_first: Collection[str] = (),
        first_ranges: Mapping[str, float] | None = None,
    ) -> None:
        self.tensors, self.mode = tuple(tensors), mode
        self._counts = np.zeros((len(self.tensors), BINS + 1), np.int64)
        self._state = np.tile(np.array([0.0, np.inf, -np.inf]), (len(self.tensors), 1))
        self._pending = np.zeros((len(self.tensors), 2))  # max|x| and number of values of an unsettled batch
        self._channels: dict[str, list[ChannelSums]] = {}
        for tensor, axis in views:
            self._channels.setdefault(tensor, []).append(ChannelSums(tensor, axis, batch_first=tensor in batch_first))
        self._rows = {
            name: Row(self._counts[i], self._state[i], self._pending[i], self._channels.get(name, []))
            for i, name in enumerate(self.tensors)
        }
        self._seams = SeamRecorder(len(self.tensors))
        for name, range_ in (first_ranges or {}).items():
            if name in self._rows and range_ > 0.0:
                self._rows[name].state[0] = start_of_grid(range_)

    def count(self, tensor: str, values: Array, *, whole: bool) -> bool:
        """Count a slice of a batch; `whole` if it is the entire batch. Return False once, if no scale can represent it.

        Nothing more of such a tensor is counted.
        """
        row = self._rows[tensor]
        x = values if values.dtype == np.float32 and values.flags.c_contiguous else as_float32(values)
        if not x.size:
            return True
        with row.lock:
            if np.isnan(row.state[0]):
                return True
            unsettled = self.mode is HistogramMode.TENSORRT and row.state[0] == 0.0
            if unsettled and not whole:
                low, high, finite = extremes(x)
                row.state[1:] = min(row.state[1], low), max(row.state[2], high)
                row.pending[:] = max(row.pending[0], abs(low), abs(high)), row.pending[1] + x.size
            else:
                finite = observe(x, row.counts, row.state, self.mode is HistogramMode.INVARIANT)
            if not row.scalable(finite=finite, half=values.dtype == np.float16):
                return False
            row.add_channels(x)
            return True

    def settle(self, tensor: str, found: SliceExtremes, *, whole: bool) -> tuple[float, bool]:
        """Take the extremes of a slice that is counted elsewhere, and return its range, and what `count` returns.

        The range is NaN where the slice is not to be counted: there is nothing, it waits for `recount`, or no scale can
        represent the tensor.
        """
        row, most, invariant = self._rows[tensor], max(-found.low, found.high), self.mode is HistogramMode.INVARIANT
        with row.lock:
            if np.isnan(row.state[0]) or not found.elements:
                return np.nan, True
            waits = not invariant and row.state[0] == 0.0 and not whole
            if found.finite:
                row.state[1:] = min(row.state[1], found.low), max(row.state[2], found.high)
            if found.finite and waits:
                row.pending[:] = max(row.pending[0], most), row.pending[1] + found.elements
            elif found.finite:
                old = float(row.state[0])
                row.state[0] = widen(row.counts, old, grow_range(old, most, invariant))
            good = row.scalable(finite=found.finite, half=found.half)
            return (float(row.state[0]) if good and not waits else np.nan), good

    def range_of(self, tensor: str) -> float:
        """Return the range of a tensor: 0 if there is none yet, NaN if no scale can represent it."""
        return float(self._rows[tensor].state[0])

    def add(self, tensor: str, counts: NDArray[np.int64], range_: float) -> None:
        """Add the counts [2049] of a slice that were taken under `range_`; they are changed."""
        row = self._rows[tensor]
        with row.lock:
            if not np.isnan(row.state[0]):
                widen(counts, range_, float(row.state[0]))  # another slice may have raised it meanwhile
                row.counts += counts

    def add_channels(
        self, tensor: str, axis: int, ranges: NDArray[np.float32], sums: NDArray[np.int64], elements: int
    ) -> None:
        """Add figures per channel of a tensor that were taken elsewhere; `elements` values per channel."""
        row = self._rows[tensor]
        with row.lock:
            next(view for view in row.channels if view.axis == axis).join(ranges, sums, elements)

    @property
    def views(self) -> tuple[ChannelSums, ...]:
        """The channel sums of all tensors."""
        return tuple(view for views in self._channels.values() for view in views)

    def recount(self, tensor: str, values: Array) -> None:
        """Count a slice of a batch whose extremes are known; see `end_batch`."""
        row = self._rows[tensor]
        with row.lock:
            if not np.isnan(row.state[0]):
                observe(as_float32(values), row.counts, row.state, False)

    def end_batch(self) -> tuple[str, ...]:
        """Complete a batch; return the tensors whose values must be counted in a second run (`recount`)."""
        if self.mode is HistogramMode.TENSORRT:
            self._seams.note(self._state, self._counts[:, BINS])
        self._counts[:, BINS - 1] += self._counts[:, BINS]
        self._counts[:, BINS] = 0
        waiting = np.flatnonzero(self._pending[:, 1])
        again = [i for i in waiting if self._pending[i, 0] > 0.0]
        for i in waiting:
            if self._pending[i, 0] > 0.0:
                self._state[i, 0] = self._pending[i, 0]
            else:
                self._counts[i, 0] += int(self._pending[i, 1])
        self._pending[:] = 0.0
        return tuple(self.tensors[i] for i in again)

    @property
    def unsettled(self) -> bool:
        """True if some tensor has no range yet, so that the next batch may have to be read twice."""
        return self.mode is HistogramMode.TENSORRT and bool((self._state[:, 0] == 0.0).any())

    def histograms(self) -> dict[str, Histogram]:
        """Return the counts so far as frozen values, of tensors that can have a scale; only valid at the end of a
        batch."""
        return {name: self._histogram(i) for i, name in enumerate(self.tensors) if not np.isnan(self._state[i, 0])}

    @property
    def unscalable(self) -> tuple[str, ...]:
        """The tensors that no scale can represent."""
        return tuple(self.tensors[i] for i in np.flatnonzero(np.isnan(self._state[:, 0])))

    def statistics(self, shared: Mapping[str, str], origin: Origin) -> Statistics:
        """Return the statistics of all tensors that had values, with their origin."""
        without = self.unscalable
        views = [v for name, each in self._channels.items() if name not in without for v in each if v.elements]
        seen = {name: h for name, h in self.histograms().items() if h.elements}
        return Statistics(seen, tuple(view.value() for view in views), dict(shared), origin, unscalable=without)

    def seams(self) -> dict[str, Seam]:
        """Return what joins the histograms of this part to those of its neighbours, in `tensorrt` mode."""
        return {n: self._seams.seam(i) for i, n in enumerate(self.tensors) if not np.isnan(self._state[i, 0])}

    def dump(self) -> dict[str, Array]:
        """Return the state as arrays, for a checkpoint at the end of a batch."""
        arrays: dict[str, Array] = {
            "counts": self._counts.copy(),
            "state": self._state.copy(),
            **self._seams.dump(),
        }
        for views in self._channels.values():
            for view in views:
                key = f"{view.tensor}@{view.axis}"
                arrays[f"ranges/{key}"], arrays[f"sums/{key}"] = (
                    view.ranges.copy(),
                    view.sums.copy(),
                )
                arrays[f"elements/{key}"] = np.array([view.elements])
        return arrays

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Restore the state from `dump`. KeyError or ValueError where the arrays belong to another run."""
        self._counts[...] = check_typed(arrays["counts"], np.int64, self._counts.shape)
        self._state[...] = check_typed(arrays["state"], np.float64, self._state.shape)
        self._seams.load(arrays)
        for views in self._channels.values():
            for view in views:
                key = f"{view.tensor}@{view.axis}"
                channels = len(arrays[f"ranges/{key}"])
                view.ranges = check_typed(arrays[f"ranges/{key}"], np.float32, (channels, 2)).copy()
                view.sums = check_typed(arrays[f"sums/{key}"], np.int64, (channels, 2, DIGITS + 1)).copy()
                view.elements = int(check_typed(arrays[f"elements/{key}"], np.int64, (1,))[0])

    def _histogram(self, i: int) -> Histogram:
        range_, low, high = (float(v) for v in self._state[i])
        if low > high:  # no values
            low = high = 0.0
        if low == high == 0.0:  # a grid is no range
            range_ = 0.0
        return Histogram(self._counts[i, :BINS].copy(), range_, low, high)


def histogram_of(values: Array, mode: HistogramMode) -> Histogram | None:
    """Return the histogram of values that are all available, for example of a weight; None if there are none."""
    collector = Collector(("values",), (), mode, frozenset())
    collector.count("values", as_float32(values), whole=True)
    collector.end_batch()
    return collector.histograms().get("values")

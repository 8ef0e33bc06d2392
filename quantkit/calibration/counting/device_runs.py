"""How a thread of the pool runs and counts a slice on a device, where the network leaves its tensors.

The extremes of all tensors are fetched first, the collector settles their ranges, and the counts under these ranges
follow; sums per channel are exact, so that they add up on the device, in any order, until `flush`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from quantkit.gpu_counting.launches import Launcher, Placed
from quantkit.gpu_counting.resident import ResidentRunner
from quantkit.gpu_counting.tables import DeviceTensor, unit_layout
from quantkit.statistics import Collector
from quantkit.statistics.collector import SliceExtremes
from quantkit.values import Batch


class DeviceRuns:
    """Counts tensors where they are, all of a run at once."""

    def __init__(self, runner: ResidentRunner, collector: Collector) -> None:
        self._runner, self._collector, self._launcher = runner, collector, Launcher(runner.device)
        self._found: dict[str, DeviceTensor] = {}
        self._extremes, self._finite = np.zeros((0, 2)), np.zeros(0, np.bool_)
        self._views: tuple[tuple[str, int], ...] = ()
        self._elements: list[int] = []

    def run(self, feeds: Batch, *, again: bool) -> None:
        """Run the network, and take what depends on no range."""
        found = self._runner(feeds)
        self._found = {name: found[name] for name in self._collector.tensors if name in found}
        if not again:
            self._add_channels()
            self._extremes, self._finite = self._launcher.extremes(list(self._found.values()))

    def count(self, *, whole: bool) -> Batch:
        """Settle the ranges, then count."""
        ranges, broken = [], []
        for (name, tensor), (low, high), finite in zip(
            self._found.items(), self._extremes.tolist(), self._finite.tolist(), strict=True
        ):
            known = SliceExtremes(low, high, finite, tensor.elements, tensor.dtype == "float16")
            range_, good = self._collector.settle(name, known, whole=whole)
            ranges.append(range_)
            if not good:
                broken.append(name)
        self._count(self._found, ranges)
        return {name: self._runner.fetch(name) for name in broken}

    def recount(self, tensors: Collection[str]) -> None:
        """Count some tensors under the ranges that they have by now."""
        self._count(self._found, [self._collector.range_of(n) if n in tensors else np.nan for n in self._found])

    def flush(self) -> None:
        """Give the collector the sums per channel."""
        parts = self._launcher.take_channels()
        for (tensor, axis), (ranges, sums), elements in zip(self._views, parts, self._elements, strict=True):
            self._collector.add_channels(tensor, axis, ranges, sums, elements)
        self._views, self._elements = (), []

    def _count(self, tensors: Mapping[str, DeviceTensor], ranges: list[float]) -> None:
        counts = self._launcher.histograms(list(tensors.values()), ranges)
        for name, row, range_ in zip(tensors, counts, ranges, strict=True):
            if not np.isnan(range_):
                self._collector.add(name, row, range_)

    def _add_channels(self) -> None:
        names, placed = [], list[Placed]()
        for view in self._collector.views:
            tensor = self._found.get(view.tensor)
            if tensor is not None and tensor.elements:
                layout = unit_layout(tensor.shape, view.axis, batch_first=view.batch_first)
                names.append((view.tensor, view.axis))
                placed.append((tensor, layout))
        if self._views and tuple(names) != self._views:
            self.flush()
        self._launcher.add_channels(placed)
        self._elements = self._elements or [0] * len(names)
        self._views = tuple(names)
        for k, (_, layout) in enumerate(placed):
            self._elements[k] += layout.units * layout.rows * layout.inner

"""How a thread of the pool runs and counts a slice: on the host, or where the network leaves its tensors.

Both give the collector the same counts on the same values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from quantkit.backends.session import Runner, Session
from quantkit.statistics import Collector
from quantkit.values import Array, Batch


class SliceCounter(Protocol):
    """A counter of activations, such as the collector of statistics: see `quantkit.statistics.Collector`."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors to count."""

    @property
    def unsettled(self) -> bool:
        """True if a batch may have to be read twice."""

    def count(self, tensor: str, values: Array, *, whole: bool) -> bool:
        """Count a slice of a batch; False once, if no scale can represent it."""

    def recount(self, tensor: str, values: Array) -> None:
        """Count a slice of a batch in its second run."""

    def end_batch(self) -> tuple[str, ...]:
        """Complete a batch; return the tensors to count in a second run."""


class SliceRuns(Protocol):
    """A network and a counter in the hands of one thread."""

    def run(self, feeds: Batch, *, again: bool) -> None:
        """Run the network on a slice. again: the slice has been counted, but some tensors wait for `recount`."""

    def count(self, *, whole: bool) -> Batch:
        """Count what was run; return the values of tensors that no scale can represent, each once."""

    def recount(self, tensors: Collection[str]) -> None:
        """Count what was run of tensors whose ranges are known by now."""

    def flush(self) -> None:
        """Give the collector what has not reached it. Only called between slices."""


def open_slice_runs(session: Session, counter: SliceCounter) -> SliceRuns:
    """Return the runs of one thread: where the tensors are, if the counter can count there. BackendError."""
    if isinstance(counter, Collector) and (resident := session.resident()):
        from quantkit.calibration.counting.device_runs import DeviceRuns

        return DeviceRuns(resident, counter)
    return HostRuns(session.runner(), counter)


class HostRuns:
    """Counts arrays with the compiled kernel."""

    def __init__(self, runner: Runner, counter: SliceCounter) -> None:
        self._runner, self._counter = runner, counter
        self._found: Mapping[str, Array] = {}

    def run(self, feeds: Batch, *, again: bool) -> None:
        """Run the network."""
        del again
        self._found = {**feeds, **self._runner(feeds)}

    def count(self, *, whole: bool) -> Batch:
        """Count tensor after tensor in graph order: the first NaN is the one to look at."""
        present = [name for name in self._counter.tensors if name in self._found]
        return {n: self._found[n] for n in present if not self._counter.count(n, self._found[n], whole=whole)}

    def recount(self, tensors: Collection[str]) -> None:
        """Count tensors again."""
        for name in tensors:
            if name in self._found:
                self._counter.recount(name, self._found[name])

    def flush(self) -> None:
        """Do nothing: the counter has everything."""

"""Leading batches: a shard runs the first batches of the whole data to learn the first range of every tensor.

TensorRT's histogram of a tensor has the bins that its first batch with a nonzero value settled. That is nearly always
the first batch, so that a shard runs one batch more than its own. A tensor that is zero in all leading batches is
counted from its own first range, which is right if the tensor is zero in all earlier shards; merging tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quantkit.backends.session import Session
from quantkit.calibration.counting.worker_pool import WorkerPool
from quantkit.calibration.memory_plan import MemoryPlan, slice_batch
from quantkit.data import Feed, Portion
from quantkit.statistics.range_probe import RangeProbe

MOST_LEADING = 8
"""The largest number of batches that a shard runs beside its own. Tensors that are zero throughout would need all."""


class LeadingBatches:
    """The first batches of the whole data, run as far as needed, for any number of shards.

    feed: of the whole data. known: first ranges that need not be learned. see: called with every batch.
    """

    def __init__(
        self, feed: Feed, plan: MemoryPlan, known: Mapping[str, float], see: Callable[[Feed, Portion], None]
    ) -> None:
        self._feed, self._plan, self._see = feed, plan, see
        self._probes = [RangeProbe(group, known) for group in plan.passes]
        self._read = [0 for _ in plan.passes]

    def first_ranges(self, start: int, open_session: Callable[[int], Session]) -> dict[str, float]:
        """Return the first ranges of all tensors that have one before batch `start`, where a shard begins.

        As many batches before it are run as needed, up to a bound. Raises what reading and running raise.
        """
        found: dict[str, float] = {}
        for number, probe in enumerate(self._probes):
            if self._read[number] < min(start, MOST_LEADING) and probe.tensors:
                self._read_on(number, min(start, MOST_LEADING), open_session(number))
            found.update(probe.found)
        return found

    def _read_on(self, number: int, stop: int, session: Session) -> None:
        """Run the batches before batch `stop` in one pass, until every tensor has a range."""
        probe, plan, handed = self._probes[number], self._plan, 0
        with WorkerPool(session, probe, plan.runners, advance=lambda _: None, unscalable=lambda *_: None) as crew:
            while self._read[number] < stop and probe.tensors:
                feed = self._feed.part(range(self._read[number], self._read[number] + 1))
                for portion in feed.portions():
                    self._see(feed, portion)
                    crew.run(handed, slice_batch(portion.batch, portion.samples, plan.slice, plan.axes))
                    crew.wait()
                    handed += 1
                self._read[number] += 1

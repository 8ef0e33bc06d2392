"""The streaming pass: batches go through the network, activations into collectors, checkpoints to disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantkit.backends.session import Session
from quantkit.calibration.checkpoint import Position, read_checkpoint, write_checkpoint
from quantkit.calibration.counting.worker_pool import SliceTask, WorkerPool
from quantkit.calibration.memory_plan import MemoryPlan, slice_batch
from quantkit.data import DataIdentity, Feed, Portion
from quantkit.data.feed import Identifier, identity_as_read, portion_digests
from quantkit.errors import DataError, Interrupted, StaleError, StatisticsError
from quantkit.histogram import HistogramMode
from quantkit.progress import Progress
from quantkit.statistics import Collector
from quantkit.values import Array, Batch

OTHER_STREAM = "the data is not that of the interrupted run"


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """Where the state is written, after how many batches, and the identity of the run. No path: it is not written."""

    path: Path | None = None
    every: int = 16
    identity: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False


@dataclass(frozen=True, slots=True)
class PassResult:
    """The collectors of all passes, and the identity of the data that was read."""

    collectors: tuple[Collector, ...]
    identity: DataIdentity
    batches: int
    samples: int


@dataclass(frozen=True, slots=True)
class PassHooks:
    """Observers of a pass. identity: of the data, if it is known; batch: called with every batch of the first pass;
    milestone: called with the collector after 1, 2, 4, 8 … batches; unscalable: called once with tensors that no scale
    can represent, their values, and the names of the samples. may_be_empty: all samples may have been left out, as in
    one shard of many."""

    identity: DataIdentity | None = None
    batch: Callable[[Portion], None] | None = None
    milestone: Callable[[int, Collector], None] | None = None
    unscalable: Callable[[Batch, Sequence[str]], None] | None = None
    may_be_empty: bool = False


class StreamingPass:
    """One run over a feed, in as many passes as the plan has."""

    def __init__(
        self,
        feed: Feed,
        plan: MemoryPlan,
        collectors: tuple[Collector, ...],
        checkpoints: CheckpointPlan,
        progress: Progress,
        hooks: PassHooks,
    ) -> None:
        self._feed, self._plan, self._collectors = feed, plan, collectors
        self._checkpoints, self._progress, self._hooks = checkpoints, progress, hooks

    def observe(self, open_session: Callable[[int], Session]) -> PassResult:
        """Run all passes, each with its session. Interrupted leaves a checkpoint; errors name tensor and batch."""
        position = self._resumed()
        self._progress.start(self._feed.samples, len(self._plan.passes), self._done(position))
        seen = (self._hooks.identity, position.batches, position.samples)
        try:
            for number in range(position.pass_, len(self._plan.passes)):
                start = position if number == position.pass_ else Position(pass_=number)
                session = open_session(number)
                before, seen = seen, self._one_pass(session, start)
                if number > 0 and before[0] not in (None, seen[0]):
                    raise DataError(
                        "the stream yields different data in each pass, and a single pass exceeds --max-memory",
                        remedy="make the stream repeatable, or raise --max-memory",
                    )
        finally:
            self._progress.close()
        identity, batches, samples = seen
        assert identity is not None, "bug in quantkit: a pass ended without an identity of its data"
        identity = identity_as_read(self._feed, identity)
        return PassResult(self._collectors, identity, batches, samples)

    def _one_pass(self, session: Session, start: Position) -> tuple[DataIdentity, int, int]:
        collector = self._collectors[start.pass_]
        identifier = None if self._hooks.identity else Identifier()
        position, names, passed = start, list[tuple[str, ...]](), 0

        def meet(tensors: Batch, task: SliceTask) -> None:
            if self._hooks.unscalable:
                self._hooks.unscalable(tensors, names[task.batch][task.first : task.first + task.samples])

        with WorkerPool(
            session, collector, self._plan.runners, advance=self._progress.advance, unscalable=meet
        ) as crew:
            for portion in self._feed.portions(0 if identifier else start.stop):
                if identifier:
                    identifier.add(portion_digests(portion))
                    if portion.stop <= start.stop:
                        passed = portion.stop
                        refuse_other_stream(start, passed, identifier)
                        continue
                names.append(portion.names)
                if self._hooks.batch and start.pass_ == 0:
                    self._hooks.batch(portion)
                crew.run(len(names) - 1, slice_batch(portion.batch, portion.samples, self._plan.slice, self._plan.axes))
                position = Position(
                    pass_=start.pass_,
                    stop=portion.stop,
                    batches=position.batches + 1,
                    samples=position.samples + portion.samples,
                    unreadable=tuple(self._feed.unreadable),
                    seen=identifier.order if identifier else "",
                )
                self._between(crew, collector, position)
            crew.wait()
        if identifier and passed < start.stop:
            raise StaleError(OTHER_STREAM, remedy="start again with --force instead of --resume")
        if not (position.samples or self._hooks.may_be_empty):
            raise DataError("the data yields no samples", remedy="give at least one sample")
        return (
            self._hooks.identity or (identifier or Identifier()).identity(),
            position.batches,
            position.samples,
        )

    def _between(self, crew: WorkerPool, collector: Collector, position: Position) -> None:
        """After a batch was handed out: update the learning curve, write a checkpoint, stop if the user wants to."""
        if self._hooks.milestone and position.batches & (position.batches - 1) == 0:
            crew.wait()
            self._hooks.milestone(position.samples, collector)
        stopping = self._progress.stopped()
        checkpoints = self._checkpoints
        if checkpoints.path and (stopping or position.batches % checkpoints.every == 0):
            crew.wait()
            write_checkpoint(checkpoints.path, checkpoints.identity, position, self._dump())
        if stopping:
            crew.wait()
            batches = "1 batch" if position.batches == 1 else f"{position.batches} batches"
            raise Interrupted(
                f"stopped after {batches} ({position.samples} samples)",
                remedy="continue with --resume" if checkpoints.path else "start again",
            )

    def _dump(self) -> dict[str, Array]:
        return {
            f"{k}/{key}": array
            for k, collector in enumerate(self._collectors)
            for key, array in collector.dump().items()
        }

    def _resumed(self) -> Position:
        checkpoints = self._checkpoints
        if not checkpoints.resume or checkpoints.path is None:
            return Position()
        position, arrays = read_checkpoint(checkpoints.path, checkpoints.identity, self._feed, len(self._plan.passes))
        try:
            for k, collector in enumerate(self._collectors):
                prefix = f"{k}/"
                collector.load({n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
        except (KeyError, ValueError) as error:
            raise StatisticsError(
                f"{checkpoints.path} is damaged: {error}", remedy="start again with --force instead of --resume"
            ) from None
        self._feed.unreadable[:] = position.unreadable
        return position

    def _done(self, position: Position) -> int:
        return position.pass_ * (self._feed.samples or 0) + position.samples


def refuse_other_stream(start: Position, passed: int, identifier: Identifier) -> None:
    """Raise StaleError where the part of a stream that was counted before the interruption differs."""
    if passed == start.stop and identifier.order != start.seen:
        raise StaleError(OTHER_STREAM, remedy="start again with --force instead of --resume")


def new_collectors(
    plan: MemoryPlan,
    views: Mapping[str, list[int]],
    mode: HistogramMode,
    first_ranges: Mapping[str, float] | None = None,
) -> tuple[Collector, ...]:
    """Return a collector for every pass, with the channel views of its tensors; first_ranges: as of a collector."""
    return tuple(
        Collector(
            group,
            [(name, axis) for name in group for axis in views.get(name, [])],
            mode,
            plan.batch_first,
            first_ranges,
        )
        for group in plan.passes
    )

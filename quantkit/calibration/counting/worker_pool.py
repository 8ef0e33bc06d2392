"""A pool of threads that run slices of batches; batches are counted one after the other.

A thread runs the network on its slice as soon as it is free, but counts it only after every slice of the earlier
batches: ranges are fixed batch by batch, in the order of the data, regardless of the number of threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from types import TracebackType

from quantkit.backends.session import Session
from quantkit.calibration.counting.slice_runs import SliceCounter, SliceRuns, open_slice_runs
from quantkit.values import Batch


@dataclass(frozen=True, slots=True)
class SliceTask:
    """A slice of a batch. first: its first sample in the batch.

    `again` names the tensors to count in a second run; None in the first run."""

    batch: int
    feeds: Batch
    first: int
    samples: int
    whole: bool
    again: frozenset[str] | None = None


class WorkerPool:
    """A context manager with `workers` threads that run `session` and count into `collector`.

    advance: called with the number of counted samples. unscalable: called with the tensors, and their values in a
    slice, that no scale can represent, each once; it raises where that matters.
    """

    def __init__(
        self,
        session: Session,
        collector: SliceCounter,
        workers: int,
        *,
        advance: Callable[[int], None],
        unscalable: Callable[[Batch, SliceTask], None],
    ) -> None:
        self._session, self._collector, self._workers = session, collector, workers
        self._advance, self._unscalable = advance, unscalable
        self._changed = threading.Condition()
        self._tasks: deque[SliceTask] = deque()
        self._left: dict[int, int] = {}
        self._turn = 0
        self._again: tuple[str, ...] = ()
        self._failure: BaseException | None = None
        self._closed = False
        self._runs: list[SliceRuns] = []
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]

    def __enter__(self) -> WorkerPool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closed = True
            if kind is not None:
                self._tasks.clear()
                self._failure = self._failure or value
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        if kind is None:
            self._check()
            for runs in self._runs:
                runs.flush()

    def run(self, number: int, slices: Sequence[tuple[Batch, int]]) -> None:
        """Hand out batch `number` (0, 1, 2 …, each once). Returns while the batch is still running, unless the range of
        a tensor is not known yet."""
        patient = self._collector.unsettled and len(slices) > 1
        firsts = [0, *accumulate(n for _, n in slices)]
        tasks = [SliceTask(number, f, at, n, len(slices) == 1) for (f, n), at in zip(slices, firsts, strict=False)]
        self._hand_out(tasks)
        if not patient:
            return
        self.wait()
        if again := frozenset(self._again):
            with self._changed:
                self._turn = number
            self._hand_out([replace(task, again=again) for task in tasks])
            self.wait()

    def wait(self) -> None:
        """Wait until everything that was handed out has been counted, and has reached the collector."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or not self._left)
            self._check()
            for runs in self._runs:
                runs.flush()

    def _hand_out(self, tasks: Sequence[SliceTask]) -> None:
        with self._changed:
            self._left[tasks[0].batch] = len(tasks)
            for task in tasks:
                self._changed.wait_for(lambda: self._failure or len(self._tasks) < self._workers)
                self._check()
                self._tasks.append(task)
                self._changed.notify_all()

    def _check(self) -> None:
        if self._failure:
            raise self._failure

    def _work(self) -> None:
        try:
            runs = open_slice_runs(self._session, self._collector)
            with self._changed:
                self._runs.append(runs)
            while task := self._next():
                self._count(task, runs)
        except BaseException as error:  # raised in the waiting thread
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _next(self) -> SliceTask | None:
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._closed or self._failure)
            if not self._tasks or self._failure:
                return None
            task = self._tasks.popleft()
            self._changed.notify_all()
            return task

    def _count(self, task: SliceTask, runs: SliceRuns) -> None:
        runs.run(task.feeds, again=task.again is not None)
        with self._changed:
            self._changed.wait_for(lambda: self._turn == task.batch or self._failure)
            if self._failure:
                return
        if task.again is not None:
            runs.recount(task.again)
        elif broken := runs.count(whole=task.whole):
            self._unscalable(broken, task)
        self._leave(task)

    def _leave(self, task: SliceTask) -> None:
        with self._changed:
            self._left[task.batch] -= 1
            if task.again is None:
                self._advance(task.samples)
            if not self._left[task.batch]:
                del self._left[task.batch]
                self._again = self._collector.end_batch()
                self._turn = task.batch + 1
            self._changed.notify_all()

"""Handing out shards to workers: each free worker gets the next one, and the shard of a dead worker goes to another.

A worker that dies is replaced. Ray could restart an actor and repeat its call by itself; but where a machine is gone,
the restarted actor waits for room, and its shard with it, while others are free. So the shard goes back into the line.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator

from quantkit.errors import BackendError
from quantkit.executors.crew import Crew, Event, Finished, Lost, Ready
from quantkit.executors.task import ShardResult, WorkerError
from quantkit.sharding import Shard

POLL = 0.2
"""Seconds between two looks at whether the user wants to stop."""
ATTEMPTS = 3
"""A shard that ends so many workers is at fault itself, and so is a machine that ends so many before they are ready."""


class Dispatcher:
    """The shards in line, the worker of each that runs, and how often each ended a worker."""

    def __init__(self, crew: Crew, shards: Iterable[Shard]) -> None:
        self._crew = crew
        self._line = deque(shards)
        self._given: dict[int, Shard] = {}
        self._waiting: list[int] = []
        self._starting: set[int] = set()
        self._ended: Counter[Shard] = Counter()
        self._false_starts = 0

    @property
    def over(self) -> bool:
        """True if every shard has its result."""
        return not (self._line or self._given)

    def hand_out(self) -> None:
        """Give shards to the workers that wait, and start workers while there are too few for the shards in line."""
        while self._line and self._waiting:
            worker, shard = self._waiting.pop(), self._line.popleft()
            self._given[worker] = shard
            self._crew.assign(worker, shard)
        free = self._crew.size - len(self._given) - len(self._waiting) - len(self._starting)
        for _ in range(min(free, len(self._line) - len(self._starting))):
            self._starting.add(self._crew.hire())

    def meet(self, event: Event) -> tuple[Shard, ShardResult] | None:
        """Take note of an event; return a shard with its result, if there is one. Raises what the worker met."""
        if isinstance(event, Ready):
            self._starting.discard(event.worker)
            self._waiting.append(event.worker)
            self._false_starts = 0
        elif isinstance(event, Finished):
            shard = self._given.pop(event.worker)
            self._waiting.append(event.worker)
            if isinstance(event.outcome, WorkerError):
                raise event.outcome.raised()
            return shard, event.outcome
        else:
            self._replace(event)
        return None

    def _replace(self, event: Lost) -> None:
        """Put the shard of a dead worker back into the line. BackendError if that happens again and again."""
        shard = self._given.pop(event.worker, None)
        if event.worker in self._waiting:
            self._waiting.remove(event.worker)
        if event.worker in self._starting:
            self._starting.discard(event.worker)
            self._false_starts += 1
            if self._false_starts >= ATTEMPTS:
                raise BackendError(
                    f"{ATTEMPTS} workers ended before they were ready; the last one by {event.reason}",
                    remedy="try the same without workers",
                )
        if shard is None:
            return
        self._ended[shard] += 1
        if self._ended[shard] >= ATTEMPTS:
            raise BackendError(
                f"shard {shard} ended {ATTEMPTS} workers; the last one by {event.reason}",
                remedy="if memory was short, use fewer workers or a smaller --batch-size; the rest is done and is kept",
            )
        self._line.appendleft(shard)


def run_shards(
    crew: Crew, shards: Iterable[Shard], stopped: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Shard, ShardResult]]:
    """Yield every shard with its result, as they come; end early if `stopped()` becomes true.

    Raises the error of a worker; BackendError where a shard, or the start of workers, fails again and again.
    """
    dispatcher = Dispatcher(crew, shards)
    while not dispatcher.over and not stopped():
        dispatcher.hand_out()
        for event in crew.events(POLL):
            done = dispatcher.meet(event)
            if done is not None:
                yield done

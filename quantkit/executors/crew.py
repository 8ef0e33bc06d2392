"""The interface of an engine for workers: to start one, to give it a shard, to report events, to end all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from quantkit.executors.task import ShardResult, WorkerError
from quantkit.sharding import Shard


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has started and waits for a shard."""

    worker: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker has done its shard, or met an error in it."""

    worker: int
    outcome: ShardResult | WorkerError


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker has died, with its machine perhaps. reason: `signal 9 (Killed)`, as far as it is known."""

    worker: int
    reason: str


Event = Ready | Finished | Lost


class Crew(Protocol):
    """Workers of one engine, by number. A context manager: its end is the end of all workers."""

    size: int
    """The number of workers to keep."""

    def hire(self) -> int:
        """Start a worker, and return its number. It reports `Ready`, or `Lost`."""

    def assign(self, worker: int, shard: Shard) -> None:
        """Give a shard to a worker that waits for one. It reports `Finished`, or `Lost`."""

    def events(self, seconds: float) -> Sequence[Event]:
        """Return what happened since; wait at most so long if nothing did."""

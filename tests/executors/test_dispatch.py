"""Every shard comes exactly once, whichever workers die, and whenever."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.errors import BackendError, DataError
from quantkit.executors import ShardResult, run_shards
from quantkit.executors.crew import Event, Finished, Lost, Ready
from quantkit.executors.task import ShardServer, WorkerError, describe_failure
from quantkit.sharding import Shard


def shards(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(count)]


class DrawnCrew:
    """Workers that live only here. Which of them moves next, and how, is drawn.

    deaths: how many may die. outcome: what a shard's result is.
    """

    def __init__(self, size: int, seed: int, deaths: int = 0, *, start: bool = True) -> None:
        self.size, self._drawn, self._deaths, self._start = size, random.Random(seed), deaths, start
        self._starting: list[int] = []
        self._idle: set[int] = set()
        self._busy: dict[int, Shard] = {}
        self.hired = 0
        self.most = 0

    def hire(self) -> int:
        self.hired += 1
        self._starting.append(self.hired)
        self.most = max(self.most, len(self._starting) + len(self._idle) + len(self._busy))
        return self.hired

    def assign(self, worker: int, shard: Shard) -> None:
        assert worker not in self._busy
        assert worker not in self._starting
        self._idle.discard(worker)
        self._busy[worker] = shard

    def events(self, _seconds: float) -> Sequence[Event]:
        events: list[Event] = []
        for _ in range(self._drawn.randint(0, 2)):
            alive = [*self._starting, *sorted(self._idle), *self._busy]
            if not alive:
                break
            worker = self._drawn.choice(alive)
            if self._deaths and self._drawn.random() < 0.3:
                self._deaths -= 1
                events.append(self._die(worker))
            elif worker in self._starting:
                self._starting.remove(worker)
                if self._start:
                    self._idle.add(worker)
                events.append(Ready(worker) if self._start else Lost(worker, "exit code 1"))
            elif worker in self._busy:
                shard = self._busy.pop(worker)
                self._idle.add(worker)
                events.append(Finished(worker, ShardResult(str(shard).encode(), 1)))
        return events

    def _die(self, worker: int) -> Lost:
        if worker in self._starting:
            self._starting.remove(worker)
        self._idle.discard(worker)
        self._busy.pop(worker, None)
        return Lost(worker, "signal 9 (SIGKILL)")


@given(count=st.integers(1, 30), size=st.integers(1, 6), seed=st.integers(0, 2**32 - 1), deaths=st.integers(0, 2))
def test_every_shard_comes_once_whichever_workers_die(count: int, size: int, seed: int, deaths: int) -> None:
    crew = DrawnCrew(size, seed, deaths)
    found = [(shard, result.content) for shard, result in run_shards(crew, shards(count))]
    assert sorted(found) == [(shard, str(shard).encode()) for shard in shards(count)]
    assert crew.most <= size, "never more workers than were asked for"
    assert crew.hired <= min(size, count) + deaths, "no worker starts for nothing"


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 4))
def test_a_shard_that_ends_every_worker_ends_the_run(seed: int, size: int) -> None:
    class Deadly(DrawnCrew):
        def events(self, seconds: float) -> Sequence[Event]:
            fatal = [worker for worker, shard in self._busy.items() if shard.index == 3]
            return [self._die(fatal[0])] if fatal else super().events(seconds)

    with pytest.raises(BackendError, match=r"shard 3/9 ended 3 workers; the last one by signal 9"):
        list(run_shards(Deadly(size, seed), shards(9)))


def test_workers_that_never_get_ready_end_the_run() -> None:
    with pytest.raises(BackendError, match="3 workers ended before they were ready; the last one by exit code 1"):
        list(run_shards(DrawnCrew(2, 0, start=False), shards(4)))


def test_a_run_that_is_stopped_ends_early() -> None:
    found: list[Shard] = []
    for shard, _ in run_shards(DrawnCrew(2, 0), shards(50), lambda: len(found) >= 5):
        found.append(shard)
    assert len(found) == 5


class Broken:
    """A task whose network loads or does not, and whose shards raise."""

    def __init__(self, error: Exception, *, opens: bool) -> None:
        self.error, self.opens = error, opens

    def open(self, _threads: int) -> Callable[[Shard], ShardResult]:
        if not self.opens:
            raise self.error
        return self.run

    def run(self, _shard: Shard) -> ShardResult:
        raise self.error


def test_an_error_arrives_as_it_was_with_shard_and_host() -> None:
    error = DataError("2 of 8 samples cannot be read", remedy="fix them", details=("a.png: truncated", "b.png: empty"))
    outcome = ShardServer(Broken(error, opens=True), 1).run(Shard(3, 8))
    assert isinstance(outcome, WorkerError)
    again = outcome.raised()
    assert isinstance(again, DataError)
    assert again.headline == f"shard 3/8 on {outcome.host}: 2 of 8 samples cannot be read:"
    assert (again.details, again.remedy) == (error.details, error.remedy)


def test_an_error_in_loading_the_network_names_no_shard() -> None:
    outcome = ShardServer(Broken(DataError("no such file", remedy="look"), opens=False), 1).run(Shard(3, 8))
    assert isinstance(outcome, WorkerError)
    assert str(outcome.raised()).startswith(f"on {outcome.host}: no such file")


def test_memory_and_bugs_stay_what_they_are() -> None:
    assert isinstance(describe_failure(MemoryError(), Shard(0, 1)).raised(), MemoryError)
    bug = describe_failure(ZeroDivisionError("oh"), Shard(0, 1)).raised()
    assert isinstance(bug, RuntimeError)
    assert "ZeroDivisionError: oh" in str(bug)

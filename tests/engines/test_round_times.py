"""Several engines timed in rounds: the order of the rounds, CUDA graphs for all or for none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantkit.engines import round_times
from quantkit.engines.round_times import measure_rounds
from quantkit.errors import BackendError


class StandIn:
    """An engine that takes batches up to 8, and a meter of it."""

    log: list[str]
    graphs: bool

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def load(cls, path: Path, device: int = 0) -> StandIn:
        assert device == 1
        return cls(path)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        StandIn.log.append(f"close {self.path}")


class Meter:
    def __init__(self, engine: StandIn, batch: int, *, graph: bool = True) -> None:
        self.engine, self.batch, self.graph = engine, batch, graph
        self.captures = graph and engine.path.name != "late"

    def __enter__(self) -> Meter:
        if self.graph and not StandIn.graphs:
            raise BackendError("cuStreamEndCapture failed", remedy="")
        return self

    def __exit__(self, *_: object) -> None: ...

    def measure(self, seconds: float) -> list[float]:
        assert seconds == 0.25
        StandIn.log.append(f"{self.engine.path} {self.batch}{' graph' if self.graph else ''}")
        return [1.0, 3.0, 2.0]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    StandIn.log, StandIn.graphs = [], True
    monkeypatch.setattr("quantkit.backends.tensorrt.engine.Engine", StandIn)
    monkeypatch.setattr("quantkit.backends.tensorrt.timing.LatencyMeter", Meter)
    monkeypatch.setattr("quantkit.backends.tensorrt.timing.takes_batch", lambda _, batch: batch <= 8)
    return StandIn.log


def measured(*names: str) -> dict[str, dict[int, round_times.RoundTimes]]:
    return measure_rounds({n: Path(n) for n in names}, (1, 9), device=1, rounds=3, seconds=0.25)


def test_every_other_round_goes_backward(log: list[str]) -> None:
    found = measured("a", "b")
    assert log[:6] == ["a 1 graph", "b 1 graph", "b 1 graph", "a 1 graph", "a 1 graph", "b 1 graph"]
    assert {name: {b: t.rounds for b, t in of.items()} for name, of in found.items()} == {
        "a": {1: (2.0, 2.0, 2.0)},
        "b": {1: (2.0, 2.0, 2.0)},
    }
    assert sorted(log[6:]) == ["close a", "close b"]


@pytest.mark.parametrize("capture", [True, False])
def test_all_run_as_graphs_or_none(log: list[str], capture: bool) -> None:
    StandIn.graphs = capture
    measured("a", "late")
    assert not any("graph" in line for line in log)

"""Batches cut to what a model takes and put together again, in the pool and on an engine's lanes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.backends.tensorrt.engine import Engine
from quantkit.data import Portion
from quantkit.errors import ModelError
from quantkit.evaluation.evaluation_pass import choose_batch_size
from quantkit.evaluation.result import ModelKind
from quantkit.evaluation.runners import EngineRunner, indivisible_parts, join_outputs, split_batch
from quantkit.evaluation.subjects import BatchLimits, Subject, batch_limits, indivisible_batch
from quantkit.values import Array, Batch, ModelInput

X = {"x": 0}


def subject(limits: BatchLimits, engine: Any = None) -> Subject:
    inputs = (ModelInput("x", "float32", (None, 2)), ModelInput("k", "float32", (1,)))
    return Subject("it", ModelKind.ENGINE, Path("it"), "", 0, inputs, ("y",), limits, engine=engine)


def batch(samples: int) -> Batch:
    return {"x": np.arange(2.0 * samples, dtype=np.float32).reshape(samples, 2), "k": np.float32([3.0])}


def run(feeds: Batch) -> dict[str, Array]:
    return {"y": feeds["x"] * feeds["k"]}


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 11))
def test_parts_fit_the_limits_and_their_outputs_are_those_of_the_whole(samples: int, high: int, less: int) -> None:
    limits = BatchLimits(max(1, high - less), high, X)
    cut = list(split_batch(batch(samples), samples, limits))
    assert sum(count for _, count in cut) == samples
    for part, _ in cut:
        assert limits.low <= len(part["x"]) <= high
        assert part["k"].shape == (1,)
    whole = join_outputs([run(part) for part, _ in cut], [count for _, count in cut], samples, subject(limits))
    assert np.array_equal(whole["y"], run(batch(samples))["y"])


def test_a_batch_that_fits_passes_untouched() -> None:
    given = batch(5)
    ((part, count),) = split_batch(given, 5, BatchLimits(1, None, X))
    assert part is given
    assert count == 5


def test_outputs_without_rows_cannot_be_joined() -> None:
    limits = BatchLimits(2, 2, X)
    with pytest.raises(ModelError, match=r"it: output 'y' \[3\] does not have one row per sample") as caught:
        join_outputs([{"y": np.zeros(3)}] * 2, [2, 2], 4, subject(limits))
    assert "a multiple of it" in caught.value.remedy


@pytest.mark.parametrize(
    ("size", "shape", "whole"),
    [
        (1, (1, 5), None),
        (1, (256, 14), 1),
        (1, ("found", 4), 1),
        (1, (), 1),
        (1, None, 1),
        (4, (4, 5), None),
        (4, (12, 5), 4),
        (4, ("found", 4), 4),
        (4, None, None),
    ],
)
def test_a_fixed_batch_stays_whole_where_an_output_has_no_axis_of_samples(
    size: int, shape: tuple[int | str, ...] | None, whole: int | None
) -> None:
    assert indivisible_batch(BatchLimits(size, size, X), [(size, 3), shape]) == whole
    assert indivisible_batch(BatchLimits(1, None, X), [shape]) is None


@given(st.integers(1, 20), st.integers(1, 6))
def test_parts_of_the_whole_size_keep_rows_names_and_labels_together(samples: int, size: int) -> None:
    portion = Portion(batch(samples), tuple(map(str, range(samples))), samples, np.arange(samples))
    parts = list(indivisible_parts(portion, [replace(subject(BatchLimits(size, size, X)), whole=size)]))
    assert [part.samples for part in parts] == [size] * (samples // size)
    for part in parts:
        assert part.labels is not None
        assert [*map(int, part.names)] == [*part.labels] == [*(part.batch["x"][:, 0] / 2)]
    assert list(indivisible_parts(portion, [subject(BatchLimits(size, size, X))])) == [portion]


def test_limits_come_from_the_shapes() -> None:
    assert batch_limits([ModelInput("x", "float32", ("N", 3)), ModelInput("k", "float32", (1,))]) == BatchLimits(
        1, None, X
    )
    assert batch_limits([ModelInput("x", "float32", (8, 3))]) == BatchLimits(8, 8, X)
    mixed = [ModelInput("x", "float32", (8, 3)), ModelInput("k", "float32", (2, 3))]
    assert batch_limits(mixed) == BatchLimits(1, None, {})


@dataclass
class FakeLane:
    of: FakeEngine
    pending: list[Batch] = field(default_factory=list)

    def __enter__(self) -> FakeLane:
        self.of.open += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, t: TracebackType | None) -> None:
        self.of.open -= 1

    def submit(self, feeds: Batch) -> None:
        assert not self.pending, "a lane holds one batch at a time"
        self.pending.append(feeds)

    def outputs(self) -> dict[str, Array]:
        return run(self.pending.pop())


@dataclass
class FakeEngine:
    """An engine whose lanes compute when they are asked for their outputs."""

    open: int = 0

    def lane(self) -> FakeLane:
        return FakeLane(self)

    def run(self, batches: Any, *, streams: int) -> Any:
        assert streams > 0
        return (run(feeds) for feeds in batches)


@pytest.mark.parametrize("high", [None, 8, 3])
def test_an_engine_takes_a_batch_on_every_lane_and_gives_them_back_in_order(high: int | None) -> None:
    engine = FakeEngine()
    with ExitStack() as held:
        running = EngineRunner(subject(BatchLimits(1, high, X), cast(Engine, engine)), 2, held)
        assert engine.open == 3
        waiting = [running.submit(batch(n), n) for n in (4, 8, 2)]
        for n, outputs in zip((4, 8, 2), waiting, strict=True):
            assert np.array_equal(outputs()["y"], run(batch(n))["y"])
        assert np.array_equal(running.submit(batch(5), 5)()["y"], run(batch(5))["y"])
    assert engine.open == 0


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=4))
def test_batches_are_whole_for_one_model_and_no_larger_than_engines_take(models: list[tuple[int, bool]]) -> None:
    given = [BatchLimits(size if fixed else 1, size, X) for size, fixed in models]
    size = choose_batch_size([subject(limits) for limits in given])
    largest = max((size for size, fixed in models if fixed), default=1)
    assert size % largest == 0
    assert size <= max(largest, min([32, *(limits.high or 32 for limits in given if limits.low < (limits.high or 32))]))

"""Several threads count what one counts, to the last bit; whatever fails comes out once, and every thread ends."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantkit.backends.session import FakeSession, Session
from quantkit.calibration.counting.worker_pool import SliceTask, WorkerPool
from quantkit.calibration.memory_plan import slice_batch
from quantkit.errors import DataError
from quantkit.histogram import HistogramMode
from quantkit.statistics import Collector, Origin
from quantkit.values import Batch

Array = NDArray[Any]
WATCHDOG = 60.0
"""Seconds after which a hanging test ends the run with the stacks of all threads."""

MODES = list(HistogramMode)
TENSORS = ("x", "conv", "relu", "late")
VIEWS = [("x", 1), ("conv", 1), ("relu", -1), ("late", 1)]


@pytest.fixture(autouse=True)
def nothing_hangs_and_all_threads_end() -> Iterator[None]:
    before = set(threading.enumerate())
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    assert set(threading.enumerate()) <= before


def layers(feeds: Batch) -> Mapping[str, Array]:
    """A network of two layers; `late` is zero until a sample begins with a number above 3."""
    x = feeds["x"]
    conv = np.stack([x[:, 0] - 2 * x[:, 1], 7 * x[:, 1]], axis=1)
    gate = x[:, :1, :1] > 3
    return {"conv": conv, "relu": np.maximum(conv, 0)[:, :, 0], "late": np.where(gate, x, np.float32(0))}


def refused(tensors: Batch, task: SliceTask) -> None:
    raise DataError(f"{next(iter(tensors))!r} in part {task.batch} from sample {task.first}", remedy="")


def counted(
    batches: Iterable[Array],
    mode: HistogramMode,
    workers: int,
    size: int,
    run: Callable[[Batch], Mapping[str, Array]] = layers,
    met: Callable[[Batch, SliceTask], object] = refused,
) -> Collector:
    collector = Collector(TENSORS, VIEWS, mode)
    given_samples, progress = 0, list[int]()
    session = FakeSession(run, TENSORS[1:])
    with WorkerPool(session, collector, workers, advance=progress.append, unscalable=met) as crew:
        for number, x in enumerate(batches):
            crew.run(number, slice_batch({"x": x}, len(x), size))
            given_samples += len(x)
    assert sum(progress) == given_samples
    return collector


def same(left: Collector, right: Collector) -> bool:
    a, b = left.dump(), right.dump()
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def batches_of(seed: int, lengths: list[int], scale: float = 1.0, zeros: int = 0) -> list[Array]:
    """Batches of growing range, the first `zeros` of them zero throughout."""
    random = np.random.default_rng(seed)
    return [
        (scale * (i + 1) * (i >= zeros) * random.normal(size=(n, 2, 3))).astype(np.float32)
        for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("mode", MODES)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    scale=st.sampled_from([1e-30, 0.01, 1.0, 1e6]),
    zeros=st.integers(0, 3),
    workers=st.integers(1, 6),
    size=st.integers(1, 9),
)
@example(seed=0, lengths=[4, 4, 4], scale=1.0, zeros=2, workers=3, size=1)
def test_threads_and_slices_change_no_bit(
    mode: HistogramMode, seed: int, lengths: list[int], scale: float, zeros: int, workers: int, size: int
) -> None:
    batches = batches_of(seed, lengths, scale, zeros)
    assert same(counted(batches, mode, workers, size), counted(batches, mode, 1, 1 << 20))


@pytest.mark.parametrize("mode", MODES)
def test_what_is_counted_is_what_the_session_gave(mode: HistogramMode) -> None:
    batches = batches_of(1, [5, 3, 8])
    collector = counted(batches, mode, 3, 2)
    histograms = collector.histograms()
    x = np.concatenate(batches)
    every: dict[str, Array] = {"x": x, **layers({"x": x})}
    for name, values in every.items():
        assert histograms[name].elements == values.size
        assert (histograms[name].minimum, histograms[name].maximum) == (values.min(), values.max())
    origin = Origin(model="", data="", samples=16, histogram=mode, backend="", slice=2)
    for channels in collector.statistics({}, origin).channels:
        values = np.moveaxis(every[channels.tensor], channels.axis, 0).reshape(2, -1)
        np.testing.assert_allclose(channels.sum, values.sum(axis=1, dtype=np.float64), rtol=1e-12, atol=1e-12)
        assert channels.elements == values.shape[1]


def test_in_invariant_mode_batches_change_no_histogram_either() -> None:
    whole = np.concatenate(batches_of(2, [4, 5, 7], zeros=1))
    one = counted([whole], HistogramMode.INVARIANT, 2, 3)
    many = counted([whole[i : i + 3] for i in range(0, 16, 3)], HistogramMode.INVARIANT, 4, 2)
    assert same(one, many)


@pytest.mark.parametrize("mode", MODES)
def test_slow_and_quick_slices_in_any_order_change_no_bit(mode: HistogramMode) -> None:
    batches = batches_of(3, [6, 6, 6, 6], zeros=1)
    pauses = np.random.default_rng(0).uniform(0, 0.004, 1000).tolist()

    def dawdling(feeds: Batch) -> Mapping[str, Array]:
        time.sleep(pauses.pop())
        return layers(feeds)

    alone = counted(batches, mode, 1, 6)
    for _ in range(5):
        assert same(counted(batches, mode, 4, 1, dawdling), alone)


class BrokenError(Exception):
    """A bug in the session."""


def failing_at(number: int, error: BaseException) -> Callable[[Batch], Mapping[str, Array]]:
    lock, calls = threading.Lock(), iter(range(1_000_000))

    def run(feeds: Batch) -> Mapping[str, Array]:
        with lock:
            call = next(calls)
        if call == number:
            raise error
        return layers(feeds)

    return run


@pytest.mark.parametrize("error", [BrokenError("here"), MemoryError(), KeyboardInterrupt()])
@pytest.mark.parametrize("mode", MODES)
@given(number=st.integers(0, 17), workers=st.integers(1, 5), zeros=st.integers(0, 2))
def test_an_exception_in_the_session_comes_out_as_itself(
    mode: HistogramMode, error: BaseException, number: int, workers: int, zeros: int
) -> None:
    with pytest.raises(type(error)) as caught:
        counted(batches_of(4, [6, 6, 6], zeros=zeros), mode, workers, 1, failing_at(number, error))
    assert caught.value is error


def crowd(session: Session, tensors: Sequence[str], advance: Callable[[int], object] = abs) -> Collector:
    """Twenty batches of four samples, four slices each."""
    collector = Collector(tensors, [], HistogramMode.INVARIANT)
    with WorkerPool(session, collector, 3, advance=advance, unscalable=refused) as crew:
        for number in range(20):
            crew.run(number, slice_batch({"x": np.ones((4, 2, 3), np.float32)}, 4, 1))
        crew.wait()
    return collector


def test_a_session_that_opens_no_runner_and_a_progress_that_fails_come_out() -> None:
    class Closed:
        tensors = TENSORS[1:]
        notes = ()

        def runner(self) -> Any:
            raise BrokenError

        def resident(self) -> None:
            pass

    def advance(_: int) -> None:
        raise BrokenError

    with pytest.raises(BrokenError):
        crowd(Closed(), TENSORS)
    with pytest.raises(BrokenError):
        crowd(FakeSession(layers, TENSORS[1:]), TENSORS, advance)
    assert crowd(FakeSession(layers, TENSORS[1:]), TENSORS).histograms()["x"].elements == 20 * 4 * 6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", MODES)
@given(batch=st.integers(0, 4), sample=st.integers(0, 4), workers=st.integers(1, 5), size=st.integers(1, 5))
def test_a_tensor_without_a_scale_is_met_once_and_does_not_change_the_others(
    mode: HistogramMode, bad: float, batch: int, sample: int, workers: int, size: int
) -> None:
    batches = batches_of(6, [5] * 5, zeros=1)

    def run(feeds: Batch) -> Mapping[str, Array]:
        values = dict(layers(feeds))
        values["relu"] = np.where(feeds["x"][:, :, 0] == batches[batch][sample, :, 0], np.float32(bad), values["relu"])
        return values

    batches[batch][sample, :, 0] = 1.25 + batch
    with pytest.raises(DataError, match=rf"'relu' in part {batch} from sample {sample // size * size}\n"):
        counted(batches, mode, workers, size, run)
    met: list[str] = []
    found = counted(batches, mode, workers, size, run, lambda tensors, _: met.extend(tensors))
    assert met == ["relu"] == list(found.unscalable)
    alone = counted(
        batches, mode, workers, size, lambda feeds: {**layers(feeds), "relu": layers(feeds)["conv"][:, :, 0]}
    )
    expected = {name: h for name, h in alone.histograms().items() if name != "relu"}
    assert found.histograms().keys() == expected.keys()
    assert all(np.array_equal(h.counts, expected[name].counts) for name, h in found.histograms().items())


def test_the_tensor_that_is_named_is_the_first_with_nan() -> None:
    names = [f"t{i}" for i in range(40)]
    values = {name: np.full((1, 1), np.nan if i > 6 else 1.0, np.float32) for i, name in enumerate(names)}
    with pytest.raises(DataError, match="'t7' "):
        crowd(FakeSession(lambda _: values, names), ["x", *names])


def test_the_batch_that_is_named_is_the_first_with_nan() -> None:
    batches = batches_of(7, [3] * 6)
    for late in (2, 3, 5):
        batches[late][1, 0, 0] = np.nan
    for _ in range(20):
        with pytest.raises(DataError, match="in part 2 "):
            counted(batches, HistogramMode.TENSORRT, 5, 1)


def test_a_failure_of_the_data_ends_all_threads_and_stays_what_it_is() -> None:
    def batches() -> Iterator[Array]:
        yield from batches_of(8, [4, 4, 4])
        raise BrokenError

    for mode in MODES:
        with pytest.raises(BrokenError):
            counted(batches(), mode, 3, 1)


def test_no_batches_are_no_values() -> None:
    assert counted([], HistogramMode.TENSORRT, 3, 1).histograms()["x"].elements == 0

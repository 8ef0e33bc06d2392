"""A device that keeps its tensors counts what the host counts, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quantkit.backends.session import FakeSession, Session
from quantkit.calibration.counting.worker_pool import SliceTask, WorkerPool
from quantkit.calibration.memory_plan import slice_batch
from quantkit.histogram import HistogramMode
from quantkit.statistics import Collector
from quantkit.values import Array, Batch
from tests.support.resident_session import ResidentSession

MODES = list(HistogramMode)
TENSORS = ("x", "conv", "half", "late", "none")
VIEWS = [("x", 1), ("conv", 1), ("conv", 2), ("half", -1), ("late", 0), ("late", 1)]
Network = Callable[[Batch], Mapping[str, Array]]


def layers(feeds: Batch) -> Mapping[str, Array]:
    """Layers of several types; `late` is zero until a sample begins with a number above 3, `none` is empty."""
    x = feeds["x"]
    conv = np.stack([x[:, 0] - 2 * x[:, 1], 7 * x[:, 1]], axis=1)
    late = np.where(x[:, :1, :1] > 3, x, np.float32(0)).mean(axis=0)
    return {"conv": conv.astype(np.float64), "half": conv[:, 0].astype(np.float16), "late": late, "none": x[:, :0]}


def counted(
    session: Callable[[Network, tuple[str, ...]], Session],
    batches: Iterable[Array],
    mode: HistogramMode,
    workers: int = 1,
    size: int = 1 << 20,
    run: Network = layers,
    first_ranges: Mapping[str, float] | None = None,
) -> tuple[Collector, list[tuple[dict[str, list[float]], int, int]]]:
    """The collector of a run, and the tensors without a scale: their values, batch and first sample."""
    collector, met = Collector(TENSORS, VIEWS, mode, ("x", "half"), first_ranges), []

    def meet(tensors: Batch, task: SliceTask) -> None:
        met.append(({name: values.tolist() for name, values in tensors.items()}, task.batch, task.first))

    pool = WorkerPool(session(run, TENSORS[1:]), collector, workers, advance=lambda _: None, unscalable=meet)
    with pool as crew:
        for number, x in enumerate(batches):
            crew.run(number, slice_batch({"x": x}, len(x), size))
    return collector, met


def assert_same(left: Collector, right: Collector) -> None:
    a, b = left.dump(), right.dump()
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def batches_of(seed: int, lengths: list[int], scale: float = 1.0, zeros: int = 0) -> list[Array]:
    random = np.random.default_rng(seed)
    sizes = [(scale * (i + 1) * (i >= zeros), n) for i, n in enumerate(lengths)]
    return [(size * random.normal(size=(n, 2, 3))).astype(np.float32) for size, n in sizes]


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    scale=st.sampled_from([1e-30, 0.01, 1.0, 100.0]),
    zeros=st.integers(0, 2),
    workers=st.integers(1, 3),
    size=st.integers(2, 8),
)
@example(seed=0, lengths=[4, 4, 4], scale=1.0, zeros=2, workers=2, size=2)
def test_the_device_counts_what_the_host_counts(
    mode: HistogramMode, seed: int, lengths: list[int], scale: float, zeros: int, workers: int, size: int
) -> None:
    batches = batches_of(seed, lengths, scale, zeros)
    there, here = (counted(kind, batches, mode, workers, size)[0] for kind in (ResidentSession, FakeSession))
    assert_same(there, here)


def test_a_part_of_a_sequence_counts_on_the_grid_of_its_first_batch() -> None:
    grid = {"x": 0.7, "conv": 3.3, "half": 5.0}
    there, here = (
        counted(kind, batches_of(3, [3, 2]), HistogramMode.TENSORRT, first_ranges=grid)[0]
        for kind in (ResidentSession, FakeSession)
    )
    assert_same(there, here)
    assert {name: seam.low.tolist() for name, seam in there.seams().items()} == {
        name: seam.low.tolist() for name, seam in here.seams().items()
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -(2.0**101)])
def test_a_tensor_without_a_scale_is_met_once_with_its_values(mode: HistogramMode, bad: float) -> None:
    batches = batches_of(5, [4, 4, 4])
    batches[1][2, 1, 0] = bad
    batches[2][3, 0, 1] = bad

    def run(feeds: Batch) -> Mapping[str, Array]:
        with np.errstate(over="ignore", invalid="ignore"):
            return layers(feeds)

    there, here = (counted(kind, batches, mode, 1, 2, run) for kind in (ResidentSession, FakeSession))
    np.testing.assert_equal(there[1], here[1])
    assert there[0].unscalable == here[0].unscalable
    assert "x" in there[0].unscalable
    for name, histogram in here[0].histograms().items():
        np.testing.assert_array_equal(there[0].histograms()[name].counts, histogram.counts, err_msg=name)


def test_a_checkpoint_between_batches_holds_all_sums() -> None:
    batches = batches_of(7, [3, 3, 2])
    collector = Collector(TENSORS, VIEWS, HistogramMode.INVARIANT, ("x", "half"))
    states = []
    session = ResidentSession(layers, TENSORS[1:])
    with WorkerPool(session, collector, 2, advance=lambda _: None, unscalable=lambda *_: None) as crew:
        for number, x in enumerate(batches):
            crew.run(number, slice_batch({"x": x}, len(x), 2))
            crew.wait()
            states.append(collector.dump())
    for k in range(len(batches)):
        sequential, _ = counted(FakeSession, batches[: k + 1], HistogramMode.INVARIANT, size=2)
        for key, value in sequential.dump().items():
            np.testing.assert_array_equal(states[k][key], value, err_msg=key)

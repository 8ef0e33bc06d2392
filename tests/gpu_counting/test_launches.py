"""What the GPU counts is what the CPU counts: the kernels of counting.cu beside quantkit.kernel, on equal values."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantkit.gpu_counting.launches import Launcher
from quantkit.gpu_counting.tables import CHUNK, unit_layout
from quantkit.kernel import BINS, numpy_extremes, numpy_observe
from quantkit.statistics.collector import ChannelSums, as_float32
from quantkit.values import Array
from tests.gpu_counting.twin import as_device_tensor, twin_launcher

EDGES = [0.0, -0.0, 1.0, -1.0, 2.0**-126, 2.0**-149, 0.5, 1.5, 3.0, 1e-3, 65504.0, -3.4e38]


@pytest.fixture(scope="module")
def launcher() -> Launcher:
    return twin_launcher()


def activations(*shapes: tuple[int, ...], seed: int = 0) -> list[Array]:
    """Normal numbers, half of them zero, with values on the edges of bins."""
    random = np.random.default_rng(seed)
    made = []
    for k, shape in enumerate(shapes):
        x = random.normal(0, 2.0**k, shape).astype(np.float32)
        x[x < -0.5] = 0
        if x.size > 8:
            x.flat[:: max(1, x.size // 7)] = np.float32(2.0**k) * np.arange(len(x.flat[:: max(1, x.size // 7)]))
        made.append(x)
    return made


def numpy_counts(x: Array, range_: float) -> Array:
    """The counts of one array under a range that holds it."""
    counts, state = np.zeros(BINS + 1, np.int64), np.array([range_, np.inf, -np.inf])
    assert numpy_observe(as_float32(x), counts, state, False)
    return counts


def assert_counts_equal(launcher: Launcher, arrays: list[Array], ranges: list[float]) -> None:
    tensors = [as_device_tensor(x) for x in arrays]
    found = launcher.histograms(tensors, ranges)
    for x, range_, counts in zip(arrays, ranges, found, strict=True):
        np.testing.assert_array_equal(counts, numpy_counts(x, range_))


def test_counts_of_several_tensors_of_all_types(launcher: Launcher) -> None:
    arrays = activations((2, 3, 50, 7), (CHUNK + 13,), (5, 1), (1,), (0, 4))
    arrays += [arrays[0].astype(np.float16), arrays[0].astype(np.float64) * 1.0000001]
    most = [float(np.abs(as_float32(x)).max(initial=0)) for x in arrays]
    assert_counts_equal(launcher, arrays, most)  # TensorRT's range: the largest value lies on the edge
    assert_counts_equal(launcher, arrays, [2.0 * m for m in most])
    assert_counts_equal(launcher, arrays, [2.0 ** np.ceil(np.log2(m) + 1) if m else 0.0 for m in most])
    extremes, finite = launcher.extremes([as_device_tensor(x) for x in arrays])
    assert finite.all()
    for x, (low, high) in zip(arrays, extremes, strict=True):
        assert (low, high) == (numpy_extremes(as_float32(x))[:2] if x.size else (np.inf, -np.inf))


def test_a_tensor_without_a_range_is_left_out(launcher: Launcher) -> None:
    arrays = activations((40,), (50,))
    found = launcher.histograms([as_device_tensor(x) for x in arrays], [np.nan, 0.0])
    assert not found[0].any()
    assert found[1][0] == 50


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_what_is_not_finite_is_found(launcher: Launcher, bad: float, dtype: type) -> None:
    whole, broken = np.ones(1000, dtype), np.ones(1000, dtype)
    broken[777] = bad
    assert launcher.extremes([as_device_tensor(broken), as_device_tensor(whole)])[1].tolist() == [False, True]


def test_every_half_is_the_float_that_numpy_makes_of_it(launcher: Launcher) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    parts = [np.ascontiguousarray(part) for part in np.array_split(halves, 600)]
    extremes, _ = launcher.extremes([as_device_tensor(part) for part in parts])
    wanted = [[float(part.min()) + 0.0, float(part.max()) + 0.0] for part in parts]
    np.testing.assert_array_equal(extremes, wanted)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32, st.integers(1, 200), elements=st.sampled_from(EDGES) | st.floats(-(2.0**100), 2.0**100, width=32)
    ),
    st.integers(0, 3),
)
def test_counts_of_any_values(x: Array, doublings: int) -> None:
    most = float(np.abs(x).max())
    assert_counts_equal(twin_launcher(), [x], [most * 2.0**doublings])


VIEWS = [
    ((3, 5, 6, 7), 1, True),
    ((2, 40, 1, 3), 1, False),
    ((4, 9), 1, True),
    ((2, 11, 70), 2, True),
    ((2, 11, 70), -1, False),
    ((6, 4, 3), 0, True),
    ((6, 4, 3), 0, False),
    ((17,), 0, True),
    ((70, 300), 1, True),
    ((2, 3, 4, 1), 1, True),
]


def assert_sums_equal(launcher: Launcher, cases: list[tuple[Array, int, bool]]) -> None:
    views = [(as_device_tensor(x), unit_layout(x.shape, axis, batch_first=first)) for x, axis, first in cases]
    launcher.add_channels(views)
    for (x, axis, first), (ranges, sums) in zip(cases, launcher.take_channels(), strict=True):
        host = ChannelSums("x", axis, batch_first=first)
        host.add(as_float32(x))
        np.testing.assert_array_equal(ranges, host.ranges)
        assert not np.signbit(ranges[ranges == 0]).any()
        np.testing.assert_array_equal(sums, host.sums)


def test_channel_sums_of_every_layout(launcher: Launcher) -> None:
    arrays = activations(*(shape for shape, _, _ in VIEWS), seed=3)
    assert_sums_equal(launcher, [(x, axis, first) for x, (_, axis, first) in zip(arrays, VIEWS, strict=True)])
    assert_sums_equal(launcher, [(arrays[0].astype(np.float16), 1, True), (arrays[0].astype(np.float64), 1, True)])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_channel_sums_of_any_values(data: st.DataObject) -> None:
    shape, axis, first = data.draw(st.sampled_from(VIEWS[:8]))
    numbers = st.sampled_from(EDGES) | st.floats(-(2.0**60), 2.0**60, width=32)
    values = data.draw(st.lists(numbers, min_size=1, max_size=30))
    x = np.resize(np.array(values, np.float32), prod(shape)).reshape(shape)
    assert_sums_equal(twin_launcher(), [(x, axis, first)])


def test_tables_stay_while_tensors_keep_their_places(launcher: Launcher) -> None:
    x, y = activations((40,), (50,))
    for array in (x, y, y, x):
        most = float(np.abs(array).max())
        assert_counts_equal(launcher, [array], [most])
    x[...] = 1.0
    assert_counts_equal(launcher, [x], [1.0])

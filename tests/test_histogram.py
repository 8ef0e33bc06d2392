"""Histograms, as the collector fills them: values change them, batches only in `tensorrt` mode, nothing else does."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quantkit.histogram import BINS, Histogram, HistogramMode, merge_histograms
from quantkit.rules.entropy import Entropy
from quantkit.rules.minmax import MinMax
from quantkit.rules.mse import Mse
from quantkit.rules.percentile import Percentile
from quantkit.statistics import Collector

F32 = np.float32
INVARIANT, TENSORRT = HistogramMode.INVARIANT, HistogramMode.TENSORRT
countable = st.floats(-(2.0**99), 2.0**99, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0])
"""Values of tensors that have a scale; from 2^100 on they have none."""


@st.composite
def batches(draw: st.DrawFn, most: int = 4) -> list[np.ndarray]:
    """Batches [samples, values] of float32; some are zero throughout, some hold more than a kernel's block."""
    width = draw(st.sampled_from([1, 3, 700]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    palettes = st.lists(countable, min_size=1, max_size=5) | st.just([0.0])
    return [
        rng.choice(np.array(draw(palettes), F32), (draw(st.integers(1, 6)), width))
        for _ in range(draw(st.integers(1, most)))
    ]


def slices(draw: st.DrawFn, batch: np.ndarray) -> list[np.ndarray]:
    """Parts of a batch, in some order; a tensor can also be empty for a slice."""
    cuts = sorted(draw(st.lists(st.integers(0, len(batch)), max_size=4)))
    return draw(st.permutations(np.split(batch, cuts)))


@st.composite
def cut_batches(draw: st.DrawFn) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Batches, and the same batches in slices of any size and order."""
    whole = draw(batches())
    return whole, [slices(draw, batch) for batch in whole]


def collected(data: list[list[np.ndarray]], mode: HistogramMode) -> Histogram:
    """The histogram of batches that arrive in slices."""
    collector = Collector(["t"], [], mode)
    for parts in data:
        add_batch(collector, parts)
    return collector.histograms()["t"]


def add_batch(collector: Collector, parts: list[np.ndarray]) -> None:
    for part in parts:
        assert collector.count("t", part, whole=len(parts) == 1)
    if collector.end_batch():
        for part in reversed(parts):
            collector.recount("t", part)
        assert collector.end_batch() == ()


def bits(h: Histogram) -> tuple[bytes, bytes]:
    return h.counts.tobytes(), np.array([h.range, h.minimum, h.maximum]).tobytes()


def tensorrt_reference(data: list[np.ndarray]) -> tuple[list[int], float]:
    """Counts and range, step by step as measured of TensorRT: batch after batch, edge clamped, bins merged in pairs."""
    range_, counts = 0.0, [0] * BINS
    for batch in data:
        values = np.abs(batch.astype(np.float64)).ravel()
        if range_ == 0.0:
            range_ = float(values.max())
        while values.max() > range_:
            counts = [counts[2 * j] + counts[2 * j + 1] for j in range(BINS // 2)] + [0] * (BINS // 2)
            range_ *= 2.0
        for v in values:
            counts[min(int(v * BINS / range_), BINS - 1) if range_ else 0] += 1
    return counts, range_


# ── tensorrt mode ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(data=batches())
@example(data=[np.repeat(np.array([[1.0, 1.5]], F32), 1024, axis=1)])
@example(data=[np.array([[1.0]], F32), np.array([[1.0, 1.5]], F32), np.array([[2.0]], F32)])
def test_tensorrt_mode_is_what_was_measured_of_tensorrt(data: list[np.ndarray]) -> None:
    h = collected([[batch] for batch in data], TENSORRT)
    assert (h.counts.tolist(), h.range) == tensorrt_reference(data)


@given(data=cut_batches())
@example(data=([np.array([[1.0], [2.0]], F32)], [[np.array([[1.0]], F32), np.array([[2.0]], F32)]]))
@example(data=([np.array([[0.0], [2.0]], F32)], [[np.array([[0.0]], F32), np.array([[2.0]], F32)]]))
@example(data=([np.repeat(np.array([[1.0], [1.5]], F32), 1024, 1)], [list(np.repeat(F32([[[1]], [[1.5]]]), 1024, 2))]))
def test_tensorrt_mode_does_not_see_slices(data: tuple[list[np.ndarray], list[list[np.ndarray]]]) -> None:
    whole, cut = data
    assert bits(collected(cut, TENSORRT)) == bits(collected([[batch] for batch in whole], TENSORRT))


@given(data=cut_batches())
def test_the_range_is_that_of_the_first_batch_that_is_not_zero(data: tuple) -> None:
    peaks = [float(np.abs(batch).max()) for batch in data[0]]
    range_ = next((p for p in peaks if p > 0.0), 0.0)
    while range_ < max(peaks):
        range_ *= 2.0
    h = collected(data[1], TENSORRT)
    assert h.range == range_
    assert h.amax == max(peaks)


def test_batch_order_matters_in_tensorrt_mode_only() -> None:
    small, large = [np.array([[1.0]], F32)], [np.array([[1.5]], F32)]
    assert [collected(data, TENSORRT).range for data in ([small, large], [large, small])] == [2.0, 1.5]
    assert bits(collected([small, large], INVARIANT)) == bits(collected([large, small], INVARIANT))


# ── invariant mode ──────────────────────────────────────────────────────────────────────────────────────────────────


@given(data=cut_batches(), shuffle=st.randoms(use_true_random=False))
@example(data=([np.zeros((2, 1), F32)], [[F32([[0.0]]), F32([[-0.0]])]]), shuffle=None)
@example(data=([np.zeros((2, 1), F32)], [[F32([[-0.0]]), F32([[0.0]])]]), shuffle=None)
def test_invariant_mode_sees_neither_batches_nor_order(data: tuple, shuffle) -> None:
    parts = [part for batch in data[1] for part in batch]
    if shuffle:
        shuffle.shuffle(parts)
    values = np.concatenate([part.ravel() for part in parts])
    ordered = np.sort(np.where(values == 0, np.abs(values), values)).reshape(1, -1)
    at_once = bits(collected([[ordered]], INVARIANT))
    assert bits(collected(data[1], INVARIANT)) == at_once
    assert bits(collected([[part] for part in parts], INVARIANT)) == at_once
    assert (
        bits(functools.reduce(merge_histograms, (collected([[part]], INVARIANT) for part in parts if part.size)))
        == at_once
    )


@given(a=batches(2), b=batches(2), c=batches(2))
@example(a=[F32([[0.0]])], b=[F32([[-0.0]])], c=[F32([[1.0]])])
def test_merging_is_commutative_and_associative(a: list, b: list, c: list) -> None:
    x, y, z = (collected([part], INVARIANT) for part in (a, b, c))
    assert bits(merge_histograms(x, y)) == bits(merge_histograms(y, x))
    assert bits(merge_histograms(merge_histograms(x, y), z)) == bits(merge_histograms(x, merge_histograms(y, z)))


@given(data=batches())
def test_the_invariant_range_is_the_least_power_of_two_above(data: list[np.ndarray]) -> None:
    h = collected([data], INVARIANT)
    assert np.frexp(h.range)[0] in (0.0, 0.5)
    assert h.range / 2 <= h.amax < h.range or h.amax == h.range == 0.0


# ── both ────────────────────────────────────────────────────────────────────────────────────────────────────────────

modes = pytest.mark.parametrize("mode", HistogramMode)


@modes
@given(data=cut_batches())
def test_nothing_is_lost(mode: HistogramMode, data: tuple) -> None:
    h = collected(data[1], mode)
    values = np.concatenate([batch.ravel() for batch in data[0]])
    assert (h.elements, h.minimum, h.maximum) == (values.size, values.min(), values.max())
    assert h.amax == np.abs(values).max()
    assert h.width == h.range / BINS


@modes
@settings(max_examples=30)
@given(data=cut_batches())
def test_asking_never_changes(mode: HistogramMode, data: tuple) -> None:
    asked = Collector(["t"], [], mode)
    for parts in data[1]:
        add_batch(asked, parts)
        before = asked.histograms()["t"]
        kept = bits(before)
        for rule in (Entropy(), MinMax(), Percentile(), Mse()):
            assert rule.threshold(before) == rule.threshold(before)
        asked.dump()
    assert bits(asked.histograms()["t"]) == bits(collected(data[1], mode))
    assert bits(before) == kept
    with pytest.raises(ValueError, match="read-only"):
        before.counts[0] = 1


@modes
@given(data=cut_batches(), stop=st.integers(0, 4))
def test_a_collector_goes_on_from_its_dump(mode: HistogramMode, data: tuple, stop: int) -> None:
    first, second = Collector(["t"], [], mode), Collector(["t"], [], mode)
    for parts in data[1][:stop]:
        add_batch(first, parts)
    second.load(first.dump())
    for parts in data[1][stop:]:
        add_batch(second, parts)
    assert bits(second.histograms()["t"]) == bits(collected(data[1], mode))


@modes
def test_threads_count_what_one_thread_counts(mode: HistogramMode) -> None:
    rng = np.random.default_rng(0)
    data = [[(rng.normal(size=(4, 5000)) * 2.0**k).astype(F32) for _ in range(16)] for k in range(3)]
    collector = Collector(["t"], [], mode)
    with ThreadPoolExecutor(8) as pool:
        for parts in data:
            assert all(pool.map(lambda part: collector.count("t", part, whole=False), parts))
            if collector.end_batch():
                list(pool.map(lambda part: collector.recount("t", part), parts))
                collector.end_batch()
    assert bits(collector.histograms()["t"]) == bits(collected(data, mode))


@modes
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("whole", [True, False])
def test_values_that_are_not_finite_float32_are_refused(mode: HistogramMode, bad: float, whole: bool) -> None:
    collector = Collector(["t"], [], mode)
    assert collector.count("t", np.array([[1.0, 2.0]]), whole=True)
    assert not collector.count("t", np.array([[1.0, bad]]), whole=whole)
    assert not Collector(["t"], [], mode).count("t", np.array([[1.0, bad]]), whole=whole)


def test_a_tensor_without_values_has_an_empty_histogram() -> None:
    for mode in HistogramMode:
        h = Collector(["t"], [], mode).histograms()["t"]
        assert (h.elements, h.range, h.amax, h.width) == (0, 0.0, 0.0, 0.0)

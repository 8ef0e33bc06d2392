"""The entropy rule against TensorRT's search, written out in loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quantkit.histogram import BINS
from quantkit.rules.entropy import ENTROPY_LEVELS, Entropy, entropy_bins, level_edges
from tests.support.histograms import any_counts, histogram

F32 = np.float32


def divergences(counts: np.ndarray) -> dict[int, float]:
    """Candidate i → KL(P‖Q), for every candidate that TensorRT admits, word for word."""
    h = counts.astype(np.float64)
    h[0] = h[1]
    found = {}
    for i in range(128, 2048 + 1):
        q = h[:i].copy()
        p = q.copy()
        p[i - 1] += h[i:].sum()
        filled = q > 0
        if filled.sum() < 2 or (p[i - 1] > 0 and q[i - 1] == 0):
            continue
        level = np.arange(i) * 128 // i
        mass, share = np.bincount(level, weights=q), np.bincount(level, weights=filled)
        q[filled] = (mass[level] / np.maximum(share[level], 1))[filled]
        p, q = p[filled] / p.sum(), q[filled] / q.sum()
        found[i] = float((p * np.log(p / q)).sum())
    return found


@settings(max_examples=40)
@given(counts=any_counts)
@example(counts=np.ones(BINS, np.int64))
@example(counts=np.arange(BINS))
@example(counts=np.full(BINS, 2**50))
@example(counts=histogram({511: 9, 1023: 9, 1535: 9, 2047: 9}).counts)
@example(counts=histogram({0: 10**12, 1: 1, 2047: 1}).counts)
@example(counts=histogram({1: 10**15, 100: 3, 2000: 1}).counts)
def test_entropy_keeps_the_bins_of_the_least_divergence(counts: np.ndarray) -> None:
    found, kept = divergences(counts), entropy_bins(counts)
    least = max((i for i in found), key=lambda i: (-found[i], i), default=BINS)
    assert kept == least or found[kept] == pytest.approx(found[least], rel=0, abs=1e-12)


@given(counts=any_counts, exponent=st.integers(-120, 100))
def test_the_entropy_threshold_lies_half_a_bin_beyond(counts: np.ndarray, exponent: int) -> None:
    h = histogram(counts, 2.0**exponent)
    assert Entropy().threshold(h) == float(F32((entropy_bins(counts) + 0.5) * 2.0**exponent / BINS))


@given(counts=any_counts)
def test_zeros_do_not_matter_to_entropy(counts: np.ndarray) -> None:
    more = counts.copy()
    more[0] += 1_000_000
    assert entropy_bins(more) == entropy_bins(counts)


@pytest.mark.parametrize("bin_", [0, 1, 127, 128, 1024, 2047])
def test_a_constant_keeps_all_bins(bin_: int) -> None:
    counts = histogram({bin_: 77}).counts
    counts = counts + histogram({0: 5}).counts  # zeros beside the constant are no second value
    assert entropy_bins(counts) == (BINS if bin_ != 1 else entropy_bins(histogram({1: 77}).counts))


def test_of_equal_divergences_the_larger_candidate_is_taken() -> None:
    two = histogram({511: 100, 1023: 100}).counts
    assert divergences(two) == dict.fromkeys(range(1024, BINS + 1), 0.0)  # every candidate that holds both
    assert entropy_bins(two) == BINS


def test_the_words_that_are_known_of_tensorrt() -> None:
    """0.5 throughout; uniform pixels 0 … 255 over 255: the search ends at 2048, half a bin beyond the maximum."""
    assert Entropy().threshold(histogram({BINS - 1: 65536}, 0.5)) == 0.5 * (BINS + 0.5) / BINS
    pixels = np.bincount(np.minimum(np.arange(256) * BINS // 255, BINS - 1), minlength=BINS)
    assert Entropy().threshold(histogram(pixels, 1.0)) == (BINS + 0.5) / BINS


def test_levels_are_the_floor_of_j_times_128_over_i() -> None:
    candidates, edges = level_edges()
    assert candidates.tolist() == list(range(ENTROPY_LEVELS, BINS + 1))
    for i, bounds in zip(candidates.tolist(), edges, strict=True):
        level = np.repeat(np.arange(ENTROPY_LEVELS), np.diff(bounds))
        assert level.tolist() == (np.arange(i) * ENTROPY_LEVELS // i).tolist()

"""The squared error of 8-bit rounding against values in their bins, and the rules that minimize it: mse and best."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quantkit.histogram import BINS, Histogram
from quantkit.rules.best import Best
from quantkit.rules.minmax import MinMax
from quantkit.rules.mse import Mse
from quantkit.rules.squared_error import EdgeErrors, rounding_errors, squared_error, squared_errors
from tests.support.histograms import any_counts, histogram, smooth

F32 = np.float32


def exhaustive_error(counts: np.ndarray, edge: int, samples: int = 64) -> float:
    """Squared error, in bins², of clipping at `edge` and rounding to 127 steps, on values spread over every bin."""
    filled = np.flatnonzero(counts)
    x = filled[:, None] + (np.arange(samples) + 0.5) / samples
    step = edge / 127
    error = x - np.clip(np.rint(x / step), 0, 127) * step
    return float(counts[filled] @ (error * error).mean(axis=1))


@given(counts=any_counts, edge=st.integers(1, BINS))
def test_the_squared_error_is_that_of_quantizing_the_values(counts: np.ndarray, edge: int) -> None:
    expected = exhaustive_error(counts, edge, 4096)
    assert squared_errors(counts, np.array([edge]))[0] == pytest.approx(expected, rel=1e-3)


@given(asked=st.lists(st.lists(st.integers(1, BINS), min_size=1, max_size=5), max_size=4))
@settings(max_examples=20)
def test_rounding_errors_of_edges_do_not_depend_on_those_before(asked: list[list[int]]) -> None:
    errors = EdgeErrors(BINS)
    for edges in map(np.array, asked):
        np.testing.assert_array_equal(errors.rows(edges), rounding_errors(edges, edges.max()))


@given(counts=any_counts)
@example(counts=histogram({800: 1000, 1000: 1}).counts)
def test_mse_is_within_two_percent_of_the_best_edge(counts: np.ndarray) -> None:
    h = histogram(counts)
    last = math.ceil(h.amax / h.width)
    errors = np.concatenate([squared_errors(counts, e) for e in np.array_split(np.arange(1, last + 1), last // 64 + 1)])
    chosen = round(Mse().threshold(h) / h.width + 0.25)  # amax stands for the edge of its bin
    assert errors[chosen - 1] <= 1.02 * errors.min()


@given(counts=any_counts, exponent=st.integers(-120, 100))
def test_mse_is_positive_and_never_above_the_maximum(counts: np.ndarray, exponent: int) -> None:
    h = histogram(counts, 2.0**exponent)
    assert 0.0 < Mse().threshold(h) <= h.amax


def error_on_values(counts: np.ndarray, width: float, threshold: float, samples: int) -> float:
    """Mean squared error of clipping and rounding `samples` values spread over every bin."""
    filled = np.flatnonzero(counts)
    x = np.repeat(filled[:, None], samples, axis=1) * width + (np.arange(samples) + 0.5) * (width / samples)
    weights = np.repeat(counts[filled, None] / samples, samples, axis=1)
    steps = np.round(x / (threshold / 127.0)).clip(-128, 127)
    return float(np.average((x - steps * (threshold / 127.0)) ** 2, weights=weights))


@given(counts=any_counts, share=st.floats(0.01, 3.0), exponent=st.integers(-60, 60))
def test_the_squared_error_of_a_threshold_is_that_of_16_values_in_each_bin(
    counts: np.ndarray, share: float, exponent: int
) -> None:
    """For any threshold: between edges, and beyond the range."""
    h = histogram(counts, 2.0**exponent)
    expected = error_on_values(counts, h.width, share * h.range, 16)
    assert squared_error(h, share * h.range) == pytest.approx(expected, rel=1e-9)


@given(counts=smooth(), share=st.floats(0.2, 1.5), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_the_squared_error_is_about_that_of_values_anywhere_in_their_bins(
    counts: np.ndarray, share: float, seed: int
) -> None:
    """Its root differs by the width of a bin at most: |x − round(x)| changes no faster than x."""
    h = histogram(counts, 8.0)
    bins = np.repeat(np.arange(BINS), np.minimum(counts, 2000))
    h = histogram(np.bincount(bins, minlength=BINS), 8.0)
    x = (bins + np.random.default_rng(seed).random(bins.size)) * h.width
    step = share * 8.0 / 127
    true = np.sqrt(np.mean((x - np.clip(np.round(x / step), -128, 127) * step) ** 2))
    assert abs(np.sqrt(squared_error(h, share * 8.0)) - true) <= h.width * (1 + 1e-9)


@given(counts=any_counts, edge=st.integers(1, BINS))
def test_both_squared_errors_agree_at_edges(counts: np.ndarray, edge: int) -> None:
    h = histogram(counts)
    whole = squared_errors(counts, np.array([edge]))[0] / counts.sum()
    step = edge / 127
    assert squared_error(h, float(edge)) == pytest.approx(whole, rel=1e-9, abs=max(1.0, step) / 500)


@given(counts=any_counts, exponent=st.integers(-60, 60))
@settings(max_examples=30)
def test_the_best_rule_is_never_worse_than_another(counts: np.ndarray, exponent: int) -> None:
    """By the error on values, which is computed here."""
    h = histogram(counts, 2.0**exponent)
    rule, threshold = Best().choice(h)
    assert threshold == Best().threshold(h) == rule.threshold(h)
    least = error_on_values(counts, h.width, threshold, 16)
    for other in Best().rules:
        assert least <= error_on_values(counts, h.width, other.threshold(h), 16) * (1 + 1e-9), other.name


@given(counts=any_counts)
def test_the_best_of_one_rule_is_that_rule_and_of_equals_the_first(counts: np.ndarray) -> None:
    h = histogram(counts)
    assert Best((MinMax(),)).choice(h) == (MinMax(), h.amax)
    twins = (MinMax(), Twin())
    assert Best(twins).choice(h)[0] is twins[0]
    assert Best(twins[::-1]).choice(h)[0] is twins[1]


class Twin(MinMax):
    """The same thresholds by another rule."""


@given(counts=any_counts, exponent=st.integers(-100, 100))
@settings(max_examples=30)
def test_the_best_threshold_scales_with_the_values(counts: np.ndarray, exponent: int) -> None:
    threshold = Best().threshold(histogram(counts, float(BINS)))
    assert threshold == float(F32(threshold))
    assert Best().threshold(histogram(counts, BINS * 2.0**exponent)) == threshold * 2.0**exponent


def test_a_threshold_of_zero_is_the_worst_but_for_zeros() -> None:
    assert squared_error(histogram({5: 3}), 0.0) == math.inf
    assert squared_error(Histogram(histogram({0: 9}).counts, 0.0, 0.0, 0.0), 0.0) == 0.0
    assert squared_error(Histogram(np.zeros(BINS, np.int64), 0.0, 0.0, 0.0), 1.0) == 0.0
    assert Best().threshold(Histogram(histogram({0: 9}).counts, 0.0, 0.0, 0.0)) == 0.0

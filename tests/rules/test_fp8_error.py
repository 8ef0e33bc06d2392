"""The squared error of FP8 over a histogram against values that are rounded, and the rules that minimize it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quantkit.errors import UsageError
from quantkit.histogram import BINS, Histogram
from quantkit.numerics import round_to_e4m3
from quantkit.rules import parse_rule, rule_in_type
from quantkit.rules.fp8_error import error_primitive, fp8_squared_error, fp8_squared_errors, least_fp8_threshold
from quantkit.values import QuantizedType
from tests.support.histograms import any_counts, histogram

FP8 = QuantizedType.FP8
SPREAD = 4096


def error_on_values(h: Histogram, threshold: float) -> float:
    """Mean squared error of rounding values that are spread over every bin, in float64 but for the rounding."""
    filled = np.flatnonzero(h.counts)
    x = (filled[:, None] + (np.arange(SPREAD) + 0.5) / SPREAD) * h.width
    scale = threshold / 448
    error = x - round_to_e4m3(x / scale) * scale
    return float(h.counts[filled] @ np.square(error).mean(axis=1)) / h.elements


@settings(max_examples=40)
@given(counts=any_counts, octaves=st.floats(-3, 6))
def test_the_squared_error_is_that_of_quantizing_the_values(counts: np.ndarray, octaves: float) -> None:
    h = histogram(counts)
    threshold = h.amax * 2.0**octaves
    # the values of a bin are taken at 4096 places, which misses the borders of steps that a bin holds
    assert fp8_squared_error(h, threshold) == pytest.approx(
        error_on_values(h, threshold), rel=0.02, abs=1e-9 * h.amax**2
    )


@given(low=st.floats(0, 600), high=st.floats(0, 600))
def test_the_primitive_grows(low: float, high: float) -> None:
    first, second = error_primitive(np.array(sorted((low, high))))
    assert second - first >= -1e-12


@given(exponent=st.integers(-5, 8))
def test_a_binade_holds_eight_steps_of_its_own(exponent: int) -> None:
    ends = error_primitive(np.array([2.0**exponent, min(2.0 ** (exponent + 1), 448.0)]))
    step = 2.0 ** (exponent - 3)
    steps = 8 if exponent < 8 else 6  # 256 … 448
    assert ends[1] - ends[0] == pytest.approx(steps * step**3 / 12)


@settings(max_examples=25)
@given(counts=any_counts)
@example(counts=histogram({509: 511, 620: 1}).counts)
def test_mse_finds_no_worse_than_any_sixteenth_of_an_octave(counts: np.ndarray) -> None:
    h = histogram(counts)
    errors = fp8_squared_errors(h, h.amax * np.exp2(np.arange(-16, 16) / 16))
    # the threshold is a float32: where values lie on the border of two steps, that costs 1e-5 of a small error
    assert fp8_squared_error(h, least_fp8_threshold(h)) <= errors.min() * (1 + 1e-4) + 1e-12 * h.amax**2


@settings(max_examples=25)
@given(counts=any_counts, exponent=st.integers(-100, 100))
def test_the_threshold_scales_with_the_tensor(counts: np.ndarray, exponent: int) -> None:
    one, other = least_fp8_threshold(histogram(counts)), least_fp8_threshold(histogram(counts, BINS * 2.0**exponent))
    assert other == pytest.approx(one * 2.0**exponent, rel=1e-6)


def test_a_tensor_that_was_zero_has_no_threshold() -> None:
    assert least_fp8_threshold(Histogram(np.zeros(BINS, np.int64), 0.0, 0.0, 0.0)) == 0.0


@pytest.mark.parametrize("name", ["minmax", "percentile:99.9"])
def test_rules_of_values_are_the_same_in_fp8(name: str) -> None:
    rule = parse_rule(name)
    assert rule_in_type(rule, FP8) is rule


@settings(max_examples=25)
@given(counts=any_counts)
def test_best_is_no_worse_than_minmax(counts: np.ndarray) -> None:
    h = histogram(counts)
    best = rule_in_type(parse_rule("best"), FP8)
    assert fp8_squared_error(h, best.threshold(h)) <= fp8_squared_error(h, h.amax) + 1e-12 * h.amax**2


def test_entropy_is_about_int8() -> None:
    with pytest.raises(UsageError, match=r"(?s)the rule entropy counts the levels of INT8.*use one of wmse, mse, best"):
        rule_in_type(parse_rule("entropy"), FP8)
    assert rule_in_type(parse_rule("entropy"), QuantizedType.INT8) == parse_rule("entropy")

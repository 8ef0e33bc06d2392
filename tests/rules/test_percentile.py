"""Percentile against a cumulative share in exact fractions; minmax against the largest magnitude."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantkit.errors import UsageError
from quantkit.histogram import BINS, Histogram
from quantkit.rules.minmax import MinMax
from quantkit.rules.percentile import Percentile
from tests.support.histograms import any_counts, histogram

F32 = np.float32


keeps = st.floats(0.0, 100.0, exclude_min=True) | st.sampled_from([50.0, 99.0, 99.9, 99.99, 99.999, 100.0])


def percentile_bin(counts: np.ndarray, quantile: float) -> int:
    """First bin whose cumulative share reaches the quantile."""
    total, below = sum(counts.tolist()), 0
    for b, count in enumerate(counts.tolist()):
        below += count
        if below / total >= quantile:
            return b
    raise AssertionError


@given(counts=any_counts, keep=keeps, exponent=st.integers(-120, 100))
@example(counts=histogram({0: 9999, 2047: 1}).counts, keep=99.99, exponent=0)
@example(counts=histogram({0: 9998, 2047: 2}).counts, keep=99.99, exponent=0)
def test_percentile_is_the_upper_edge_where_the_share_is_reached(
    counts: np.ndarray, keep: float, exponent: int
) -> None:
    h = histogram(counts, 2.0**exponent)
    quantile = float(Fraction(repr(keep)) / 100)  # 99.99 means the double 0.9999
    edge = (percentile_bin(counts, quantile) + 1) * 2.0**exponent / BINS
    assert Percentile(keep).threshold(h) == float(F32(edge))


@given(counts=any_counts, a=keeps, b=keeps)
def test_percentile_is_monotone_and_ends_in_the_bin_of_the_maximum(counts: np.ndarray, a: float, b: float) -> None:
    h = histogram(counts)
    low, high, all_ = (Percentile(keep).threshold(h) for keep in (min(a, b), max(a, b), 100.0))
    assert 0.0 < low <= high <= all_
    assert h.amax <= all_ <= h.amax + h.width


@pytest.mark.parametrize("keep", [0.0, -1.0, 100.1, math.nan, math.inf])
def test_a_percentile_beyond_0_to_100_is_refused(keep: float) -> None:
    with pytest.raises(UsageError, match="percentile"):
        Percentile(keep)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(ends=st.tuples(finite, finite).map(sorted))
def test_minmax_is_the_largest_magnitude(ends: list[float]) -> None:
    assert MinMax().threshold(Histogram(np.zeros(BINS, np.int64), 0.0, *ends)) == max(map(abs, ends))

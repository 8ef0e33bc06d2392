"""The importance of values by their size, and the rule that uses it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.histogram import ChannelImportance, HistogramMode
from quantkit.rules.wmse import WeightedMse
from quantkit.statistics import histogram_of
from tests.support.histograms import any_counts, histogram

positive = st.floats(2.0**-20, 2.0**20, width=32)


@st.composite
def importances(draw: st.DrawFn) -> ChannelImportance:
    channels = draw(st.integers(1, 6))
    each = st.lists(positive, min_size=channels, max_size=channels)
    gain, largest = np.array(draw(each), np.float32), np.array(draw(each), np.float32)
    elements = draw(st.integers(1, 2**40))
    power = np.square(largest, dtype=np.float64) * draw(st.floats(1.0 / elements, 1.0))
    return ChannelImportance(gain, largest, power, elements)


@given(importance=importances(), share=st.floats(0.0, 1.0))
def test_importance_lies_between_the_least_and_the_largest_gain(importance: ChannelImportance, share: float) -> None:
    most = float(importance.largest.max())
    (found,) = importance.of_sizes(most, np.array([share * most]))
    assert importance.gain.min() * (1 - 1e-6) <= found <= importance.gain.max() * (1 + 1e-6)


@given(counts=any_counts, importance=importances(), gain=positive)
def test_equal_gains_make_every_value_count_the_same(
    counts: np.ndarray, importance: ChannelImportance, gain: float
) -> None:
    equal = replace(importance, gain=np.full_like(importance.gain, gain))
    h = histogram(counts)
    np.testing.assert_allclose(replace(h, importance=equal).weighted_counts, gain * h.counts, rtol=1e-6)


@given(counts=any_counts, importance=importances())
def test_the_largest_values_have_the_gain_of_the_only_channel_that_reaches_them(
    counts: np.ndarray, importance: ChannelImportance
) -> None:
    order = np.argsort(importance.largest)
    top = order[-1]
    alone = replace(importance, largest=np.where(np.arange(len(order)) == top, importance.largest.max() * 4, 1e-30))
    most = float(alone.largest.max())
    assert alone.of_sizes(most, np.array([most]))[0] == pytest.approx(float(importance.gain[top]), rel=1e-5)


def two_channels(gain_of_large: float) -> tuple[float, float]:
    """Thresholds by `wmse` without and with gains, of a channel of size 1 and one of size 50."""
    rng = np.random.default_rng(7)
    x = rng.laplace(size=(2, 20_000)).astype(np.float32) * np.array([[1.0], [50.0]], np.float32)
    h = histogram_of(x, HistogramMode.INVARIANT)
    assert h is not None
    gain = np.array([1.0, gain_of_large], np.float32)
    figures = ChannelImportance(gain, np.abs(x).max(axis=1), np.square(x, dtype=np.float64).mean(axis=1), x.shape[1])
    return WeightedMse().threshold(h), WeightedMse().threshold(replace(h, importance=figures))


def test_a_large_channel_behind_which_weights_are_small_is_clipped_for_the_others() -> None:
    plain, small = two_channels(0.001)
    assert small < 0.8 * plain
    assert two_channels(1.0)[1] == plain
    assert two_channels(0.5)[1] == plain, "what is a little better by the weights alone is not followed"
    assert two_channels(0.0)[1] < small

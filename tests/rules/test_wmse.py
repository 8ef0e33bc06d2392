"""The rule `wmse` with few and with many samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quantkit.rules.minmax import MinMax
from quantkit.rules.mse import Mse
from quantkit.rules.wmse import WeightedMse
from tests.support.histograms import histogram, smooth


def threshold(counts: np.ndarray, samples: int | None) -> float:
    return WeightedMse().threshold(replace(histogram(counts), samples=samples))


@given(counts=smooth(), samples=st.integers(1, 10_000), more=st.integers(2, 100))
def test_more_samples_of_the_same_distribution_never_widen_a_threshold(
    counts: np.ndarray, samples: int, more: int
) -> None:
    """Up to a percent: not every edge is tried."""
    assert threshold(counts, samples * more) <= 1.01 * threshold(counts, samples)


@given(counts=smooth())
def test_thresholds_lie_between_those_of_mse_and_minmax(counts: np.ndarray) -> None:
    h = histogram(counts)
    one, many = threshold(counts, 1), threshold(counts, 10**12)
    assert many == threshold(counts, None)
    assert Mse().threshold(h) / 1.01 <= many <= one * 1.01 <= MinMax().threshold(h) * 1.01

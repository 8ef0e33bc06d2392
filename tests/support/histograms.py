"""Histograms for tests: of common distributions, of a few filled bins, and of random counts."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from quantkit.histogram import BINS, Histogram


def histogram(counts: np.ndarray | dict[int, int], range_: float = BINS) -> Histogram:
    """A histogram whose values lie in the middle of their bins."""
    if isinstance(counts, dict):
        counts = np.bincount(list(counts), weights=list(counts.values()), minlength=BINS)
    filled = np.flatnonzero(counts)
    amax = (filled[-1] + 0.5) * range_ / BINS if filled.size else 0.0
    return Histogram(counts.astype(np.int64), range_ if amax else 0.0, -amax, 0.0)


@st.composite
def smooth(draw: st.DrawFn) -> np.ndarray:
    """Counts as activations have them: |x| of a common distribution, with zeros and outliers in some."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.sampled_from([300, 5_000, 200_000]))
    kinds = [rng.normal, rng.laplace, rng.standard_exponential, rng.lognormal, rng.uniform]
    x = np.abs(draw(st.sampled_from(kinds))(size=n)) ** draw(st.sampled_from([1.0, 1.0, 0.5, 2.0, 3.0]))
    x[rng.random(n) < draw(st.sampled_from([0.0, 0.0, 0.5, 0.95]))] = 0.0
    if draw(st.booleans()):
        x[: draw(st.integers(1, 20))] *= draw(st.floats(1.0, 50.0))
    room = x.max() * draw(st.floats(1.0, 2.0)) + 1e-30
    return np.bincount((x * BINS / room).astype(int).clip(0, BINS - 1), minlength=BINS)


spikes = st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 2**40), min_size=1, max_size=8).map(
    lambda filled: histogram(filled).counts
)


@st.composite
def rough(draw: st.DrawFn) -> np.ndarray:
    """Random counts, many of them zero, on a random stretch of bins."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = rng.integers(0, draw(st.sampled_from([2, 5, 1000])), BINS) * (rng.random(BINS) < draw(st.floats(0.01, 1)))
    low, high = sorted(draw(st.tuples(st.integers(0, BINS), st.integers(0, BINS))))
    counts[:low] = counts[high:] = 0
    counts[draw(st.integers(0, BINS - 1))] += 1
    return counts


any_counts = smooth() | spikes | rough()

"""The paired bootstrap: samples are drawn repeatedly with replacement, both scores of a sample together.

    mean of differences       bias-corrected and accelerated (BCa); the jackknife of a mean is the differences
    value of the whole set    percentiles of value(reference) − value(candidate) for the same samples

p is the level at which the interval would touch zero, so p < 0.05 if the 95 % interval excludes zero. Seeded: the same
scores give the same interval. Drawn in chunks, so memory does not grow with the replicates.

Source: Efron, Better bootstrap confidence intervals, J. Am. Stat. Assoc. 82 (1987).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NORMAL = NormalDist()
Z = NORMAL.inv_cdf(0.975)
SEED = 1987
REPLICATES = 5_000
SET_REPLICATES = 1_000
DRAWS = 100_000_000
"""Total samples drawn: means of more than DRAWS/REPLICATES samples use fewer replicates, at least SET_REPLICATES."""
CHUNK = 1 << 20
"""Samples drawn at once: 16 MiB of indices and scores."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """A 95 % interval, p, and the number of replicates behind them."""

    low: float
    high: float
    p: float
    replicates: int


def bootstrap_mean(differences: NDArray[np.float64]) -> Bootstrap:
    """Return the BCa interval of the mean of paired differences [N], N ≥ 2, not all equal."""
    mean = float(differences.mean())
    centred = differences - mean
    acceleration = float(np.sum(centred**3) / (6.0 * np.sum(centred**2) ** 1.5))
    return bca_interval(resample_means(differences), mean, acceleration)


def bootstrap_set(figure: Callable[[NDArray[np.intp]], float], samples: int) -> Bootstrap:
    """Return the percentile interval of a value of the whole set, which `figure` computes for indices [N].

    Draws with a value that is not finite (no object among the samples) are left out. If none remains, the interval is
    NaN.
    """
    random = np.random.default_rng(SEED)
    return percentile_interval(
        np.array([figure(random.integers(0, samples, samples)) for _ in range(SET_REPLICATES)], np.float64)
    )


def replicate_set(
    figures: Callable[[NDArray[np.float64]], NDArray[np.float64]], samples: int, replicates: int | None = None
) -> NDArray[np.float64]:
    """Return figures [R, P] of the same draws as those of `bootstrap_set`. figures: counts of samples [R, N] → [R, P].

    replicates: R; None for SET_REPLICATES.
    """
    random, count = np.random.default_rng(SEED), replicates or SET_REPLICATES
    rows = max(1, CHUNK // samples)
    parts = []
    for start in range(0, count, rows):
        drawn = [random.integers(0, samples, samples) for _ in range(min(rows, count - start))]
        parts.append(figures(np.stack([np.bincount(d, minlength=samples) for d in drawn]).astype(np.float64)))
    return np.concatenate(parts)


def percentile_interval(found: NDArray[np.float64]) -> Bootstrap:
    """Return the percentile interval of replicates [R]; NaN if none of them is finite."""
    found = found[np.isfinite(found)]
    return bca_interval(found, None, 0.0) if found.size else Bootstrap(math.nan, math.nan, math.nan, 0)


def resample_means(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each replicate, drawn with replacement."""
    size = differences.size
    count = min(REPLICATES, max(SET_REPLICATES, DRAWS // size))
    rows = max(1, CHUNK // size)
    random = np.random.default_rng(SEED)
    parts = [
        differences[random.integers(0, size, (min(rows, count - start), size))].mean(axis=1)
        for start in range(0, count, rows)
    ]
    return np.concatenate(parts)


def bca_interval(found: NDArray[np.float64], value: float | None, acceleration: float) -> Bootstrap:
    """Return interval and p from replicates. value: the point estimate to center on; None for plain percentiles."""
    bias = 0.0 if value is None else NORMAL.inv_cdf(share_below(found, value))

    def level(z: float) -> float:
        return NORMAL.cdf(bias + (bias + z) / (1.0 - acceleration * (bias + z)))

    low, high = np.quantile(found, [level(-Z), level(Z)])
    away = NORMAL.inv_cdf(share_below(found, 0.0)) - bias
    z = away / (1.0 + acceleration * away) - bias
    return Bootstrap(float(low), float(high), 2.0 * NORMAL.cdf(-abs(z)), found.size)


def share_below(found: NDArray[np.float64], value: float) -> float:
    """Return the share of replicates below a value, plus half of those equal to it; never exactly 0 or 1."""
    share = float(np.mean(found < value) + 0.5 * np.mean(found == value))
    edge = 0.5 / found.size
    return min(max(share, edge), 1.0 - edge)

"""Two models on the same samples: how much the candidate loses, with an interval and a test.

Scores of 0 and 1: only samples count for which one model is right and the other wrong, b that the candidate loses and
c that it gains, of n.

    p          McNemar's test, mid-p: 2·P(X ≤ min(b, c)) − P(X = min(b, c)), X ~ binomial(b + c, ½)
    interval   Bonett and Price: d ± 1.96·√((p₁ + p₂ − d²)/(n + 2)), p₁ = (b+1)/(n+2), p₂ = (c+1)/(n+2), d = p₁ − p₂

n = 10,000, 5 … 100 expected changes, half to all of them losses (exact, summed over every b and c):

    interval       coverage: least   mean             loss overstated, understated: at most   width (Wald = 1)
    Wald           0.870             0.944            0.027   0.125                           1
    Agresti-Min    0.921             0.953            0.025   0.077                           1.03
    Tango          0.931             0.950            0.053   0.027                           1.09
    Newcombe 10    0.941             0.958 … 0.969    0.024   0.047                           1.06 … 1.15
    Bonett-Price   0.944             0.960            0.024   0.050                           1.06

Bonett-Price has the best worst case, is the shortest of those that hold, and needs only b, c and n (Newcombe's depends
on the accuracy as well). The price: if nearly all changes are losses, it understates the loss in up to 5 % instead of
2.5 % of cases.
The mid-p test rejects a true null hypothesis in 2.4 % (5 changes) to 4.9 % (100) of cases at 5 %; the exact test in
0.9 to 4.0 %, which hides losses; the χ² test in up to 5.2 %.

Other scores: the paired bootstrap (see `bootstrap`).

Sources: McNemar, Psychometrika 12 (1947); Fagerland, Lydersen, Laake, BMC Med. Res. Methodol. 13:91 (2013) for mid-p;
Bonett, Price, J. Educ. Behav. Stat. 37 (2012); Newcombe, Stat. Med. 17 (1998) 2635; Tango, Stat. Med. 17 (1998) 891;
Agresti, Min, Stat. Med. 24 (2005).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError
from quantkit.evaluation import bootstrap
from quantkit.evaluation.result import IntervalMethod, MetricDifference
from quantkit.metrics.metric import MetricResult
from quantkit.values import Array

Replicates = tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]
"""Bootstrapped values of reference and candidate [R, …], of the same draws; the first column counts."""


def paired_difference(
    reference: MetricResult,
    candidate: MetricResult,
    share: bool,
    higher_is_better: bool,
    replicates: Replicates = (None, None),
) -> MetricDifference:
    """Return reference − candidate with a paired 95 % interval, with a loss positive; in percentage points if `share`.

    If only the values are known (no scores of samples, no `resample`, or a single sample), interval and p are NaN.
    DataError if the two were not scored on the same samples.
    """
    sign = 1.0 if higher_is_better else -1.0
    points = 100.0 if share else 1.0
    if reference.samples != candidate.samples:
        raise DataError(
            f"the reference has scores for {reference.samples} samples, the candidate for {candidate.samples}",
            remedy="score both on the same samples",
        )
    if reference.per_sample is not None and candidate.per_sample is not None:
        losses = (reference.per_sample - candidate.per_sample) * sign
        binary = is_binary(reference.per_sample) and is_binary(candidate.per_sample)
        found = binary_difference(losses) if binary else score_difference(losses)
    else:
        found = set_difference(reference, candidate, sign, replicates)
    value, low, high = points * found.value, points * found.low, points * found.high
    return replace(found, value=value, low=low, high=high)


def binary_difference(losses: NDArray[np.float64]) -> MetricDifference:
    """Return the difference of scores that are 0 or 1; losses [N] are −1, 0 or 1."""
    lost, gained = int(np.sum(losses > 0)), int(np.sum(losses < 0))
    low, high = bonett_price_interval(lost, gained, losses.size)
    method = IntervalMethod.CHANGED_SAMPLES
    return MetricDifference((lost - gained) / losses.size, low, high, mcnemar(lost, gained), gained, lost, method)


def score_difference(losses: NDArray[np.float64]) -> MetricDifference:
    """Return the difference of any other scores, from their paired differences [N]."""
    lost, gained, value = int(np.sum(losses > 0)), int(np.sum(losses < 0)), float(losses.mean())
    if not losses.any():
        return MetricDifference(0.0, 0.0, 0.0, 1.0, 0, 0, IntervalMethod.EQUAL_SCORES)
    if np.ptp(losses) == 0.0:
        return MetricDifference(value, math.nan, math.nan, math.nan, gained, lost, IntervalMethod.EQUAL_CHANGES)
    found = bootstrap.bootstrap_mean(losses)
    method = IntervalMethod.BOOTSTRAP_MEAN
    return MetricDifference(value, found.low, found.high, found.p, gained, lost, method, found.replicates)


def set_difference(
    reference: MetricResult, candidate: MetricResult, sign: float, replicates: Replicates = (None, None)
) -> MetricDifference:
    """Return the difference of values of the whole set; better and worse samples are unknown."""
    first, second, value = reference.resample, candidate.resample, (reference.value - candidate.value) * sign
    if first is None or second is None or reference.samples < 2:
        return MetricDifference(value, math.nan, math.nan, math.nan, 0, 0, IntervalMethod.VALUE_ONLY)
    if replicates[0] is not None and replicates[1] is not None:
        found = bootstrap.percentile_interval(sign * (replicates[0] - replicates[1])[:, 0])
    else:
        found = bootstrap.bootstrap_set(lambda indices: sign * (first(indices) - second(indices)), reference.samples)
    if not found.replicates:
        return MetricDifference(value, math.nan, math.nan, math.nan, 0, 0, IntervalMethod.NO_RESAMPLES)
    method = IntervalMethod.BOOTSTRAP_SET
    return MetricDifference(value, found.low, found.high, found.p, 0, 0, method, found.replicates)


def is_binary(scores: Array) -> bool:
    """Return True if all scores are 0 or 1."""
    return bool(np.all((scores == 0.0) | (scores == 1.0)))


def mcnemar(lost: int, gained: int) -> float:
    """Return McNemar's mid-p: the probability of a split at least as uneven if gains are as likely as losses."""
    if lost == gained:
        return 1.0
    changes, fewer = lost + gained, min(lost, gained)
    # log C(changes, k)/2^changes for k = 0 … fewer: probabilities of a few thousand changes underflow otherwise.
    k = np.arange(1, fewer + 1)
    steps = np.log((changes - k + 1) / k)
    logs = np.concatenate([[0.0], np.cumsum(steps)]) - changes * math.log(2.0)
    terms = np.exp(logs)
    return float(min(1.0, 2.0 * terms.sum() - terms[-1]))


def bonett_price_interval(lost: int, gained: int, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of (lost − gained)/samples by Bonett and Price, within −1 … 1."""
    total = samples + 2
    down, up = (lost + 1) / total, (gained + 1) / total
    middle = down - up
    reach = bootstrap.Z * math.sqrt((down + up - middle**2) / total)
    return max(-1.0, middle - reach), min(1.0, middle + reach)

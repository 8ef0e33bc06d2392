"""Deviation of one output of a candidate from the reference, over all samples, in float64 and constant memory.

Floats are compared by their differences, everything else (indices, class numbers, masks, text) by equality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError
from quantkit.evaluation.outputs.predictions import are_probabilities, log_probabilities
from quantkit.evaluation.result import OutputDeviation, OutputMatch
from quantkit.metrics.class_scores import class_scores
from quantkit.numerics import noise_decibels, noise_share
from quantkit.statistics.exact_sum import ExactSum
from quantkit.values import Array

SUMS = ("reference", "candidate", "dot", "error", "kl")
"""Σ ref², Σ out², Σ ref·out, Σ (ref − out)², Σ KL."""
CHUNK = 1 << 20
"""Values that are converted to float64 at once."""


class OutputComparison:
    """Sums over all samples for one output. scores: it holds class scores [N, C], so that KL is defined.

    probabilities: whether these are probabilities; None: by the reference's first batch.
    """

    def __init__(self, name: str, scores: bool, probabilities: bool | None = None) -> None:
        self._name, self._scores = name, scores
        self._sums = {name: ExactSum() for name in SUMS}
        self._largest, self._samples = 0.0, 0
        self._probabilities = probabilities
        self.compared = 0
        """Values that count."""
        self.masked, self.undefined = 0, 0
        """Values that do not count: infinite or NaN in both models; of these those that are NaN."""

    def add(self, reference: Array, candidate: Array) -> None:
        """Add a batch of both. DataError if shapes differ, or if a value is not finite in only one of them."""
        if reference.shape != candidate.shape:
            shapes = f"{list(reference.shape)} for the reference, {list(candidate.shape)} for the candidate"
            raise DataError(
                f"output {self._name} is {shapes}", remedy="compare models whose outputs have the same shape"
            )
        first, second = np.ravel(reference), np.ravel(candidate)
        for at in range(0, first.size, CHUNK):
            self._add(first[at : at + CHUNK], second[at : at + CHUNK])
        if self._scores and reference.size:
            self._add_scores(reference, candidate)
        self._samples += len(reference) if reference.ndim else 1

    def _add(self, reference: Array, candidate: Array) -> None:
        a, b = reference.astype(np.float64), candidate.astype(np.float64)
        undefined = np.isnan(a) & np.isnan(b)
        alike = undefined | (np.isinf(a) & (a == b))  # masked out on purpose in both
        a[alike], b[alike] = 0.0, 0.0
        self.masked += int(np.count_nonzero(alike))
        self.undefined += int(np.count_nonzero(undefined))
        self.compared += a.size - int(np.count_nonzero(alike))
        self._check(a, b)
        error = a - b
        self._sums["reference"].add(float(a @ a))
        self._sums["candidate"].add(float(b @ b))
        self._sums["dot"].add(float(a @ b))
        self._sums["error"].add(float(error @ error))
        self._largest = max(self._largest, float(np.abs(error).max(initial=0.0)))

    def _add_scores(self, reference: Array, candidate: Array) -> None:
        a, b = class_scores(reference), class_scores(candidate)
        if a is None or b is None:
            raise DataError(
                f"output {self._name} {list(reference.shape)} holds no class scores [N, C]",
                remedy="compare it without KL divergence",
            )
        self._check(a.max(axis=1), b.max(axis=1))
        if self._probabilities is None:
            self._probabilities = are_probabilities(a)
        self._sums["kl"].add(float(kl_divergences(a, b, self._probabilities).sum()))

    def _check(self, reference: Array, candidate: Array) -> None:
        for values, whose in ((reference, "reference"), (candidate, "candidate")):
            if not np.isfinite(values).all():
                raise DataError(
                    f"output {self._name} of the {whose} holds NaN or Inf, in the batch from sample {self._samples}",
                    remedy="find the layer that produces it: quantkit layers",
                )

    def result(self) -> OutputDeviation:
        """Return SQNR (inf if equal), cosine, mean KL in nats, largest difference. DataError without samples."""
        if not self._samples:
            raise DataError(f"output {self._name}: there were no samples to compare", remedy="give at least one sample")
        sums = {name: found.value for name, found in self._sums.items()}
        kl = sums["kl"] / self._samples if self._scores else None
        share = noise_share(sums["error"], sums["reference"])
        return OutputDeviation(self._name, noise_decibels(share), cosine_of(sums), kl, self._largest)

    def state(self) -> Mapping[str, Any]:
        """Return the sums so far as plain values."""
        counts = [self._samples, self.compared, self.masked, self.undefined]
        return {"counts": counts, "largest": self._largest, **{n: found.state() for n, found in self._sums.items()}}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the sums over the samples that follow."""
        samples, compared, masked, undefined = map(int, state["counts"])
        self._samples, self.compared = self._samples + samples, self.compared + compared
        self.masked, self.undefined = self.masked + masked, self.undefined + undefined
        self._largest = max(self._largest, float(state["largest"]))
        for name, found in self._sums.items():
            found.extend(state[name])


def cosine_of(sums: Mapping[str, float]) -> float:
    """Return the cosine between reference and candidate, from the sums of their squares and products."""
    if sums["error"] == 0.0:
        return 1.0
    lengths = math.sqrt(sums["reference"]) * math.sqrt(sums["candidate"])
    return max(-1.0, min(1.0, sums["dot"] / lengths)) if lengths else 0.0


class MatchCounter:
    """Counts over all samples for one output that is not float."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._values, self._equal, self._samples, self._whole = 0, 0, 0, 0

    def add(self, reference: Array, candidate: Array, samples: int) -> None:
        """Add a batch of both, of one shape. Without an axis of samples it is equal for all of them or for none."""
        equal = np.asarray(reference == candidate)
        whole = bool(equal.all())
        rows = equal.ndim > 0 and len(equal) == samples
        self._values += equal.size
        self._equal += int(np.count_nonzero(equal))
        self._samples += samples
        self._whole += int(equal.reshape(samples, -1).all(axis=1).sum()) if rows else samples * whole

    def result(self) -> OutputMatch:
        """Return how many values are equal, and for how many samples all of them are."""
        return OutputMatch(self._name, self._values, self._equal, self._samples, self._whole)

    def state(self) -> Mapping[str, Any]:
        """Return the counts so far."""
        return {"counts": [self._values, self._equal, self._samples, self._whole]}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the counts of the samples that follow."""
        values, equal, samples, whole = map(int, state["counts"])
        self._values, self._equal = self._values + values, self._equal + equal
        self._samples, self._whole = self._samples + samples, self._whole + whole


def kl_divergences(reference: Array, candidate: Array, probabilities: bool) -> NDArray[np.float64]:
    """Return the KL divergence Σ p·(log p − log q) of every row [N, C] in nats; p: reference, q: candidate."""
    p, q = log_probabilities(reference, probabilities), log_probabilities(candidate, probabilities)
    apart = np.subtract(p, q, out=np.zeros_like(p), where=p > -np.inf)
    return np.asarray(np.maximum((np.exp(p) * apart).sum(axis=1), 0.0))

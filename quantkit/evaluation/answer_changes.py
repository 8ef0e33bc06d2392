"""The answers of two models on the same samples: the class of highest score, and how sure the model is of it.

Confidence is the largest probability: the softmax of the scores, or the scores themselves where the network ends in a
Softmax. Which of the two holds is read off the reference's first batch (no row below 0 or above 1, every sum 1 within
1 %) and serves both models, since an INT8 Softmax adds up to 1 only roughly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError
from quantkit.evaluation.result import Confidence
from quantkit.metrics.topk import class_scores
from quantkit.values import Array

SMALLEST = 2.0**-24
"""A probability below half a float32 step of 1 counts as that: INT8 rounds small ones to 0, whose logarithm is −∞."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Of every sample: the class, int32 [N], and its probability, float64 [N]."""

    classes: NDArray[np.int32]
    confidence: NDArray[np.float64]


class PredictionComparison:
    """Collects the answers of reference and candidate, 24 bytes a sample."""

    def __init__(self) -> None:
        self._probabilities: bool | None = None
        self._reference: list[Predictions] = []
        self._candidate: list[Predictions] = []

    def add(self, reference: Array, candidate: Array, names: Sequence[str] = ()) -> None:
        """Take a batch of class scores [N, C] of both. DataError where shapes differ or a score is NaN or +Inf."""
        first, second = class_scores(reference), class_scores(candidate)
        if first is None or second is None or first.shape != second.shape:
            raise DataError(
                f"the reference's class scores are {list(reference.shape)}, the candidate's {list(candidate.shape)}",
                remedy="compare models with the same output [N, C]",
            )
        if not len(first):
            return
        if self._probabilities is None:
            self._probabilities = are_probabilities(first)
        at = sum(len(part.classes) for part in self._reference)
        for scores, whose in ((first, "reference"), (second, "candidate")):
            if (wrong := np.flatnonzero(~np.isfinite(scores.max(axis=1)))).size:
                sample = names[wrong[0]] if names else f"sample {at + wrong[0]}"
                remedy = "find the layer that makes it: quantkit layers"
                raise DataError(f"{sample}: a class score of the {whose} is NaN or Inf", remedy=remedy)
        self._reference.append(predict_classes(first, self._probabilities))
        self._candidate.append(predict_classes(second, self._probabilities))

    def result(self) -> tuple[Predictions, Predictions]:
        """Reference's and candidate's answers. DataError where there were no samples."""
        if not sum(len(part.classes) for part in self._reference):
            raise DataError("there were no samples to compare", remedy="give data")
        return join_predictions(self._reference), join_predictions(self._candidate)


def predict_classes(scores: Array, probabilities: bool) -> Predictions:
    """Class and confidence of every row; ties go to the lowest class."""
    classes = scores.argmax(axis=1)
    sure = np.exp(log_probabilities(scores, probabilities)[np.arange(len(scores)), classes])
    return Predictions(classes.astype(np.int32), sure)


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Batches one behind the other."""
    return Predictions(np.concatenate([p.classes for p in parts]), np.concatenate([p.confidence for p in parts]))


def agreement(reference: Predictions, candidate: Predictions) -> float:
    """Share of samples with the same answer."""
    return float(np.mean(reference.classes == candidate.classes))


def confidence(reference: Predictions, candidate: Predictions) -> Confidence:
    """How sure both are on average, and the shift in points. Each is sure of its own answer."""
    first, second = float(reference.confidence.mean()), float(candidate.confidence.mean())
    return Confidence(first, second, 100.0 * float(np.mean(candidate.confidence - reference.confidence)))


def are_probabilities(scores: Array) -> bool:
    """Whether every row of [N, C] is a distribution: the network ends in a Softmax."""
    values = scores.astype(np.float64)
    return bool(values.min() >= 0 and values.max() <= 1 and np.all(np.abs(values.sum(axis=1) - 1) <= 0.01))


def log_probabilities(scores: Array, probabilities: bool) -> NDArray[np.float64]:
    """log softmax of [N, C] in float64; where they are probabilities already, their logarithm, made to sum to 1."""
    values = scores.astype(np.float64)
    if probabilities:
        values = np.log(np.maximum(values, SMALLEST))
    values = values - values.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.asarray(values - np.log(np.exp(values).sum(axis=1, keepdims=True)))

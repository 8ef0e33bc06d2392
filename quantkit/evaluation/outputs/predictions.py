"""The predictions of two models on the same samples: the class with the highest score, and its confidence.

Confidence is the largest probability: the softmax of the scores, or the scores themselves if the network ends in a
Softmax. Which of the two applies is inferred from the reference's first batch (no value below 0 or above 1, every row
sums to 1 within 1 %) and used for both models, because the rows of an INT8 Softmax sum to 1 only roughly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError
from quantkit.evaluation.result import Confidence
from quantkit.metrics.class_scores import class_scores
from quantkit.values import Array

SMALLEST = 2.0**-24
"""Smallest probability, half a float32 step at 1: INT8 rounds small ones to 0, whose logarithm would be −∞."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """For every sample the predicted class, int32 [N], and its probability, float64 [N]."""

    classes: NDArray[np.int32]
    confidence: NDArray[np.float64]


class PredictionComparison:
    """Collects the predictions of reference and candidate, 24 bytes per sample.

    probabilities: whether the scores are probabilities; None: by the reference's first batch.
    """

    def __init__(self, probabilities: bool | None = None) -> None:
        self._probabilities = probabilities
        self._reference: list[Predictions] = []
        self._candidate: list[Predictions] = []

    def add(self, reference: Array, candidate: Array, names: Sequence[str] = ()) -> None:
        """Add a batch of class scores [N, C] of both. DataError if shapes differ or a score is NaN or +Inf."""
        first, second = class_scores(reference), class_scores(candidate)
        if first is None or second is None or first.shape != second.shape:
            raise DataError(
                f"class scores are {list(reference.shape)} in the reference, {list(candidate.shape)} in the candidate",
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
                remedy = "find the layer that produces it: quantkit layers"
                raise DataError(f"{sample}: a class score of the {whose} is NaN or Inf", remedy=remedy)
        self._reference.append(predict_classes(first, self._probabilities))
        self._candidate.append(predict_classes(second, self._probabilities))

    def result(self) -> tuple[Predictions, Predictions]:
        """Return the predictions of reference and candidate. DataError if there were no samples."""
        if not sum(len(part.classes) for part in self._reference):
            raise DataError("there were no samples to compare", remedy="give at least one sample")
        return join_predictions(self._reference), join_predictions(self._candidate)

    def state(self) -> Mapping[str, Any]:
        """Return the predictions so far."""
        first, second = join_predictions(self._reference), join_predictions(self._candidate)
        return {
            "classes": np.stack([first.classes, second.classes]),
            "confidence": np.stack([first.confidence, second.confidence]),
        }

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the predictions for the samples that follow."""
        (first, second), (sure, unsure) = state["classes"], state["confidence"]
        self._reference.append(Predictions(first, sure))
        self._candidate.append(Predictions(second, unsure))


def predict_classes(scores: Array, probabilities: bool) -> Predictions:
    """Return class and confidence of every row; ties go to the lowest class."""
    classes = scores.argmax(axis=1)
    confidence = np.exp(log_probabilities(scores, probabilities)[np.arange(len(scores)), classes])
    return Predictions(classes.astype(np.int32), confidence)


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Concatenate batches."""
    return Predictions(
        np.concatenate([np.zeros(0, np.int32), *(p.classes for p in parts)]),
        np.concatenate([np.zeros(0), *(p.confidence for p in parts)]),
    )


def agreement(reference: Predictions, candidate: Predictions) -> float:
    """Return the share of samples with the same prediction."""
    return float(np.mean(reference.classes == candidate.classes))


def confidence(reference: Predictions, candidate: Predictions) -> Confidence:
    """Return the mean confidence of each in its own prediction, and the shift in percentage points."""
    first, second = float(reference.confidence.mean()), float(candidate.confidence.mean())
    return Confidence(first, second, 100.0 * float(np.mean(candidate.confidence - reference.confidence)))


def are_probabilities(scores: Array) -> bool:
    """Return True if every row of [N, C] is a distribution, so that the network ends in a Softmax."""
    values = scores.astype(np.float64)
    return bool(values.min() >= 0 and values.max() <= 1 and np.all(np.abs(values.sum(axis=1) - 1) <= 0.01))


def log_probabilities(scores: Array, probabilities: bool) -> NDArray[np.float64]:
    """Return the log softmax of [N, C] in float64; of probabilities the logarithm, normalized to a sum of 1."""
    values = scores.astype(np.float64)
    if probabilities:
        values = np.log(np.maximum(values, SMALLEST))
    values = values - values.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.asarray(values - np.log(np.exp(values).sum(axis=1, keepdims=True)))

"""Signs that the reference itself is measured wrongly: prepared otherwise than in training, or with other labels.

    chance    it is right no more often than by guessing, and far less often than a trained network would be
    order     in another order of the classes it would be right far more often: labels and outputs do not correspond
    sure      it is far more sure of its predictions than it is right

A trained network is overconfident by a few points, in bad cases by 16 (Guo et al., On calibration of modern neural
networks, ICML 2017). Wrongly prepared images gave 15 to 79 points with three networks on CIFAR-10.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quantkit.evaluation.outputs.predictions import Predictions
from quantkit.evaluation.verdict import count_of
from quantkit.values import Array
from quantkit.view import percent_text

UNLIKELY = 0.05
GAIN = 0.25
"""A share of samples that only another order of the classes makes right, and that no chance explains."""
PER_CLASS = 10
"""Samples for each class below which an order of the classes may fit by chance."""
OVERCONFIDENCE = 0.2
ENOUGH = 100
"""Samples below which confidence and accuracy may differ by chance."""
CHECK = "check the preprocessing (--preprocess), and that labels have the order of the network's classes (--classes)"


def implausible_accuracy(name: str, labels: Array, found: Predictions, classes: int) -> str | None:
    """Return why the accuracy of a reference proves nothing; None if it is plausible. labels: class indices [N]."""
    right, samples = int(np.count_nonzero(found.classes == labels)), len(labels)
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, found.classes), 1)
    order = matched_classes(table)
    present = int(np.count_nonzero(table.sum(axis=1)))
    if samples >= PER_CLASS * present > PER_CLASS and order - right >= GAIN * samples:
        return (
            f"{name} is right on {count_of(right, samples)}, and would be on {count_of(order, samples)} if the labels "
            "had another order: give the names of its classes in the order of its outputs with --classes"
        )
    chance = max(float(table.sum(axis=1) @ table.sum(axis=0)) / samples**2, 1.0 / classes)
    limit = chance + 2.0 * math.sqrt(chance * (1.0 - chance) / samples)
    if right > limit * samples or binomial_tail(right, samples, (1.0 + chance) / 2.0) >= UNLIKELY:
        return None
    return (
        f"{name} is right on {count_of(right, samples)}, no more often than by guessing ({percent_text(chance)} %): "
        f"{CHECK}"
    )


def overconfidence(name: str, labels: Array, found: Predictions) -> str | None:
    """Return a warning about predictions that are far more sure than right; None if they are not."""
    accuracy, confidence = float(np.mean(found.classes == labels)), float(found.confidence.mean())
    if len(labels) < ENOUGH or confidence - accuracy < OVERCONFIDENCE:
        return None
    return (
        f"{name} is {percent_text(confidence, 0)} % sure of its predictions on average, but right on only "
        f"{percent_text(accuracy, 0)} %, as networks are with images unlike those of their training: {CHECK}"
    )


def matched_classes(table: NDArray[np.int64]) -> int:
    """Return how many samples a one-to-one assignment of predicted classes to labels makes right, largest cell first.

    table: samples by label and predicted class [C, C]. The assignment is at most half as good as the best one.
    """
    free, total = table.copy(), 0
    for _ in range(len(free)):
        label, predicted = np.unravel_index(int(free.argmax()), free.shape)
        if free[label, predicted] <= 0:
            break
        total += int(free[label, predicted])
        free[label, :] = free[:, predicted] = -1
    return total


def binomial_tail(successes: int, trials: int, p: float) -> float:
    """Return P(X ≤ successes) of a binomial distribution."""
    if p >= 1.0:
        return float(successes >= trials)
    k = np.arange(successes + 1)
    steps = np.log((trials - k[1:] + 1) / k[1:]) + math.log(p / (1.0 - p))
    logs = trials * math.log1p(-p) + np.concatenate([[0.0], np.cumsum(steps)])
    return float(min(1.0, np.exp(logs).sum()))

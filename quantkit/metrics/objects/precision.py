"""Average precision from tables of matches, with a weight for each image.

With all weights 1 it is COCO's, and with the counts of a bootstrap sample it is that of the sample, without matching
again (Everingham et al., IJCV 88 (2010); Lin et al., ECCV 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantkit.metrics.objects.matching import THRESHOLDS, ClassTable

RECALLS = np.linspace(0.0, 1.0, 101)
CELLS = 1 << 22
"""Numbers that are summed at once: 32 MiB."""
SCORES = np.linspace(0.0, 1.0, 1000)
"""Thresholds of scores among which the one with the best F1 is found."""
SMOOTHING = 101
"""Neighbouring thresholds whose mean F1 counts, so that chance does not choose."""


def average_precisions(table: ClassTable, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the average precision of a class at each IoU threshold [R, 10], for weights [R, N] of the images.

    NaN where the weighted images hold no object.
    """
    step = max(1, CELLS // max(table.images.size, 1))
    parts = [precisions_of_rows(table, weights[at : at + step]) for at in range(0, len(weights), step)]
    return np.concatenate(parts) if parts else np.zeros((0, THRESHOLDS))


def precisions_of_rows(table: ClassTable, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `average_precisions` of a few rows of weights."""
    objects = weights @ table.objects
    every = weights[:, table.images]
    seen = [np.cumsum(every * counted, axis=1) for counted in table.counted]
    made = np.zeros((len(weights), THRESHOLDS))
    with np.errstate(divide="ignore", invalid="ignore"):
        for at, right in enumerate(table.right):
            # Precision only falls between correct detections, so they alone determine the maximum at a recall.
            gained = np.cumsum(every[:, right], axis=1)
            precision = gained / np.maximum(seen[at % len(seen)][:, right], np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            reached = np.searchsorted(RECALLS, gained / objects[:, None], side="right")
            steps = np.diff(reached, axis=1, prepend=0)
            made[:, at] = (best * steps).sum(axis=1) / RECALLS.size
    made[objects == 0] = np.nan
    return made


def mean_precisions(tables: Sequence[ClassTable], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the average precision of each class [R, classes, 2]: the mean over the thresholds, and at IoU 0.50."""
    found = [average_precisions(table, weights) for table in tables]
    return (
        np.stack([np.stack([f.mean(axis=1), f[:, 0]], axis=1) for f in found], axis=1)
        if found
        else (np.zeros((len(weights), 0, 2)))
    )


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis without NaN; NaN if there is nothing else."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def precision_curve(table: ClassTable) -> NDArray[np.float64]:
    """Return the precision at each of the 101 recalls, at IoU 0.50."""
    right = table.right[0]
    gained = np.arange(1, right.size + 1)
    precision = gained / np.maximum(np.cumsum(table.counted[0])[right], 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(gained / table.objects.sum(), RECALLS, side="left")
    curve = np.zeros(RECALLS.size)
    curve[places < best.size] = best[places[places < best.size]]
    return curve


@dataclass(frozen=True, slots=True)
class WorkingPoint:
    """Mean precision and recall of the classes at one threshold of scores, at IoU 0.50."""

    threshold: float
    precision: float
    recall: float


def best_working_point(tables: Sequence[ClassTable]) -> WorkingPoint:
    """Return precision and recall at the threshold of scores with the highest mean F1, as Ultralytics reports them."""
    precisions, recalls = [], []
    for table in tables:
        above = table.images.size - np.searchsorted(table.scores[::-1], SCORES, side="left")
        seen = np.concatenate([[0.0], np.cumsum(table.counted[0])])[above]
        correct = np.searchsorted(table.right[0], above, side="left")
        precisions.append(np.where(seen > 0, correct / np.maximum(seen, 1), 1.0))
        recalls.append(correct / table.objects.sum())
    precision, recall = np.array(precisions), np.array(recalls)
    scores = (2 * precision * recall / np.maximum(precision + recall, 1e-16)).mean(axis=0)
    around = np.pad(scores, SMOOTHING // 2, mode="edge")
    best = int(np.argmax(np.convolve(around, np.full(SMOOTHING, 1 / SMOOTHING), mode="valid")))
    return WorkingPoint(float(SCORES[best]), float(precision[:, best].mean()), float(recall[:, best].mean()))

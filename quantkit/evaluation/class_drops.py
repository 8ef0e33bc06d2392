"""Changes by class: lost accuracy, changed predictions, and the samples that changed most.

Each class is tested by McNemar's test on its own samples. Among a hundred classes five would seem to drop by chance
alone, so the p values are adjusted: Holm's step-down method keeps the probability of any false alarm at 5 %
(Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6 (1979)).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quantkit.evaluation.outputs.predictions import Predictions
from quantkit.evaluation.paired import mcnemar
from quantkit.evaluation.result import ChangedSample, ClassDrop, Confusion
from quantkit.values import Array

Labels = NDArray[np.intp]


def class_drops(
    labels: Labels, reference_right: Array, candidate_right: Array, names: Sequence[str]
) -> tuple[ClassDrop, ...]:
    """Return a drop for each class that has samples, the largest first.

    labels: class indices [N]. reference_right, candidate_right: 0 or 1 for each sample. names: of all classes; a class
    without a name gets its index.
    """
    found = []
    for number in np.unique(labels):
        mine = labels == number
        first, second = reference_right[mine] > 0, candidate_right[mine] > 0
        p = mcnemar(int(np.sum(first & ~second)), int(np.sum(second & ~first)))
        found.append((int(number), int(mine.sum()), float(first.mean()), float(second.mean()), p))
    adjusted = holm([p for *_, p in found])
    drops = [
        ClassDrop(class_name(number, names), count, first, second, 100.0 * (first - second), p)
        for (number, count, first, second, _), p in zip(found, adjusted, strict=True)
    ]
    return tuple(sorted(drops, key=lambda drop: -drop.drop))


def holm(values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number, in the same order."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, highest = [1.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = highest
    return adjusted


def confusions(
    labels: Labels | None, reference: Labels, candidate: Labels, names: Sequence[str]
) -> tuple[Confusion, ...]:
    """Count changes of the predicted class, the most frequent first. Without labels `label` is ""."""
    changed = np.flatnonzero(reference != candidate)
    counted = Counter(
        (
            "" if labels is None else class_name(labels[i], names),
            class_name(reference[i], names),
            class_name(candidate[i], names),
        )
        for i in changed
    )
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Confusion(label, first, second, count) for (label, first, second), count in ordered)


def most_changed(
    samples: Sequence[str],
    labels: Labels | None,
    predictions: tuple[Predictions, Predictions],
    names: Sequence[str],
    limit: int,
) -> tuple[ChangedSample, ...]:
    """Return at most `limit` samples whose prediction changed: first those from right to wrong, then the others.

    Each group is sorted by the lower of the two confidences, descending. predictions: reference's, candidate's.
    """
    reference, candidate = predictions
    changed = np.flatnonzero(reference.classes != candidate.classes)
    confidence = np.minimum(reference.confidence[changed], candidate.confidence[changed])
    lost = np.zeros(changed.size, bool) if labels is None else reference.classes[changed] == labels[changed]
    order = np.lexsort((changed, -confidence, ~lost))[:limit]
    return tuple(
        ChangedSample(
            sample=samples[i],
            label="" if labels is None else class_name(labels[i], names),
            reference=class_name(reference.classes[i], names),
            reference_confidence=float(reference.confidence[i]),
            candidate=class_name(candidate.classes[i], names),
            candidate_confidence=float(candidate.confidence[i]),
        )
        for i in changed[order]
    )


def most_changed_scores(
    samples: Sequence[str], reference: Array, candidate: Array, higher_is_better: bool, limit: int
) -> tuple[ChangedSample, ...]:
    """Return the same for scores [N] of any metric: largest losses first, then largest gains. Confidences are NaN."""
    loss = (reference - candidate) * (1.0 if higher_is_better else -1.0)
    changed = np.flatnonzero(loss)
    order = np.lexsort((changed, -np.abs(loss[changed]), loss[changed] < 0))[:limit]
    return tuple(
        ChangedSample(samples[i], "", f"{reference[i]:.6g}", math.nan, f"{candidate[i]:.6g}", math.nan)
        for i in changed[order]
    )


def class_name(number: int, names: Sequence[str]) -> str:
    """Return the name of a class, or its index if it has none."""
    return names[number] if 0 <= number < len(names) else str(number)

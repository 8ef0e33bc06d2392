"""Class by class: where right answers were lost, what is called what now, and the samples that changed most.

Each class is tested by McNemar's test over its own samples. Among a hundred classes five would seem to drop by chance
alone, so that the p values are adjusted: Holm's step-down keeps the probability of one false alarm at all at 5 %
(Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6 (1979)).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quantkit.evaluation.answer_changes import Predictions
from quantkit.evaluation.paired import mcnemar
from quantkit.evaluation.result import ChangedSample, ClassDrop, Confusion
from quantkit.values import Array

Labels = NDArray[np.intp]


def class_drops(
    labels: Labels, reference_right: Array, candidate_right: Array, names: Sequence[str]
) -> tuple[ClassDrop, ...]:
    """A drop for each class that has samples, the largest first.

    labels: class numbers [N]. reference_right, candidate_right: 0 or 1 for each sample. names: of all classes; a class
    without a name is called by its number.
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
    """p values adjusted for how many there are, in their order."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, highest = [1.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = highest
    return adjusted


def confusions(
    labels: Labels | None, reference: Labels, candidate: Labels, names: Sequence[str]
) -> tuple[Confusion, ...]:
    """Changes of the predicted class, the most frequent first; classes as numbers [N]. Without labels `label` is ""."""
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
    answers: tuple[Predictions, Predictions],
    names: Sequence[str],
    limit: int,
) -> tuple[ChangedSample, ...]:
    """At most `limit` samples whose answer changed: first those that went from right to wrong, then the others.

    Among each the surest first, by the confidence of the less sure of the two. answers: reference's, candidate's.
    """
    reference, candidate = answers
    changed = np.flatnonzero(reference.classes != candidate.classes)
    sure = np.minimum(reference.confidence[changed], candidate.confidence[changed])
    lost = np.zeros(changed.size, bool) if labels is None else reference.classes[changed] == labels[changed]
    order = np.lexsort((changed, -sure, ~lost))[:limit]
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
    """The same for scores [N] of any metric: the largest losses first, then the largest gains. Confidences are NaN."""
    loss = (reference - candidate) * (1.0 if higher_is_better else -1.0)
    changed = np.flatnonzero(loss)
    order = np.lexsort((changed, -np.abs(loss[changed]), loss[changed] < 0))[:limit]
    return tuple(
        ChangedSample(samples[i], "", f"{reference[i]:.6g}", math.nan, f"{candidate[i]:.6g}", math.nan)
        for i in changed[order]
    )


def class_name(number: int, names: Sequence[str]) -> str:
    """The name of a class; its number where it has none."""
    return names[number] if 0 <= number < len(names) else str(number)

"""The objects of a candidate paired with those of the reference, image by image; no labels are needed.

An object of the reference is paired with the candidate's of the same class that overlaps it most, with an IoU of at
least 0.5, the reference's highest score first, as COCO matches detections with labels. Objects count from THRESHOLD on;
a partner may have down to half of that, so that a score that falls from just above to just below it is a shift of the
score, not a lost object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantkit.metrics.objects.found import FoundObjects, mask_library

THRESHOLD = 0.25
"""Score from which objects count, as Ultralytics shows them."""
LEAST = THRESHOLD / 2
"""Score of a partner."""
OVERLAP = 0.5


@dataclass(frozen=True, slots=True)
class PairedObjects:
    """The objects of one image with a score of at least LEAST. partners [M]: places in `candidate`, −1 for none.

    overlaps [M]: IoU of each pair, 0 without one.
    """

    reference: FoundObjects
    candidate: FoundObjects
    partners: NDArray[np.intp]
    overlaps: NDArray[np.float64]

    @property
    def lost(self) -> NDArray[np.intp]:
        """Return the places of objects that count in the reference and that the candidate does not find."""
        return np.flatnonzero((self.reference.scores >= THRESHOLD) & (self.partners < 0))

    @property
    def new(self) -> NDArray[np.intp]:
        """Return the places of objects that count in the candidate and that the reference does not find."""
        unpaired = np.ones(len(self.candidate.scores), np.bool_)
        unpaired[self.partners[self.partners >= 0]] = False
        return np.flatnonzero((self.candidate.scores >= THRESHOLD) & unpaired)

    @property
    def kept(self) -> NDArray[np.intp]:
        """Return the places of objects that count in the reference and have a partner."""
        return np.flatnonzero((self.reference.scores >= THRESHOLD) & (self.partners >= 0))

    @property
    def shifts(self) -> NDArray[np.float64]:
        """Return candidate − reference of the scores of the kept objects."""
        kept = self.kept
        return np.asarray(self.candidate.scores[self.partners[kept]] - self.reference.scores[kept])


def pair_objects(reference: FoundObjects, candidate: FoundObjects) -> PairedObjects:
    """Pair the objects of one image."""
    first, second = (found.only(np.flatnonzero(found.scores >= LEAST)) for found in (reference, candidate))
    partners, best = np.full(len(first.scores), -1, np.intp), np.zeros(len(first.scores))
    if len(first.scores) and len(second.scores):
        overlaps = object_overlaps(first, second)
        overlaps[first.classes[:, None] != second.classes[None, :]] = 0.0
        for at in range(len(first.scores)):
            other = int(overlaps[at].argmax())
            if overlaps[at, other] >= OVERLAP:
                partners[at], best[at] = other, overlaps[at, other]
                overlaps[:, other] = 0.0
    return PairedObjects(first, second, partners, best)


def object_overlaps(first: FoundObjects, second: FoundObjects) -> NDArray[np.float64]:
    """Return the IoU of every object of the first with every one of the second: of masks if both have them."""
    if first.masks is not None and second.masks is not None:
        return np.array(mask_library().iou(list(first.masks), list(second.masks), [0] * len(second.masks)), np.float64)
    return box_overlaps(first.boxes, second.boxes)


def box_overlaps(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU of boxes [M, 4] and [K, 4] as [M, K]; 0 for boxes without area."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    other = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod(np.maximum(other - corner, 0.0), axis=2)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def pair_images(reference: Sequence[FoundObjects], candidate: Sequence[FoundObjects]) -> list[PairedObjects]:
    """Pair the objects of every image."""
    return [pair_objects(first, second) for first, second in zip(reference, candidate, strict=True)]

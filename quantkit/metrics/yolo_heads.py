"""Decoding of YOLO-family heads into boxes with a class and a score.

    family     output                a row is
    v8         [N, 4 + C, A]         x, y, width, height (centre, input pixels), C class scores        (v8, v9, 11, 12)
    v5         [N, A, 5 + C]         x, y, width, height, objectness, C class scores; score = their product  (v5, v7)
    end2end    [N, M, 6]             x1, y1, x2, y2, score, class: without NMS                         (v10, 26, --nms)

A is the number of anchors (8,400 or 25,200 at 640 × 640), M at most a few hundred. The family is inferred from the
shape if that is unambiguous; [N, A, 6] could be v5 with one class, so end2end is recognised only at M = 300, its
default, and has to be named otherwise. Settings are those of Ultralytics' validation: every class of a box counts,
scores from 0.001, NMS per class at IoU 0.7 (v5: 0.6), at most 300 boxes per image.

Sources: Ultralytics' `non_max_suppression` and `val` (v8), YOLOv5's `val.py`; written from their behaviour, not copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import UsageError
from quantkit.values import Array

MIN_SCORE = 0.001
MOST_BOXES = 300
MOST_CANDIDATES = 30_000
DEFAULT_BOXES = 300
"""M of an end-to-end head in a default export."""


class HeadFamily(Enum):
    """Layout of a head's output."""

    V8 = "v8"
    V5 = "v5"
    END_TO_END = "end2end"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return True if an output [N, …] has room for boxes and at least one class."""
        if self is HeadFamily.V8:
            return shape[1] >= 5
        return shape[2] >= 6 if self is HeadFamily.V5 else shape[2] == 6


OVERLAP = {HeadFamily.V8: 0.7, HeadFamily.V5: 0.6}


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes [M, 4] as x1, y1, x2, y2 in input pixels, scores [M] and class indices [M], the highest score first."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.intp]


def infer_head_family(shape: tuple[int, ...], output: str) -> HeadFamily:
    """Infer the family from the shape. UsageError if it is ambiguous."""
    if len(shape) == 3:
        _, rows, columns = shape
        if columns == 6 and rows == DEFAULT_BOXES:
            return HeadFamily.END_TO_END
        if 5 <= rows < columns:
            return HeadFamily.V8
        if 6 < columns < rows:
            return HeadFamily.V5
    raise UsageError(
        f"cannot infer the YOLO head type from output {output} {list(shape)}",
        remedy="name it: --metric yolo:v8 for [N, 4 + C, A], yolo:v5 for [N, A, 5 + C], yolo:end2end for [N, M, 6]",
    )


def decode_head(output: Array, family: HeadFamily) -> Detections:
    """Return the detections of one image, from its output without the batch axis."""
    values = output.astype(np.float64)
    if family is HeadFamily.END_TO_END:
        sure = values[values[:, 4] > MIN_SCORE]
        sure = sure[np.argsort(-sure[:, 4], kind="stable")[:MOST_BOXES]]
        return Detections(sure[:, :4], sure[:, 4], np.rint(sure[:, 5]).astype(np.intp))
    rows = values.T if family is HeadFamily.V8 else values
    scores = rows[:, 4:] if family is HeadFamily.V8 else rows[:, 5:] * rows[:, 4:5]
    anchors, classes = np.nonzero(scores > MIN_SCORE)
    found = scores[anchors, classes]
    order = np.argsort(-found, kind="stable")[:MOST_CANDIDATES]
    anchors, classes, found = anchors[order], classes[order], found[order]
    centre, half = rows[anchors, :2], rows[anchors, 2:4] / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    kept = suppress_overlaps(boxes, classes, OVERLAP[family])
    return Detections(boxes[kept], found[kept], classes[kept])


def suppress_overlaps(boxes: NDArray[np.float64], classes: NDArray[np.intp], overlap: float) -> NDArray[np.intp]:
    """Return the indices that non-maximum suppression keeps, class by class; boxes are sorted by descending score."""
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)
    left = np.arange(len(boxes))
    kept: list[int] = []
    while left.size and len(kept) < MOST_BOXES:
        best, left = left[0], left[1:]
        kept.append(int(best))
        corner, other = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        common = np.prod(np.maximum(other - corner, 0.0), axis=1)
        # A box without area overlaps nothing: 0/0 counts as no overlap.
        over = common > overlap * (areas[best] + areas[left] - common)
        left = left[~(over & (classes[left] == classes[best]))]
    return np.array(kept, np.intp)

"""Detections of one image, and the suppression of those that overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantkit.values import Array

MIN_SCORE = 0.001
"""Scores above this count, as in Ultralytics' validation."""
MOST_BOXES = 300
"""Detections of an image that are kept."""
MOST_CANDIDATES = 30_000
"""Candidates of an image that enter non-maximum suppression."""
RELATIVE = 2.0
"""Boxes whose median edge lies within this are fractions of the input, not pixels."""


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes [M, 4] as x1, y1, x2, y2, scores [M] and class indices [M], the highest score first.

    Positions are in pixels of the network's input, or of the image once they were converted. levels: float32 [M, h, w]
    over the whole input, positive inside an object's mask. keypoints: [M, K, 3] x, y, confidence.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.intp]
    levels: NDArray[np.float32] | None = None
    keypoints: NDArray[np.float64] | None = None

    def only(self, chosen: NDArray[np.intp]) -> Detections:
        """Return the detections with these indices, in this order."""
        levels = None if self.levels is None else self.levels[chosen]
        keypoints = None if self.keypoints is None else self.keypoints[chosen]
        return Detections(self.boxes[chosen], self.scores[chosen], self.classes[chosen], levels, keypoints)


def best_classes(boxes: Array, scores: Array) -> tuple[Array, Array, Array]:
    """Return anchor, class and score of every score [A, C] above MIN_SCORE, the highest first.

    Every class of a box counts. Boxes that are not finite have no place in an image and are left out.
    """
    usable = np.isfinite(boxes).all(axis=1).reshape(-1, 1)
    anchors, classes = np.nonzero((scores > MIN_SCORE) & usable)
    found = scores[anchors, classes]
    order = np.argsort(-found, kind="stable")[:MOST_CANDIDATES]
    return anchors[order], classes[order], found[order]


def suppress(boxes: Array, scores: Array, overlap: float | None) -> tuple[Detections, NDArray[np.intp]]:
    """Return the detections of boxes [A, 4] with scores [A, C], and the anchor of each.

    overlap: IoU above which the lower of two boxes of a class is dropped; None to keep all.
    """
    anchors, classes, found = best_classes(boxes, scores)
    chosen = boxes[anchors]
    kept = np.arange(min(len(chosen), MOST_BOXES)) if overlap is None else suppress_overlaps(chosen, classes, overlap)
    return Detections(chosen[kept], found[kept], classes[kept].astype(np.intp)), anchors[kept]


def suppress_overlaps(boxes: NDArray[np.float64], classes: NDArray[np.intp], overlap: float) -> NDArray[np.intp]:
    """Return the indices that non-maximum suppression keeps, class by class; boxes are sorted by descending score."""
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    areas = np.maximum(x2 - x1, 0.0) * np.maximum(y2 - y1, 0.0)
    alive = np.ones(len(boxes), np.bool_)
    kept: list[int] = []
    at = 0
    while at < len(boxes) and len(kept) < MOST_BOXES:
        kept.append(at)
        rest = slice(at + 1, None)
        width = np.minimum(x2[rest], x2[at]) - np.maximum(x1[rest], x1[at])
        height = np.minimum(y2[rest], y2[at]) - np.maximum(y1[rest], y1[at])
        common = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        # A box without area overlaps nothing: 0/0 counts as no overlap.
        over = common > overlap * (areas[at] + areas[rest] - common)
        alive[rest] &= ~(over & (classes[rest] == classes[at]))
        following = alive[rest]
        step = int(following.argmax()) if following.size else 0
        at = at + 1 + step if following.size and following[step] else len(boxes)
    return np.array(kept, np.intp)


def corners(rows: Array) -> NDArray[np.float64]:
    """Convert boxes [A, 4] from centre and size to corners."""
    centre, half = rows[:, :2], rows[:, 2:4] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def in_pixels(boxes: NDArray[np.float64], canvas: tuple[int, int]) -> NDArray[np.float64]:
    """Convert boxes [A, 4] to pixels of an input of this width and height, if they are fractions of it."""
    edges = np.abs(boxes).max(axis=1) if len(boxes) else np.zeros(0)
    edges = edges[np.isfinite(edges) & (edges > 0)]
    return boxes * np.tile(canvas, 2) if edges.size and np.median(edges) <= RELATIVE else boxes


def sigmoid(values: Array) -> NDArray[np.float64]:
    """Return 1/(1 + e^−x)."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values.astype(np.float64))))


def softmax(values: Array) -> NDArray[np.float64]:
    """Return the softmax over the last axis."""
    shifted = values.astype(np.float64)
    powers = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def score_order(boxes: Array, scores: Array) -> NDArray[np.intp]:
    """Return the places of detections [M] above MIN_SCORE, the highest score first, at most MOST_BOXES.

    Boxes that are not finite are left out.
    """
    order = np.argsort(-scores, kind="stable")
    usable = (scores[order] > MIN_SCORE) & np.isfinite(boxes[order]).all(axis=1)
    return np.asarray(order[usable][:MOST_BOXES])

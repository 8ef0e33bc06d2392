"""How objects and regions change between the reference and a candidate: detection, instance and semantic segmentation.

    ObjectChanges             detectors, instance segmentation, keypoints: one candidate beside the reference
    ├── ObjectMatches         the reference's objects that the candidate finds again; needs no labels
    ├── Histogram             how the scores of matched objects shift
    ├── PrecisionChange       average precision by class, and by size of objects; with labels
    ├── PrecisionCurve        precision over recall of a class at IoU 0.50; with labels
    └── ChangedScene          an image that changed much: the objects of labels, reference and candidate
    RegionChanges             semantic segmentation
    ├── RegionChange          a class: IoU with the labels, and with the reference's regions
    └── ChangedMap            an image that changed much: the class of every pixel

All positions are in pixels of the upright image. Shares are fractions, differences percentage points (loss positive).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RunLengths:
    """A map of small integers as run lengths, column by column (COCO's order). size: (height, width) in pixels.

    values: of each run; for a mask 0 and 1.
    """

    size: tuple[int, int]
    values: tuple[int, ...]
    lengths: tuple[int, ...]

    def pixels(self) -> NDArray[np.uint8]:
        """Return the map [H, W]."""
        flat = np.repeat(np.array(self.values, np.uint8), np.array(self.lengths, np.intp))
        return np.asarray(flat.reshape(self.size[::-1]).T)


def run_lengths(pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> RunLengths:
    """Return a map [H, W] as run lengths."""
    flat = np.asarray(pixels, np.uint8).T.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]) if flat.size else np.zeros(0, np.intp)
    lengths = np.diff(np.append(starts, flat.size))
    height, width = pixels.shape
    return RunLengths((height, width), tuple(map(int, flat[starts])), tuple(map(int, lengths)))


@dataclass(frozen=True, slots=True)
class SceneObject:
    """An object in an image. name: of its class. box: x1, y1, x2, y2. score: None for a label.

    partner: the place of the matching object of the other model (same class, IoU ≥ 0.5), in `candidate` for one of the
    reference and the other way round; None if the other model does not find it. keypoints: x, y, confidence or
    visibility.
    """

    name: str
    box: tuple[float, float, float, float]
    score: float | None = None
    partner: int | None = None
    mask: RunLengths | None = None
    keypoints: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ChangedScene:
    """An image whose objects changed much. size: width, height. labels: empty without labels.

    reference, candidate: objects with a score of at least `ObjectMatches.threshold`, and their partners below it; the
    highest score first. lost, new: objects that only the reference, or only the candidate, finds.
    """

    sample: str
    path: Path | None
    size: tuple[int, int]
    labels: tuple[SceneObject, ...]
    reference: tuple[SceneObject, ...]
    candidate: tuple[SceneObject, ...]
    lost: int
    new: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges; one edge more than counts."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ObjectMatches:
    """The reference's objects with a score above `threshold`: `found` of `objects` have a partner in the candidate.

    A partner has the same class and an IoU ≥ 0.5, of masks where there are masks, else of boxes. share: found/objects;
    low, high: its 95 % interval, from resampled images (NaN without). new: the candidate's objects above the
    threshold that the reference does not find. mean_iou: of the pairs. shift: mean of candidate − reference of the
    pairs' scores, in percentage points.
    """

    threshold: float
    objects: int
    found: int
    new: int
    share: float
    low: float
    high: float
    mean_iou: float
    shift: float


@dataclass(frozen=True, slots=True)
class PrecisionChange:
    """Average precision (IoU 0.50 … 0.95) of a class, or of objects of a size. objects: number of labels.

    drop, low, high: reference − candidate in percentage points, with its paired 95 % interval (NaN if unknown).
    reference50, candidate50: at IoU 0.50 alone.
    """

    name: str
    objects: int
    reference: float
    candidate: float
    drop: float
    low: float
    high: float
    reference50: float
    candidate50: float


@dataclass(frozen=True, slots=True)
class PrecisionCurve:
    """Precision of both models at the recalls 0.00, 0.01 … 1.00, at IoU 0.50. name: of the class."""

    name: str
    reference: tuple[float, ...]
    candidate: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ObjectChanges:
    """Objects of a candidate beside the reference's. kind: boxes, masks or keypoints. head: of the network, in words.

    shifts: candidate − reference of the scores of matched objects, −1 … 1. classes, sizes, curves: with labels.
    """

    kind: str
    head: str
    matches: ObjectMatches
    shifts: Histogram
    classes: tuple[PrecisionChange, ...] = ()
    """The largest drop first."""
    sizes: tuple[PrecisionChange, ...] = ()
    """Small (< 32² px), medium (< 96²), large, as far as there are such objects."""
    curves: tuple[PrecisionCurve, ...] = ()
    """In the order of `classes`."""
    scenes: tuple[ChangedScene, ...] = ()
    """Images that changed most, the most changed first."""
    changed_images: int = 0
    """Images in which an object is lost or new."""


@dataclass(frozen=True, slots=True)
class RegionChange:
    """IoU of a class: with the labels for both models, and of the candidate with the reference.

    drop, low, high: reference − candidate in percentage points; NaN without labels. pixels: of labels, else of the
    reference.
    """

    name: str
    pixels: int
    agreement: float
    reference: float
    candidate: float
    drop: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ChangedMap:
    """An image whose classes changed at many pixels. maps: class of every pixel, 255 where it does not count.

    label: None without labels. agreement: share of equal pixels.
    """

    sample: str
    path: Path | None
    agreement: float
    label: RunLengths | None
    reference: RunLengths
    candidate: RunLengths


@dataclass(frozen=True, slots=True)
class RegionChanges:
    """Regions of a candidate beside the reference's. names: of classes, by index.

    agreement: share of pixels with the same class; low, high: its 95 % interval from resampled images. mean_iou: of
    classes, candidate's regions with the reference's.
    """

    names: tuple[str, ...]
    agreement: float
    low: float
    high: float
    mean_iou: float
    classes: tuple[RegionChange, ...] = ()
    maps: tuple[ChangedMap, ...] = ()

"""Detections matched with labels by pycocotools, COCO's own code, as tables from which precision is summed.

Boxes are matched by their IoU, masks by the IoU of masks, keypoints by object keypoint similarity (OKS). A table holds
one class and one range of sizes. faster-coco-eval is as well maintained and faster, but does not return the matches of
single images, which intervals need.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.metrics.boxes import Objects, Outline
from quantkit.metrics.objects.found import FoundObjects, missing_library

THRESHOLDS = 10
"""IoU 0.50, 0.55 … 0.95."""
PORTION = 256
"""Images that are matched at once."""
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""COCO's ranges of areas in square pixels; of keypoints it leaves out the small ones."""
SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062),
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
"""COCO's tolerance for each of its 17 keypoints."""


class MatchBy(Enum):
    """How a detection is compared with a label; the value is pycocotools' name."""

    BOXES = "bbox"
    MASKS = "segm"
    KEYPOINTS = "keypoints"

    @property
    def most(self) -> int:
        """Return the number of detections of a class and an image that count: COCO's maxDets."""
        return 20 if self is MatchBy.KEYPOINTS else 100

    @property
    def kind(self) -> str:
        """Return boxes, masks or keypoints."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class ClassTable:
    """One class: detections by descending score, and how many objects each image has.

    images, scores [D]: of each detection. right: for each IoU threshold, the indices of the correct ones. counted
    [10, D], or [1, D] if all thresholds agree: 1 for a correct or wrong detection, 0 in a crowd or for objects of
    another size, where it is neither.
    """

    number: int
    images: NDArray[np.intp]
    scores: NDArray[np.float64]
    right: tuple[NDArray[np.intp], ...]
    counted: NDArray[np.float64]
    objects: NDArray[np.float64]


def coco_library() -> tuple[Any, Any]:
    """Return COCO and COCOeval of pycocotools. BackendError if it is missing."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        raise missing_library(error) from None
    return COCO, COCOeval


def match_objects(
    objects: Sequence[Objects], found: Sequence[FoundObjects], by: MatchBy, sizes: Sequence[tuple[int, int]]
) -> dict[str, list[ClassTable]]:
    """Return for each range of sizes a table of each class that has objects. sizes: width, height of each image.

    Images are matched PORTION at a time, because pycocotools keeps a mapping for every detection.
    """
    numbers = sorted({int(c) for o in objects for c in o.classes})
    ranges = {name: area for name, area in SIZES.items() if by is not MatchBy.KEYPOINTS or name != "small"}
    parts: dict[tuple[int, str], list[ImageMatches]] = {(c, name): [] for c in numbers for name in ranges}
    sigmas = keypoint_sigmas(objects)
    for start in range(0, len(objects), PORTION):
        some = slice(start, start + PORTION)
        truth, detections = coco_documents(objects[some], found[some], by, sizes[some], numbers)
        entries = matched_images(truth, detections, by, ranges, sigmas)
        count = len(truth["images"])
        for at, key in enumerate(parts):  # classes, then sizes, then images
            parts[key] += [
                image_matches(entry, start + i) for i, entry in enumerate(entries[at * count : at * count + count])
            ]
    tables: dict[str, list[ClassTable]] = {name: [] for name in ranges}
    for (number, name), matches in parts.items():
        table = class_table(number, matches)
        if table.objects.any():
            tables[name].append(table)
    return tables


def matched_images(
    truth: Mapping[str, Any],
    detections: Mapping[str, Any],
    by: MatchBy,
    ranges: Mapping[str, tuple[float, float]],
    sigmas: NDArray[np.float64],
) -> list[Mapping[str, Any] | None]:
    """Return pycocotools' matches: of every class, range of sizes and image, in this order."""
    coco, evaluation = coco_library()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        sides = coco(), coco()
        for side, document in zip(sides, (truth, detections), strict=True):
            side.dataset = document
            side.createIndex()
        run = evaluation(*sides, by.value)
        run.params.areaRng, run.params.areaRngLbl = [list(area) for area in ranges.values()], list(ranges)
        run.params.maxDets = [by.most]
        if by is MatchBy.KEYPOINTS:
            run.params.kpt_oks_sigmas = sigmas
        run.evaluate()
    return list(run.evalImgs)


def keypoint_sigmas(objects: Sequence[Objects]) -> NDArray[np.float64]:
    """Return COCO's sigmas for 17 keypoints, else 1/K for each of K, as Ultralytics has it."""
    count = next((o.keypoints.shape[1] for o in objects if o.keypoints is not None and len(o.keypoints)), 0)
    return np.array(SIGMAS) if count == len(SIGMAS) else np.full(count, 1.0 / max(count, 1))


def coco_documents(
    objects: Sequence[Objects],
    found: Sequence[FoundObjects],
    by: MatchBy,
    sizes: Sequence[tuple[int, int]],
    numbers: Sequence[int],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return objects and detections as COCO documents, with images numbered in order. numbers: the classes."""
    known = frozenset(numbers)
    shared = {
        "images": [{"id": i, "width": width, "height": height} for i, (width, height) in enumerate(sizes)],
        "categories": [{"id": c} for c in numbers],
    }
    truth = [label_row(o, at, i, by, sizes[i]) for i, o in enumerate(objects) for at in range(len(o.classes))]
    detections = [
        found_row(d, at, i, by) for i, d in enumerate(found) for at in range(len(d.classes)) if d.classes[at] in known
    ]
    for rows in (truth, detections):
        for number, row in enumerate(rows, 1):  # 0 would be "no match" in pycocotools
            row["id"] = number
    return {**shared, "annotations": truth}, {**shared, "annotations": detections}


def label_row(objects: Objects, at: int, image: int, by: MatchBy, size: tuple[int, int]) -> dict[str, Any]:
    """Return one label as COCO's annotation."""
    box = objects.boxes[at]
    row: dict[str, Any] = {
        "image_id": image,
        "category_id": int(objects.classes[at]),
        "bbox": corner_and_size(box),
        "iscrowd": int(objects.crowd[at]),
        "area": box_area(box) if objects.areas is None else float(objects.areas[at]),
    }
    if by is MatchBy.MASKS and objects.outlines is not None:
        row["segmentation"] = coco_outline(objects.outlines[at], box, size)
        if objects.areas is None:
            row["area"] = mask_area(row["segmentation"], size)
    if by is MatchBy.KEYPOINTS and objects.keypoints is not None:
        points = objects.keypoints[at]
        row["keypoints"] = [float(value) for value in points.ravel()]
        row["num_keypoints"] = int(np.sum(points[:, 2] > 0))
    return row


def coco_outline(outline: Outline, box: NDArray[np.float64], size: tuple[int, int]) -> Any:
    """Return an outline in COCO's format: run lengths, or polygons; the rectangle of the box if it is neither."""
    if outline.runs is not None:
        return {"size": [size[1], size[0]], "counts": [int(length) for length in outline.runs]}
    if not outline.polygons:
        x1, y1, x2, y2 = (float(edge) for edge in box)
        return [[x1, y1, x2, y1, x2, y2, x1, y2]]
    return [[float(value) for value in polygon.ravel()] for polygon in outline.polygons]


def mask_area(segmentation: Any, size: tuple[int, int]) -> float:
    """Return the area of an outline in square pixels."""
    from quantkit.metrics.objects.found import mask_library

    library = mask_library()
    parts = library.frPyObjects(segmentation, size[1], size[0])
    return float(library.area(library.merge(parts) if isinstance(parts, list) else parts))


def found_row(found: FoundObjects, at: int, image: int, by: MatchBy) -> dict[str, Any]:
    """Return one detection as COCO's result, with the area that pycocotools gives it."""
    box = found.boxes[at]
    row: dict[str, Any] = {
        "image_id": image,
        "category_id": int(found.classes[at]),
        "bbox": corner_and_size(box),
        "score": float(found.scores[at]),
        "area": box_area(box),
        "iscrowd": 0,
    }
    if by is MatchBy.MASKS and found.masks is not None:
        from quantkit.metrics.objects.found import mask_library

        row["segmentation"] = found.masks[at]
        row["area"] = float(mask_library().area(found.masks[at]))
    if by is MatchBy.KEYPOINTS and found.keypoints is not None:
        points = found.keypoints[at]
        row["keypoints"] = [float(value) for value in points.ravel()]
        row["area"] = float(np.prod(np.ptp(points[:, :2], axis=0)))
    return row


def corner_and_size(box: NDArray[np.float64]) -> list[float]:
    """Convert x1, y1, x2, y2 to x, y, width, height."""
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def box_area(box: NDArray[np.float64]) -> float:
    """Return the area in pixels."""
    return float((box[2] - box[0]) * (box[3] - box[1]))


@dataclass(frozen=True, slots=True)
class ImageMatches:
    """The detections of one class in one image. objects: number of labels that count. hit, ignored: [10, D]."""

    image: int
    objects: int
    scores: NDArray[np.float64]
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


def image_matches(entry: Mapping[str, Any] | None, image: int) -> ImageMatches:
    """Return what pycocotools found in an image; None is neither an object nor a detection."""
    if entry is None:
        none = np.zeros((THRESHOLDS, 0), np.bool_)
        return ImageMatches(image, 0, np.zeros(0), none, none)
    return ImageMatches(
        image,
        int(np.sum(np.asarray(entry["gtIgnore"]) == 0)),
        np.asarray(entry["dtScores"], np.float64),
        np.asarray(entry["dtMatches"]).reshape(THRESHOLDS, -1) > 0,
        np.asarray(entry["dtIgnore"]).reshape(THRESHOLDS, -1) > 0,
    )


def class_table(number: int, images: Sequence[ImageMatches]) -> ClassTable:
    """Join the matches of one class in all images."""
    which = np.concatenate([np.full(len(found.scores), found.image, np.intp) for found in images])
    every = np.concatenate([found.scores for found in images])
    order = np.argsort(-every, kind="stable")
    counts = ~np.concatenate([found.ignored for found in images], axis=1)[:, order]
    matches = np.concatenate([found.hit for found in images], axis=1)[:, order] & counts
    kept = counts.any(axis=0)  # the others are neither correct nor wrong
    order, counts, matches = order[kept], counts[:, kept], matches[:, kept]
    right = tuple(np.flatnonzero(row) for row in matches)
    counted = counts if counts.size and (counts != counts[0]).any() else counts[:1]
    objects = np.array([found.objects for found in images], np.float64)
    return ClassTable(number, which[order], every[order], right, counted.astype(np.float64), objects)

"""COCO's mAP (mean average precision at IoU 0.50 … 0.95) of detectors of the YOLO family.

pycocotools, COCO's own code, matches detections with objects (extra `detection`; faster-coco-eval is as well maintained
and faster, but does not return the matches of single images, which the interval needs). Precision and recall are then
summed here, with a weight for each image: with all weights 1 the result is COCO's mAP, and with the counts of a
bootstrap sample it is the mAP of that sample, without matching again (Everingham et al., IJCV 88 (2010); Lin et al.,
ECCV 2014).
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import BackendError, DataError, UsageError
from quantkit.extras import install_command
from quantkit.metrics.boxes import Objects, Scene
from quantkit.metrics.metric import BuiltInMetric, MetricFactory, MetricResult
from quantkit.metrics.scene_labels import open_scenes
from quantkit.metrics.task import Task
from quantkit.metrics.yolo_heads import Detections, HeadFamily, decode_head, infer_head_family
from quantkit.values import Array

RECALLS = np.linspace(0.0, 1.0, 101)
THRESHOLDS = 10
MOST_OF_A_CLASS = 100
"""COCO's maxDets."""


class CocoMap:
    """mAP of one output. family: None to infer it from the output's shape. Labels are `Scene` values."""

    name = "mAP50-95"
    share = True
    higher_is_better = True

    def __init__(self, family: HeadFamily | None = None, output: str | None = None) -> None:
        """BackendError if pycocotools is missing."""
        coco_library()
        self._family, self._output = family, output
        self._objects: list[Objects] = []
        self._found: list[Detections] = []

    def add(self, outputs: Mapping[str, Array], labels: Sequence[Any] | Array, names: Sequence[str]) -> None:
        """Add a batch: a head's output [N, …] and a `Scene` for each image. UsageError; DataError names the image."""
        name = self._output or choose_head_output(outputs)
        head = outputs[name]
        self._family = self._family or infer_head_family(head.shape, name)
        if head.ndim != 3 or len(head) != len(names) or not self._family.fits(head.shape):
            raise DataError(
                f"output {name} {list(head.shape)} is not a head of type {self._family.value} for {len(names)} images "
                f"({names[0]} …)",
                remedy="name head and output: --metric yolo:v8@NAME",
            )
        for values, scene, image in zip(head, labels, names, strict=True):
            if not isinstance(scene, Scene):
                raise DataError(f"{image} has no boxes as its label", remedy="give COCO's JSON or YOLO's text files")
            if not np.isfinite(values).all():
                raise DataError(
                    f"{image}: output {name} holds NaN or Inf",
                    remedy="find the layer that produces it: quantkit layers",
                )
            self._check_classes(scene.objects, values.shape, image, name)
            found = decode_head(values, self._family)
            boxes = scene.geometry.to_image(found.boxes)
            self._found.append(Detections(boxes, found.scores, found.classes))
            self._objects.append(scene.objects)

    def _check_classes(self, objects: Objects, shape: tuple[int, ...], image: str, output: str) -> None:
        if self._family is HeadFamily.END_TO_END or not objects.classes.size:
            return
        classes = shape[0] - 4 if self._family is HeadFamily.V8 else shape[1] - 5
        if (highest := int(objects.classes.max())) >= classes:
            raise DataError(
                f"{image}: a box has class {highest}, but output {output} has {classes} classes (0 … {classes - 1})",
                remedy="give labels of the network's classes, or name the head: --metric yolo:v8, yolo:v5",
            )

    def result(self) -> MetricResult:
        """Return the mAP over all images, and over any selection of them. DataError if there are no objects at all."""
        if not any(objects.classes.size for objects in self._objects):
            raise DataError(f"{self.name}: no image has an object", remedy="give labels with boxes")
        tables = match_detections(self._objects, self._found)
        count = len(self._objects)

        def figure(chosen: NDArray[np.intp]) -> float:
            return mean_average_precision(tables, np.bincount(chosen, minlength=count).astype(np.float64))

        return MetricResult(mean_average_precision(tables, np.ones(count)), None, figure, count)


def coco_library() -> tuple[Any, Any]:
    """Return COCO and COCOeval of pycocotools. BackendError if it is missing."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pycocotools":
            raise
        remedy = install_command("detection")
        raise BackendError("mAP needs pycocotools, which is not installed", remedy=remedy) from None
    return COCO, COCOeval


def choose_head_output(outputs: Mapping[str, Array]) -> str:
    """Return the name of the only output, or of the only one with three dimensions. UsageError."""
    fitting = [name for name, output in outputs.items() if output.ndim == 3]
    if len(outputs) == 1 or len(fitting) == 1:
        return fitting[0] if fitting else next(iter(outputs))
    shapes = ", ".join(f"{name} {list(output.shape)}" for name, output in outputs.items())
    raise UsageError(
        f"cannot tell which output holds the boxes: {shapes}",
        remedy="name it: --metric yolo@NAME; export a network with one output per scale with its decoding",
    )


@dataclass(frozen=True, slots=True)
class ClassTable:
    """One class: detections by descending score, and how many objects each image has.

    images [D]: the image of each detection. right: for each IoU threshold, the indices of the correct ones. counted
    [10, D], or [1, D] if all thresholds agree: 1 for a correct or wrong detection, 0 in a crowd, where it is neither.
    """

    images: NDArray[np.intp]
    right: tuple[NDArray[np.intp], ...]
    counted: NDArray[np.float64]
    objects: NDArray[np.float64]


def match_detections(objects: Sequence[Objects], found: Sequence[Detections]) -> list[ClassTable]:
    """Return a table for each class that has objects, matched by pycocotools."""
    coco, evaluation = coco_library()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth, detections = coco(), coco()
        truth.dataset, detections.dataset = coco_documents(objects, found)
        truth.createIndex()
        detections.createIndex()
        run = evaluation(truth, detections, "bbox")
        run.params.areaRng, run.params.areaRngLbl = [[0.0, 1e10]], ["all"]
        run.params.maxDets = [MOST_OF_A_CLASS]
        run.evaluate()
    count = len(objects)
    tables = [class_table(run.evalImgs[at : at + count], count) for at in range(0, len(run.evalImgs), count)]
    return [table for table in tables if table.objects.any()]


def coco_documents(objects: Sequence[Objects], found: Sequence[Detections]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return objects and detections as COCO documents, with images numbered in order."""
    numbers = {int(c) for o in objects for c in o.classes}
    shared = {"images": [{"id": i} for i in range(len(objects))], "categories": [{"id": c} for c in sorted(numbers)]}
    truth = [
        {"image_id": i, "category_id": int(c), "bbox": corner_and_size(b), "iscrowd": int(w), "area": box_area(b)}
        for i, o in enumerate(objects)
        for c, b, w in zip(o.classes, o.boxes, o.crowd, strict=True)
    ]
    detections = [
        {"image_id": i, "category_id": int(c), "bbox": corner_and_size(b), "score": float(s), "area": box_area(b)}
        for i, d in enumerate(found)
        for c, b, s in zip(d.classes, d.boxes, d.scores, strict=True)
        if int(c) in numbers
    ]
    for rows in (truth, detections):
        for number, row in enumerate(rows, 1):  # 0 would be "no match" in pycocotools
            row["id"] = number
            row.setdefault("iscrowd", 0)
    return {**shared, "annotations": truth}, {**shared, "annotations": detections}


def corner_and_size(box: NDArray[np.float64]) -> list[float]:
    """Convert x1, y1, x2, y2 to x, y, width, height."""
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def box_area(box: NDArray[np.float64]) -> float:
    """Return the area in pixels."""
    return float((box[2] - box[0]) * (box[3] - box[1]))


def class_table(images: Sequence[Mapping[str, Any] | None], count: int) -> ClassTable:
    """Collect what pycocotools found for one class in every image."""
    objects = np.zeros(count)
    which, scores = [np.zeros(0, np.intp)], [np.zeros(0)]
    hit, ignored = [np.zeros((THRESHOLDS, 0), np.bool_)], [np.zeros((THRESHOLDS, 0), np.bool_)]
    for image, entry in enumerate(images):
        if entry is None:  # neither an object nor a detection of this class
            continue
        objects[image] = np.sum(np.asarray(entry["gtIgnore"]) == 0)
        which.append(np.full(len(entry["dtScores"]), image, np.intp))
        scores.append(np.asarray(entry["dtScores"], np.float64))
        hit.append(np.asarray(entry["dtMatches"]).reshape(THRESHOLDS, -1) > 0)
        ignored.append(np.asarray(entry["dtIgnore"]).reshape(THRESHOLDS, -1) > 0)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    matches, counts = np.concatenate(hit, axis=1)[:, order], ~np.concatenate(ignored, axis=1)[:, order]
    right = tuple(np.flatnonzero(row) for row in matches & counts)
    counted = counts if (counts != counts[0]).any() else counts[:1]
    return ClassTable(np.concatenate(which)[order], right, counted.astype(np.float64), objects)


def mean_average_precision(tables: Sequence[ClassTable], weights: NDArray[np.float64]) -> float:
    """Average the precision at 101 recalls over the thresholds and the classes with objects; weights [N] of images.

    NaN if the weighted images hold no object.
    """
    found = [p for table in tables if (p := average_precision(table, weights)) is not None]
    return float(np.mean(found)) if found else float("nan")


def average_precision(table: ClassTable, weights: NDArray[np.float64]) -> float | None:
    """Return the average precision of one class, mean over the thresholds; None without an object in these images."""
    objects = float(table.objects @ weights)
    if objects == 0:
        return None
    seen = np.cumsum(table.counted * weights[table.images], axis=1)
    total = 0.0
    for at, found in enumerate(table.right):
        # Precision only falls between correct detections, so they alone determine the maximum at a recall.
        gained = np.cumsum(weights[table.images[found]])
        precision = gained / np.maximum(seen[at % len(seen)][found], np.spacing(1))
        best = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(gained / objects, RECALLS, side="left")
        total += float(best[places[places < best.size]].sum())
    return total / (THRESHOLDS * RECALLS.size)


def create_coco_map(match: re.Match[str], output: str | None) -> MetricFactory:
    """Return a factory for `yolo`, or `yolo:HEAD` for a head of that name. UsageError if there is no such head."""
    head, known = match[1], {family.value: family for family in HeadFamily}
    if head is not None and head not in known:
        raise UsageError(f"--metric yolo:{head}: unknown head {head!r}", remedy=f"use one of {', '.join(known)}")
    return lambda: CocoMap(None if head is None else known[head], output)


METRIC = BuiltInMetric(
    examples={"yolo": "COCO's mAP"},
    pattern=r"yolo(?::(\w+))?",
    create=create_coco_map,
    share=True,
    open_labels=open_scenes,
    label_kind="boxes",
    task=Task.DETECT,
)

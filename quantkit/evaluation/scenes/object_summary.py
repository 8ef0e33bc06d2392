"""The summary of changed objects: pairs with the reference, precision by class and size, and the images to look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantkit.evaluation import bootstrap
from quantkit.evaluation.class_drops import class_name
from quantkit.evaluation.object_changes import (
    ChangedScene,
    Histogram,
    ObjectChanges,
    ObjectMatches,
    PrecisionChange,
    PrecisionCurve,
    RunLengths,
    SceneObject,
)
from quantkit.evaluation.scenes.object_pairs import THRESHOLD, PairedObjects, pair_images
from quantkit.metrics.boxes import Objects, Scene
from quantkit.metrics.heads.head import Head
from quantkit.metrics.objects.figures import ALL, ObjectFigures
from quantkit.metrics.objects.found import FoundObjects, Runs, mask_counts, mask_library
from quantkit.metrics.objects.matching import coco_outline
from quantkit.metrics.objects.precision import precision_curve
from quantkit.metrics.task import Task

MOST_SCENES = 16
"""Images whose objects are kept."""
MOST_OBJECTS = 100
"""Objects of an image that are kept for each model."""
TAIL = 0.025
"""Probability on each side of a 95 % interval."""
SIZE_REPLICATES = 200
"""Replicates of the intervals by size."""
EDGES = np.linspace(-1.0, 1.0, 41)
"""Edges of the histogram of shifts."""
KINDS = {Task.DETECT: "boxes", Task.SEGMENT: "masks", Task.POSE: "keypoints"}


@dataclass(frozen=True, slots=True)
class SceneNames:
    """Names of samples and classes, and the path of a sample if it is an image file."""

    samples: Sequence[str]
    classes: Sequence[str]
    path: Callable[[str], Path | None]


@dataclass(frozen=True, slots=True)
class ModelObjects:
    """The objects of one model. figures: with labels. replicates [R, 1 + classes]: of the figures, bootstrapped."""

    head: Head
    found: Sequence[FoundObjects]
    figures: ObjectFigures | None = None
    replicates: NDArray[np.float64] | None = None


def object_changes(reference: ModelObjects, candidate: ModelObjects, names: SceneNames, limit: int) -> ObjectChanges:
    """Return how the candidate's objects differ from the reference's. limit: most images to keep."""
    pairs = pair_images(reference.found, candidate.found)
    shifts = np.concatenate([pair.shifts for pair in pairs]) if pairs else np.zeros(0)
    counts, _ = np.histogram(np.clip(shifts, -1.0, 1.0), EDGES)
    scenes = reference.figures.scenes if reference.figures is not None else None
    classes, sizes, curves = precision_changes(reference, candidate, names.classes)
    masks = any(found.masks is not None for found in reference.found)
    return ObjectChanges(
        kind="boxes" if reference.head.task is Task.SEGMENT and not masks else KINDS[reference.head.task],
        head=reference.head.summary,
        matches=object_matches(pairs),
        shifts=Histogram(tuple(map(float, np.round(EDGES, 3))), tuple(map(int, counts))),
        classes=classes,
        sizes=sizes,
        curves=curves,
        scenes=changed_scenes(pairs, scenes, names, min(limit, MOST_SCENES)),
        changed_images=sum(pair.lost.size + pair.new.size > 0 for pair in pairs),
    )


def object_matches(pairs: Sequence[PairedObjects]) -> ObjectMatches:
    """Count lost, new and found objects, with an interval of the share found."""
    kept = np.array([pair.kept.size for pair in pairs], np.float64)
    objects = kept + [pair.lost.size for pair in pairs]
    total, found = int(objects.sum()), int(kept.sum())
    low = high = math.nan
    if total and found in (0, total):  # the bootstrap would be sure; exact for independent objects (Clopper-Pearson)
        bound = TAIL ** (1 / total)
        low, high = (bound, 1.0) if found else (0.0, 1.0 - bound)
    elif total and len(pairs) > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = bootstrap.replicate_set(lambda counts: ((counts @ kept) / (counts @ objects))[:, None], len(pairs))
        interval = bootstrap.percentile_interval(draws[:, 0])
        low, high = interval.low, interval.high
    overlaps = np.concatenate([pair.overlaps[pair.kept] for pair in pairs]) if pairs else np.zeros(0)
    shifts = np.concatenate([pair.shifts for pair in pairs]) if pairs else np.zeros(0)
    return ObjectMatches(
        threshold=THRESHOLD,
        objects=total,
        found=found,
        new=sum(pair.new.size for pair in pairs),
        share=found / total if total else math.nan,
        low=low,
        high=high,
        mean_iou=float(overlaps.mean()) if overlaps.size else math.nan,
        shift=100.0 * float(shifts.mean()) if shifts.size else math.nan,
    )


def precision_changes(
    reference: ModelObjects, candidate: ModelObjects, names: Sequence[str]
) -> tuple[tuple[PrecisionChange, ...], tuple[PrecisionChange, ...], tuple[PrecisionCurve, ...]]:
    """Return average precision by class, the largest drop first, by size, and the curves of the classes."""
    first, second = reference.figures, candidate.figures
    if first is None or second is None:
        return (), (), ()
    ones = np.ones((1, len(first.scenes)))
    before, after = (figures.precisions(ALL, ones)[0] for figures in (first, second))
    apart = None
    if reference.replicates is not None and candidate.replicates is not None:
        apart = 100.0 * (reference.replicates - candidate.replicates)[:, 1:]
    order = np.argsort(-(before - after)[:, 0], kind="stable")
    objects = first.objects(ALL)
    classes, curves = [], []
    for at in order:
        name = class_name(first.classes[at], names)
        column = None if apart is None else apart[:, at]
        classes.append(precision_change(name, int(objects[at]), before[at], after[at], column))
        curves.append(
            PrecisionCurve(
                name, *(tuple(map(float, precision_curve(figures.tables[ALL][at]))) for figures in (first, second))
            )
        )
    return tuple(classes), size_changes(first, second, ones), tuple(curves)


def size_changes(first: ObjectFigures, second: ObjectFigures, ones: NDArray[np.float64]) -> tuple[PrecisionChange, ...]:
    """Return the mean average precision of objects of each size, as far as there are such objects."""
    sizes = first.sizes

    def by_size(figures: ObjectFigures, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return np.stack([mean_classes(figures.precisions(size, weights)) for size in sizes], axis=1)

    if not sizes:
        return ()
    before, after = by_size(first, ones)[0], by_size(second, ones)[0]
    drawn = None
    if ones.size > 1:
        drawn = bootstrap.replicate_set(
            lambda counts: 100.0 * (by_size(first, counts) - by_size(second, counts))[..., 0],
            ones.size,
            SIZE_REPLICATES,
        )
    return tuple(
        precision_change(
            size, int(first.objects(size).sum()), before[at], after[at], None if drawn is None else drawn[:, at]
        )
        for at, size in enumerate(sizes)
    )


def mean_classes(precisions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over classes [R, 2] of [R, classes, 2], without those that have no objects."""
    known = ~np.isnan(precisions)
    count = known.sum(axis=1)
    return np.asarray(np.where(count > 0, np.where(known, precisions, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan))


def precision_change(
    name: str,
    objects: int,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    apart: NDArray[np.float64] | None,
) -> PrecisionChange:
    """Return one row. before, after [2]: over all thresholds, and at IoU 0.50. apart [R]: bootstrapped drops."""
    low = high = math.nan
    if apart is not None:
        interval = bootstrap.percentile_interval(apart)
        low, high = interval.low, interval.high
    drop = 100.0 * float(before[0] - after[0])
    return PrecisionChange(
        name, objects, float(before[0]), float(after[0]), drop, low, high, float(before[1]), float(after[1])
    )


def changed_scenes(
    pairs: Sequence[PairedObjects], scenes: Sequence[Scene] | None, names: SceneNames, limit: int
) -> tuple[ChangedScene, ...]:
    """Return the images that changed most: by the scores of lost and new objects, then by the shifts of the others."""
    ranks = []
    for at, pair in enumerate(pairs):
        moved = float(pair.reference.scores[pair.lost].sum() + pair.candidate.scores[pair.new].sum())
        shifted = float(np.abs(pair.shifts).sum())
        if moved or shifted:
            ranks.append((-moved, -shifted, at))
    return tuple(
        changed_scene(pairs[at], names.samples[at], None if scenes is None else scenes[at], names)
        for *_, at in sorted(ranks)[:limit]
    )


def changed_scene(pair: PairedObjects, sample: str, scene: Scene | None, names: SceneNames) -> ChangedScene:
    """Return one image with the objects that count, or whose partner counts."""
    partners = pair.partners
    counts = pair.candidate.scores >= THRESHOLD
    shown = (pair.reference.scores >= THRESHOLD) | ((partners >= 0) & np.append(counts, False)[partners])
    first = np.flatnonzero(shown)[:MOST_OBJECTS]
    also = np.zeros(len(counts), np.bool_)
    also[partners[first][partners[first] >= 0]] = True
    second = np.flatnonzero(counts | also)[:MOST_OBJECTS]
    place = {int(at): number for number, at in enumerate(second)}
    forward = [place.get(int(partners[at])) for at in first]
    backward: list[int | None] = [None] * len(second)
    for number, other in enumerate(forward):
        if other is not None:
            backward[other] = number
    return ChangedScene(
        sample=sample,
        path=names.path(sample),
        size=image_size(pair, scene),
        labels=() if scene is None else label_objects(scene, names.classes),
        reference=scene_objects(pair.reference.only(first), forward, names.classes),
        candidate=scene_objects(pair.candidate.only(second), backward, names.classes),
        lost=int(pair.lost.size),
        new=int(pair.new.size),
    )


def image_size(pair: PairedObjects, scene: Scene | None) -> tuple[int, int]:
    """Return width and height of the image; without a label, what holds all boxes."""
    if scene is not None:
        return scene.geometry.size
    if pair.reference.size is not None:
        return pair.reference.size
    edges = np.concatenate([pair.reference.boxes, pair.candidate.boxes])[:, 2:]
    width, height = np.ceil(edges.max(axis=0)) if len(edges) else (0, 0)
    return int(width), int(height)


def scene_objects(found: FoundObjects, partners: Sequence[int | None], names: Sequence[str]) -> tuple[SceneObject, ...]:
    """Return the objects of one model."""
    return tuple(
        SceneObject(
            name=class_name(int(found.classes[at]), names),
            box=four(found.boxes[at]),
            score=float(found.scores[at]),
            partner=partner,
            mask=None if found.masks is None else decoded_mask(found.masks[at]),
            keypoints=() if found.keypoints is None else points_of(found.keypoints[at]),
        )
        for at, partner in enumerate(partners)
    )


def decoded_mask(runs: Runs) -> RunLengths:
    """Return a mask of pycocotools as run lengths."""
    lengths = mask_counts(runs)
    height, width = runs["size"]
    pairs = [(at % 2, length) for at, length in enumerate(lengths) if length]
    return RunLengths((int(height), int(width)), *(tuple(row) for row in zip(*pairs, strict=True)))


def label_objects(scene: Scene, names: Sequence[str]) -> tuple[SceneObject, ...]:
    """Return the labels of an image."""
    objects = scene.objects
    return tuple(
        SceneObject(
            name=class_name(int(objects.classes[at]), names),
            box=four(objects.boxes[at]),
            mask=label_mask(objects, at, scene.geometry.size),
            keypoints=() if objects.keypoints is None else points_of(objects.keypoints[at]),
        )
        for at in range(min(len(objects.classes), MOST_OBJECTS))
    )


def label_mask(objects: Objects, at: int, size: tuple[int, int]) -> RunLengths | None:
    """Return the outline of a label as a mask; None without outlines."""
    if objects.outlines is None:
        return None
    library = mask_library()
    parts = library.frPyObjects(coco_outline(objects.outlines[at], objects.boxes[at], size), size[1], size[0])
    return decoded_mask(library.merge(parts) if isinstance(parts, list) else parts)


def four(box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return a box as floats, to a hundredth of a pixel."""
    x1, y1, x2, y2 = (round(float(edge), 2) for edge in box)
    return x1, y1, x2, y2


def points_of(points: NDArray[np.float64]) -> tuple[tuple[float, float, float], ...]:
    """Return keypoints [K, 3] as floats, to a hundredth of a pixel."""
    return tuple((round(float(x), 2), round(float(y), 2), round(float(c), 4)) for x, y, c in points)

"""COCO's mAP as a metric: of boxes, masks or keypoints, on the labels of images (`Scene`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError, UsageError
from quantkit.metrics.boxes import Scene
from quantkit.metrics.heads.facts import example_facts
from quantkit.metrics.heads.find import LAYOUTS, require_head
from quantkit.metrics.heads.head import Head, HeadQuestion
from quantkit.metrics.metric import MetricFactory, MetricResult
from quantkit.metrics.objects.collect import ObjectCollector
from quantkit.metrics.objects.figures import ALL, ObjectFigures
from quantkit.metrics.objects.found import FoundObjects
from quantkit.metrics.objects.matching import MatchBy, coco_library, match_objects
from quantkit.metrics.objects.precision import best_working_point, mean_of_known
from quantkit.metrics.task import Task
from quantkit.values import Array


@dataclass(frozen=True, slots=True)
class MapKind:
    """A kind of mAP. word: what users write after --metric. prefix: of the names of figures."""

    word: str
    by: MatchBy
    task: Task
    prefix: str = ""
    at_50: bool = False

    @property
    def name(self) -> str:
        """Return the name of the main figure."""
        return f"{self.prefix}{'mAP50' if self.at_50 else 'mAP50-95'}"


BOXES = MapKind("map", MatchBy.BOXES, Task.DETECT)
BOXES_50 = replace(BOXES, word="map50", at_50=True)
MASKS = MapKind("mask-map", MatchBy.MASKS, Task.SEGMENT, "mask-")
KEYPOINTS = MapKind("keypoint-map", MatchBy.KEYPOINTS, Task.POSE, "keypoint-")


class ObjectMap:
    """mAP of a network. layout: of its head; None to find it. output: the output with the boxes or scores, or None."""

    share = True
    higher_is_better = True

    def __init__(self, kind: MapKind, layout: str | None = None, output: str | None = None) -> None:
        """BackendError if pycocotools is missing."""
        coco_library()
        self.name = kind.name
        self.collector: ObjectCollector | None = None
        self._kind, self._layout, self._output = kind, layout, output
        self._scenes: list[Scene] = []

    def prepare(self, question: HeadQuestion) -> None:
        """Find the head. UsageError if it is ambiguous, or finds something else."""
        network = question.network
        wanted = network.task if network.task is not None or self._kind is BOXES else self._kind.task
        asked = replace(question, network=replace(network, task=wanted), chosen=self._output)
        head = require_head(asked, self._layout, self._kind.word)
        if self._kind.by is not MatchBy.BOXES and head.task is not self._kind.task:
            raise UsageError(
                f"the {head.summary} finds no {self._kind.by.kind}", remedy="measure its boxes: --metric map"
            )
        self.collector = ObjectCollector(head, masks=self._kind.by is MatchBy.MASKS)

    def add(self, outputs: Mapping[str, Array], labels: Sequence[Any] | Array, names: Sequence[str]) -> None:
        """Add a batch: the head's outputs and a `Scene` for each image. UsageError; DataError names the image."""
        for scene, image in zip(labels, names, strict=True):
            if not isinstance(scene, Scene):
                raise DataError(f"{image} has no boxes as its label", remedy="give COCO's JSON or YOLO's text files")
        if self.collector is None:
            self.prepare(HeadQuestion(example_facts(outputs)))
        assert self.collector is not None
        for scene, image in zip(labels, names, strict=True):
            refuse_unknown_classes(self.collector.head, scene, image)
        before = len(self.collector.found)
        self.collector.add(outputs, [scene.geometry for scene in labels], names, labels[0].ids)
        for scene, image, found in zip(labels, names, self.collector.found[before:], strict=True):
            refuse_other_labels(self._kind.by, scene, found, image)
        self._scenes.extend(labels)

    def state(self) -> Mapping[str, Any]:
        """Return detections and labels of each image."""
        return {"found": [] if self.collector is None else self.collector.found, "scenes": self._scenes}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the images that follow."""
        assert self.collector is not None
        self.collector.found.extend(state["found"])
        self._scenes.extend(state["scenes"])

    def result(self) -> MetricResult:
        """Return the mAP over all images, and over any selection of them. DataError if there are no objects at all."""
        objects = [scene.objects for scene in self._scenes]
        if self.collector is None or not any((~found.crowd).any() for found in objects):
            raise DataError(f"{self.name}: no image has an object", remedy="give labels with boxes")
        kind, found = self._kind, self.collector.found
        sizes = [scene.geometry.size for scene in self._scenes]
        tables = match_objects(objects, found, kind.by, sizes)
        if not tables[ALL]:
            raise DataError(f"{self.name}: no object has {kind.by.kind} as its label", remedy=f"label {kind.by.kind}")
        figures = ObjectFigures(kind.by, tables, found, self._scenes, kind.at_50)
        count = len(objects)
        further = further_figures(figures, kind)
        if kind.by is not MatchBy.BOXES:
            boxes = replace(figures, by=MatchBy.BOXES, tables=match_objects(objects, found, MatchBy.BOXES, sizes))
            further[BOXES.name] = float(boxes.main(np.ones((1, count)))[0])

        def figure(chosen: NDArray[np.intp]) -> float:
            return float(figures.main(np.bincount(chosen, minlength=count).astype(np.float64)[None])[0])

        value = float(figures.main(np.ones((1, count)))[0])
        return MetricResult(value, None, figure, count, figures.replicate, further, figures)


def further_figures(figures: ObjectFigures, kind: MapKind) -> dict[str, float]:
    """Return the figures beside the main one, by name."""
    found = mean_of_known(figures.precisions(ALL, np.ones((1, len(figures.scenes))))[0].T)
    point = best_working_point(figures.tables[ALL])
    other = replace(kind, at_50=not kind.at_50)
    return {
        other.name: float(found[int(other.at_50)]),
        f"{kind.prefix}precision": point.precision,
        f"{kind.prefix}recall": point.recall,
    }


def further_names(*kinds: MapKind) -> tuple[str, ...]:
    """Return the names of all figures of these kinds."""
    made = [(kind.name, f"{kind.prefix}mAP50", f"{kind.prefix}precision", f"{kind.prefix}recall") for kind in kinds]
    return tuple(dict.fromkeys(name for names in made for name in names))


def refuse_unknown_classes(head: Head, scene: Scene, image: str) -> None:
    """Raise DataError if an object has a class that the network does not have."""
    classes = scene.objects.classes
    if head.classes is None or not classes.size or (scene.ids and head.classes > len(scene.ids)):
        return
    if (highest := int(classes.max())) >= head.classes:
        raise DataError(
            f"{image}: a box has class {highest}, but output {head.outputs[0]} has the classes 0 … {head.classes - 1}",
            remedy="give labels of the network's classes, or name the head: --metric map:v8, map:v5",
        )


def refuse_other_labels(by: MatchBy, scene: Scene, found: FoundObjects, image: str) -> None:
    """Raise DataError if objects lack outlines or keypoints that are measured, or have another number of keypoints."""
    objects = scene.objects
    if not objects.classes.size or by is MatchBy.BOXES:
        return
    given = objects.outlines if by is MatchBy.MASKS else objects.keypoints
    if given is None:
        raise DataError(f"{image}: its labels have no {by.kind}", remedy="measure its boxes: --metric map")
    if by is MatchBy.KEYPOINTS and objects.keypoints is not None and found.keypoints is not None:
        first, second = objects.keypoints.shape[1], found.keypoints.shape[1]
        if first != second:
            raise DataError(
                f"{image}: its objects have {first} keypoints, those of the network {second}",
                remedy="give labels of the network's keypoints",
            )


def object_map_creator(
    choose: Callable[[re.Match[str]], MapKind],
) -> Callable[[re.Match[str], str | None], MetricFactory]:
    """Return how a metric `WORD`, or `WORD:HEAD` for a head of that name, is created."""

    def create(match: re.Match[str], output: str | None) -> MetricFactory:
        kind, layout = choose(match), match["head"]
        if layout is not None and layout not in LAYOUTS:
            raise UsageError(f"--metric {match[0]}: unknown head {layout!r}", remedy=f"use one of {', '.join(LAYOUTS)}")
        return lambda: ObjectMap(kind, layout, output)

    return create

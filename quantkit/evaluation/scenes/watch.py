"""Watches what the models of an evaluation find, beside the metrics: their objects, or the class of every pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantkit.data import Portion
from quantkit.errors import DataError
from quantkit.evaluation.scenes.named_head import named_head
from quantkit.evaluation.scenes.object_pairs import LEAST
from quantkit.evaluation.subjects import Subject
from quantkit.metrics.boxes import ImageGeometry, image_geometry
from quantkit.metrics.heads.facts import example_facts
from quantkit.metrics.heads.find import find_head
from quantkit.metrics.heads.head import HeadQuestion
from quantkit.metrics.metric import Metric, SizeOf
from quantkit.metrics.objects.collect import ObjectCollector
from quantkit.metrics.objects.object_map import ObjectMap
from quantkit.metrics.scene_labels import image_geometries
from quantkit.metrics.task import Task, network_facts
from quantkit.preprocess import Preprocess
from quantkit.values import Array

Outputs = Mapping[str, Array]
Geometries = Callable[[Portion], Sequence[ImageGeometry]]
CHANNELS = (1, 3, 4)
"""Channels of an image."""


@dataclass(slots=True)
class ObjectWatch:
    """The objects of all models. collectors: of each model. geometries: None if metrics feed the collectors.

    fault: why the objects cannot be compared, if that turned out.
    """

    collectors: Sequence[ObjectCollector]
    geometries: Geometries | None = None
    classes: tuple[str, ...] = ()
    fault: str = ""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the outputs that hold the objects."""
        return self.collectors[0].head.outputs

    def state(self) -> Mapping[str, Any]:
        """Return the objects of all images, unless the metrics hold them, and the fault."""
        own = self.geometries is not None and not self.fault
        return {"fault": self.fault, "found": [found.found for found in self.collectors] if own else []}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the images that follow."""
        self.fault = self.fault or state["fault"]
        if self.geometries is not None and not self.fault:
            for collector, found in zip(self.collectors, state["found"], strict=True):
                collector.found.extend(found)

    def add(self, portion: Portion, found: Sequence[Outputs]) -> None:
        """Add a batch and the outputs of every model, unless the metrics do."""
        if self.geometries is None or self.fault:
            return
        try:
            ways = self.geometries(portion)
            for collector, outputs in zip(self.collectors, found, strict=True):
                collector.add(outputs, ways, portion.names)
        except DataError as error:
            self.fault = str(error).partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Search:
    """How to look for a head that no metric measures. named: metrics that name it. unnamed: look without a name."""

    named: tuple[str, ...] = ()
    unnamed: bool = False


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where the samples come from. size_of: the size of an image by its name, for images in files; else None."""

    size_of: SizeOf | None = None
    spec: Preprocess | None = None

    def geometries(self, portion: Portion) -> Sequence[ImageGeometry]:
        """Return the mapping of each image to the input; samples that are no image files are the input themselves."""
        if self.size_of is not None and self.spec is not None:
            return image_geometries(self.size_of, portion.names, self.spec)
        return [identity_geometry(portion)] * portion.samples

    def geometry_of(self, size: tuple[int, int]) -> ImageGeometry | None:
        """Return the mapping of an image of this size; None if the samples are no image files."""
        return None if self.spec is None else image_geometry(self.spec, size)


def identity_geometry(portion: Portion) -> ImageGeometry:
    """Return the geometry of samples that are inputs already. DataError if none of them is an image."""
    for values in portion.batch.values():
        if values.ndim == 4:
            first = values.shape[1] in CHANNELS or values.shape[3] not in CHANNELS
            height, width = values.shape[2:] if first else values.shape[1:3]
            return ImageGeometry((width, height), (1.0, 1.0), (0.0, 0.0), (width, height))
    raise DataError("no input is an image", remedy="give images")


def head_question(subject: Subject, outputs: Outputs) -> HeadQuestion:
    """Return what a model's head is found from: its outputs, its graph and its metadata."""
    graph = None if subject.model is None else subject.model.proto.graph
    metadata = {} if subject.model is None else subject.model.metadata
    return HeadQuestion(example_facts(outputs, graph), network_facts(metadata))


def watch_objects(
    question: HeadQuestion, metrics: Sequence[Sequence[Metric]], source: ImageSource, search: Search
) -> ObjectWatch | None:
    """Return what watches the objects; None if the network finds none, or nothing tells.

    metrics: of each model; those of objects get their head.
    """
    names = question.network.names
    leads: list[ObjectCollector] = []
    for of_model in metrics:
        found = [metric for metric in of_model if isinstance(metric, ObjectMap)]
        for metric in found:
            metric.prepare(question)
        if found and found[0].collector is not None:
            leads.append(found[0].collector)
    if leads:
        return ObjectWatch(leads, None, names)
    head = named_head(question, search.named) or (find_head(question) if search.unnamed else None)
    if head is None:
        return None
    masks = head.task is Task.SEGMENT and has_mask_library()
    return ObjectWatch([ObjectCollector(head, masks, LEAST) for _ in metrics], source.geometries, names)


def has_mask_library() -> bool:
    """Return True if pycocotools is installed."""
    from importlib.util import find_spec

    return find_spec("pycocotools") is not None

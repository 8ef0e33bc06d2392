"""`miou`: the mean IoU of the classes of semantic segmentation, over all pixels of all images; and pixel accuracy.

The IoU of a class is the number of pixels that have it in label and prediction, divided by that of pixels that have it
in either. Classes that occur in neither do not count. Pixels with label 255 do not count, nor do those that a crop has
left out of the input. Predictions are compared in the image: scores are interpolated linearly to its pixels.

Source: Everingham et al., IJCV 111 (2015), over the whole set as in Cordts et al., CVPR 2016 (arXiv 1604.01685).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError
from quantkit.metrics.boxes import IGNORED, ClassMap
from quantkit.metrics.heads.facts import example_facts
from quantkit.metrics.heads.head import HeadQuestion
from quantkit.metrics.metric import BuiltInMetric, MetricFactory, MetricResult
from quantkit.metrics.objects.precision import mean_of_known
from quantkit.metrics.regions.map_head import MapHead, describe_map_head, require_map_head
from quantkit.metrics.regions.overlap import MapOverlaps
from quantkit.metrics.scene_labels import open_class_maps
from quantkit.metrics.task import Task
from quantkit.values import Array

ACCURACY = "pixel-accuracy"


class SemanticIou:
    """Mean IoU of one network. output: the output with scores or classes of pixels; None to find it.

    predicted: the class of every pixel of the images of the last batch.
    """

    name = "mIoU"
    share = True
    higher_is_better = True

    def __init__(self, output: str | None = None) -> None:
        self.head: MapHead | None = None
        self.predicted: tuple[NDArray[np.uint8], ...] = ()
        self.labels: tuple[NDArray[np.uint8], ...] = ()
        self._output = output
        self._overlaps = MapOverlaps()

    def prepare(self, question: HeadQuestion) -> None:
        """Find the output. UsageError if there is none, or several."""
        self.head = require_map_head(question, self._output)

    def add(self, outputs: Mapping[str, Array], labels: Sequence[Any] | Array, names: Sequence[str]) -> None:
        """Add a batch: an output [N, C, H, W] or [N, H, W], and a `ClassMap` for each image. DataError, UsageError."""
        for label, image in zip(labels, names, strict=True):
            if not isinstance(label, ClassMap):
                raise DataError(f"{image} has no class map as its label", remedy="give a PNG of class indices")
        if self.head is None:
            self.prepare(HeadQuestion(example_facts(outputs)))
        assert self.head is not None
        self.predicted = self.head.predict(outputs, [label.geometry for label in labels], names)
        self.labels = tuple(label.classes for label in labels)
        for found, label, image in zip(self.predicted, labels, names, strict=True):
            refuse_unknown_class(self.head, label.classes, image)
            self._overlaps.add(label.classes, found)

    def state(self) -> Mapping[str, Any]:
        """Return the counts of each image."""
        return self._overlaps.state()

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the images that follow."""
        self._overlaps.extend(state)

    def result(self) -> MetricResult:
        """Return the mean IoU, and that of any selection of the images. DataError if no pixel has a label."""
        overlaps = self._overlaps
        count, ones = overlaps.images, np.ones((1, overlaps.images))
        if not overlaps.pixels.any():
            raise DataError(f"{self.name}: no pixel has a label", remedy="give labels with classes")

        def replicate(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            found = overlaps.class_ious(weights)
            return np.concatenate([mean_of_known(found)[:, None], found], axis=1)

        def figure(chosen: NDArray[np.intp]) -> float:
            return float(replicate(np.bincount(chosen, minlength=count).astype(np.float64)[None])[0, 0])

        further = {ACCURACY: float(overlaps.accuracy(ones)[0])}
        return MetricResult(float(replicate(ones)[0, 0]), None, figure, count, replicate, further, overlaps)


def refuse_unknown_class(head: MapHead, label: NDArray[np.uint8], image: str) -> None:
    """Raise DataError if a pixel has a class that the network does not have."""
    known = label[label != IGNORED]
    if head.classes is not None and known.size and int(known.max()) >= head.classes:
        raise DataError(
            f"{image}: a pixel has class {int(known.max())}, but output {head.output} has {head.classes} classes "
            f"(0 … {head.classes - 1})",
            remedy="give labels of the network's classes, with 255 where a pixel does not count",
        )


def create_semantic_iou(_: re.Match[str], output: str | None) -> MetricFactory:
    """Return a factory for `miou`."""
    return lambda: SemanticIou(output)


METRIC = BuiltInMetric(
    examples={"miou": "mean IoU of classes of pixels"},
    pattern=r"(?i:miou)",
    create=create_semantic_iou,
    share=True,
    open_labels=open_class_maps,
    label_kind="class maps",
    title=lambda _: SemanticIou.name,
    task=Task.SEMANTIC,
    describe_head=describe_map_head,
    figures=(SemanticIou.name, ACCURACY),
)

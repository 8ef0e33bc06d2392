"""Watches the class of every pixel that models predict, and keeps the images that change most."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.data import Portion
from quantkit.errors import DataError
from quantkit.evaluation.object_changes import ChangedMap, run_lengths
from quantkit.evaluation.scenes.named_head import named_map_head
from quantkit.evaluation.scenes.watch import Geometries, ImageSource, Outputs, Search
from quantkit.metrics.heads.head import HeadQuestion
from quantkit.metrics.metric import Metric
from quantkit.metrics.regions.map_head import MapHead, find_map_head
from quantkit.metrics.regions.overlap import MapOverlaps
from quantkit.metrics.semantic_iou import SemanticIou

MOST_MAPS = 12
"""Images whose maps are kept."""
Maps = Sequence[NDArray[np.uint8]]


@dataclass(slots=True)
class ChangedMaps:
    """The candidate's regions beside the reference's, and the maps of the images that changed most."""

    overlaps: MapOverlaps = field(default_factory=MapOverlaps)
    kept: list[tuple[float, int, ChangedMap]] = field(default_factory=list)
    """A heap of changed share, −number of the image, and maps: the smallest change is replaced first."""

    def add(self, reference: Maps, candidate: Maps, labels: Maps | None, names: Sequence[str]) -> None:
        """Add a batch."""
        for at, (first, second, name) in enumerate(zip(reference, candidate, names, strict=True)):
            number = self.overlaps.images
            self.overlaps.add(first, second)
            changed = 1.0 - self.overlaps.agreement(number)
            if changed <= 0 or (len(self.kept) == MOST_MAPS and changed <= self.kept[0][0]):
                continue
            label = None if labels is None else run_lengths(labels[at])
            entry = ChangedMap(name, None, 1.0 - changed, label, run_lengths(first), run_lengths(second))
            self._keep(changed, number, entry)

    def _keep(self, changed: float, number: int, entry: ChangedMap) -> None:
        push = heapq.heappush if len(self.kept) < MOST_MAPS else heapq.heapreplace
        push(self.kept, (changed, -number, entry))

    def state(self) -> Mapping[str, Any]:
        """Return the counts of all images, and the maps of those that changed most, in order."""
        kept = sorted((-number, changed, entry) for changed, number, entry in self.kept)
        return {"overlaps": self.overlaps.state(), "kept": [list(item) for item in kept]}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the images that follow."""
        before = self.overlaps.images
        self.overlaps.extend(state["overlaps"])
        for number, changed, entry in state["kept"]:
            if len(self.kept) < MOST_MAPS or changed > self.kept[0][0]:
                self._keep(changed, before + number, entry)

    def most_changed(self, limit: int) -> tuple[ChangedMap, ...]:
        """Return the maps of the images that changed most, the most changed first."""
        return tuple(entry for *_, entry in sorted(self.kept, key=lambda kept: (-kept[0], -kept[1]))[:limit])


@dataclass(slots=True)
class RegionWatch:
    """The regions of all models. metrics: of each model, if they predict the maps; else `head` does.

    changes: of each candidate. fault: why the maps cannot be compared, if that turned out.
    """

    head: MapHead
    changes: Sequence[ChangedMaps]
    metrics: Sequence[SemanticIou] = ()
    geometries: Geometries | None = None
    classes: tuple[str, ...] = ()
    fault: str = ""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the output that holds the regions."""
        return (self.head.output,)

    def state(self) -> Mapping[str, Any]:
        """Return the changes of every candidate, and the fault."""
        return {"fault": self.fault, "changes": [changes.state() for changes in self.changes]}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the images that follow."""
        self.fault = self.fault or state["fault"]
        for changes, more in zip(self.changes, state["changes"], strict=True):
            changes.extend(more)

    def add(self, portion: Portion, found: Sequence[Outputs]) -> None:
        """Add a batch and the outputs of every model; metrics have predicted its maps already."""
        if self.fault or not self.changes:
            return
        labels: Maps | None = None
        if self.metrics:
            maps: list[Maps] = [metric.predicted for metric in self.metrics]
            labels = self.metrics[0].labels
        else:
            assert self.geometries is not None
            try:
                ways = self.geometries(portion)
                maps = [self.head.predict(outputs, ways, portion.names) for outputs in found]
            except DataError as error:
                self.fault = str(error).partition("\n")[0]
                return
        for changes, own in zip(self.changes, maps[1:], strict=True):
            changes.add(maps[0], own, labels, portion.names)


def watch_regions(
    question: HeadQuestion, metrics: Sequence[Sequence[Metric]], source: ImageSource, search: Search
) -> RegionWatch | None:
    """Return what watches the regions; None if the network is not one of semantic segmentation, or nothing tells.

    metrics: of each model; those of regions get their output.
    """
    changes = [ChangedMaps() for _ in metrics[1:]]
    leads = []
    for of_model in metrics:
        found = [metric for metric in of_model if isinstance(metric, SemanticIou)]
        for metric in found:
            metric.prepare(question)
        leads += found[:1]
    if leads and leads[0].head is not None:
        return RegionWatch(leads[0].head, changes, leads, None, question.network.names)
    head = named_map_head(question, search.named) or (find_map_head(question) if search.unnamed else None)
    return None if head is None else RegionWatch(head, changes, (), source.geometries, question.network.names)

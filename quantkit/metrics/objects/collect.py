"""Collects what a network finds in every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from quantkit.errors import DataError
from quantkit.metrics.boxes import ImageGeometry
from quantkit.metrics.heads.head import Head
from quantkit.metrics.objects.found import FoundObjects, label_classes, to_image
from quantkit.values import Array


@dataclass(slots=True)
class ObjectCollector:
    """The objects that one network found in every image so far.

    masks: make masks, if the head has them. least: scores below are not kept.
    """

    head: Head
    masks: bool = False
    least: float = 0.0
    found: list[FoundObjects] = field(default_factory=list)

    def add(
        self,
        outputs: Mapping[str, Array],
        geometries: Sequence[ImageGeometry],
        names: Sequence[str],
        ids: Sequence[int] = (),
    ) -> None:
        """Add a batch. ids: COCO's category ids by class index. DataError names the image."""
        missing = [name for name in self.head.outputs if name not in outputs]
        if missing:
            raise DataError(f"there is no output {missing[0]}", remedy="evaluate models with the same outputs together")
        chosen = tuple(outputs[name] for name in self.head.outputs)
        for one, geometry, image in zip(self.head.split(chosen, len(names)), geometries, names, strict=True):
            refuse_broken_values(self.head, one, image)
            try:
                detected = self.head.decode(one, geometry.canvas)
            except (ValueError, IndexError) as error:
                raise DataError(
                    f"{image}: the outputs are not those of a {self.head.summary}: {error}",
                    remedy="name the head: --metric map:HEAD@OUTPUT",
                ) from None
            levels = detected.levels if self.masks else None
            detected = replace(detected, levels=levels).only(np.flatnonzero(detected.scores >= self.least))
            classes = label_classes(self.head, detected.classes, ids, image)
            found = to_image(replace(detected, classes=classes), geometry)
            self.found.append(found if (found.classes >= 0).all() else found.only(np.flatnonzero(found.classes >= 0)))


def refuse_broken_values(head: Head, outputs: Sequence[Array], image: str) -> None:
    """Raise DataError if an output of an image holds NaN or Inf."""
    for name, values in zip(head.outputs, outputs, strict=False):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(
                f"{image}: output {name} holds NaN or Inf", remedy="find the layer that produces it: quantkit layers"
            )

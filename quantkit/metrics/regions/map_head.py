"""The output of semantic segmentation, and the class of every pixel of an image that follows from it.

output              values
[N, C, H, W]        scores of C classes, logits or probabilities: the highest decides
[N, H, W]           class indices, also with an axis of one: [N, 1, H, W]
[N, 1, H, W]        scores of a single class, if they are floats: class 1 where a logit is positive, or a
                    probability above one half
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError, UsageError
from quantkit.metrics.boxes import IGNORED, ImageGeometry
from quantkit.metrics.heads.facts import declared_facts
from quantkit.metrics.heads.head import Ending, HeadQuestion, OutputFacts, sizes
from quantkit.metrics.objects.found import Line, interpolate, weights_of_line
from quantkit.metrics.task import NetworkFacts, Task
from quantkit.values import Array

COLOURS = (1, 3, 4)
"""Channels that an output has which is an image."""


@dataclass(frozen=True, slots=True)
class MapHead:
    """The output with the classes of pixels. classes: their number; None for an output of indices.

    threshold: of the scores of a single class; None for several.
    """

    output: str
    classes: int | None
    threshold: float | None = None

    @property
    def summary(self) -> str:
        """Return for example `class maps, 21 classes`."""
        return "class maps" if self.classes is None else f"class maps, {self.classes} classes"

    def predict(
        self, outputs: Mapping[str, Array], geometries: Sequence[ImageGeometry], names: Sequence[str]
    ) -> tuple[NDArray[np.uint8], ...]:
        """Return the class of every pixel of each image [H, W], IGNORED for those outside the input. DataError."""
        if self.output not in outputs or len(outputs[self.output]) != len(names):
            raise DataError(
                f"output {self.output} does not have one row for each of {len(names)} images ({names[0]} …)",
                remedy="evaluate with --batch-size 1",
            )
        values = outputs[self.output]
        if values.ndim == 4 and values.shape[1] == 1:
            values = values[:, 0]
        found = []
        for one, geometry, image in zip(values, geometries, names, strict=True):
            if one.dtype.kind == "f" and not np.isfinite(one).all():
                raise DataError(
                    f"{image}: output {self.output} holds NaN or Inf",
                    remedy="find the layer that produces it: quantkit layers",
                )
            found.append(self._classes_of_pixels(one, geometry, image))
        return tuple(found)

    def _classes_of_pixels(self, values: Array, geometry: ImageGeometry, image: str) -> NDArray[np.uint8]:
        width, height = geometry.size
        rows = weights_of_line(np.arange(height), geometry, 1, values.shape[-2])
        columns = weights_of_line(np.arange(width), geometry, 0, values.shape[-1])
        if values.ndim == 3:
            found = interpolate(values.astype(np.float32), rows, columns).argmax(axis=0)
        elif self.threshold is not None:
            found = (interpolate(values.astype(np.float32), rows, columns) > self.threshold).astype(np.intp)
        else:
            found = np.rint(values[np.ix_(nearest(rows), nearest(columns))]).astype(np.intp)
        if found.size and not 0 <= int(found.min()) <= int(found.max()) <= IGNORED:
            raise DataError(
                f"{image}: output {self.output} holds class {int(found.max())}, but a map holds 0 … {IGNORED}",
                remedy="use a metric of your own: --metric module:callable",
            )
        made: NDArray[np.uint8] = found.astype(np.uint8)
        made[~inside(height, geometry, 1)] = IGNORED
        made[:, ~inside(width, geometry, 0)] = IGNORED
        return made


def nearest(line: Line) -> NDArray[np.intp]:
    """Return the nearer neighbour of each position."""
    low, high, share = line
    return np.where(share < 0.5, low, high)


def inside(count: int, geometry: ImageGeometry, axis: int) -> NDArray[np.bool_]:
    """Return which of the first pixels of an axis lie in the input."""
    place = (np.arange(count) + 0.5) * geometry.scale[axis] + geometry.offset[axis]
    return np.asarray((place >= 0) & (place <= geometry.canvas[axis]))


def is_map(output: OutputFacts) -> bool:
    """Return True if an output may hold the classes of pixels."""
    shape = sizes(output)
    if output.integers:
        return output.rank == 3 or (output.rank == 4 and shape[1] == 1)
    return output.rank == 4 and min(abs(shape[2]), abs(shape[3])) >= 1 and shape[2:] != (1, 1)


def map_head(output: OutputFacts) -> MapHead:
    """Return the head that an output is."""
    channels = sizes(output)[1] if output.rank == 4 else 1
    if output.integers:
        return MapHead(output.name, None)
    if channels == 1:
        return MapHead(output.name, 2, 0.5 if output.ending is Ending.SIGMOID else 0.0)
    return MapHead(output.name, None if channels < 0 else channels)


def find_map_head(question: HeadQuestion) -> MapHead | None:
    """Return the head of a network that shows that it is one of semantic segmentation; else None.

    By metadata, by a Softmax over several classes, or by an only output of class indices of pixels.
    """
    fitting = [output for output in question.outputs if is_map(output)]
    if len(fitting) != 1 or question.network.task not in (None, Task.SEMANTIC):
        return None
    output = fitting[0]
    if question.network.task is Task.SEMANTIC:
        return map_head(output)
    alone = len(question.outputs) == 1
    several = sizes(output)[1] not in COLOURS if output.rank == 4 else True
    shown = alone and (output.integers or (output.ending is Ending.SOFTMAX and several))
    return map_head(output) if shown else None


def require_map_head(question: HeadQuestion, name: str | None) -> MapHead:
    """Return the named output, or the only one that may hold the classes of pixels. UsageError."""
    fitting = [output for output in question.outputs if is_map(output) and name in (None, output.name)]
    if len(fitting) > 1:  # the first of several is the main one, the others are auxiliary, if only it has that name
        main = [output for output in fitting if output.name in ("out", "logits", "output", "masks")]
        fitting = main if len(main) == 1 else fitting
    if len(fitting) == 1:
        return map_head(fitting[0])
    shapes = ", ".join(f"{output.name} {list(sizes(output))}" for output in question.outputs)
    which = "several outputs" if fitting else "no output"
    raise UsageError(
        f"{which} may hold the classes of pixels, [N, C, H, W] or [N, H, W]: {shapes}",
        remedy=f"name one: --metric miou@{(fitting or question.outputs)[0].name}",
    )


def describe_map_head(shapes: Mapping[str, tuple[int, ...]], network: NetworkFacts) -> str | None:
    """Return for example `class maps, 21 classes` for outputs of these shapes (−1: unknown), if that is likely."""
    fitting = [output for output in declared_facts(shapes) if is_map(output)]
    if len(fitting) != 1 or (network.task is not Task.SEMANTIC and sizes(fitting[0])[1] in (*COLOURS, -1)):
        return None
    return map_head(fitting[0]).summary

"""Objects in an image, and the mapping from the network's input back to the image.

Boxes are [x1, y1, x2, y2] in pixels. An image of width w and height h becomes the input by

    input = image·scale + offset          for x and for y

    exact        scale = size/(w, h)              offset 0
    shortest     scale = resized/(w, h)           offset = −(left, top) of the crop
    letterbox    scale = resized/(w, h)           offset = (left, top) of the image on its canvas
    none         scale 1                          offset 0
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantkit.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class ImageGeometry:
    """Mapping of an image of `size` (width, height) to an input: scale and offset for x and y, in input pixels."""

    size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    def to_image(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert boxes [M, 4] from input pixels to image pixels, clipped to the image."""
        back = (boxes - np.tile(self.offset, 2)) / np.tile(self.scale, 2)
        return np.asarray(np.clip(back, 0.0, np.tile(self.size, 2)))


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects in an image: class indices [M], boxes [M, 4] in image pixels.

    crowd [M]: a box around several objects that are not labelled one by one; COCO counts detections there neither as
    correct nor as wrong.
    """

    classes: NDArray[np.intp]
    boxes: NDArray[np.float64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scene:
    """The label of an image for detection: its objects, and how it became the input."""

    objects: Objects
    geometry: ImageGeometry


def image_geometry(spec: Preprocess, size: tuple[int, int]) -> ImageGeometry:
    """Return the mapping of an upright image of `size` (width, height) by a resolved spec, rounded as `data` does."""
    assert spec.size is not None, "bug in quantkit: the spec was not resolved"
    width, height = size
    tall, wide = spec.size
    if spec.resize == "none" or (size == (wide, tall) and (spec.resize != "shortest" or spec.crop_fraction == 1.0)):
        return ImageGeometry(size, (1.0, 1.0), (0.0, 0.0))
    if spec.resize == "exact":
        return ImageGeometry(size, (wide / width, tall / height), (0.0, 0.0))
    if spec.resize == "letterbox":
        ratio = min(tall / height, wide / width)
        scaled = max(1, round(width * ratio)), max(1, round(height * ratio))
        offset = (float((wide - scaled[0]) // 2), float((tall - scaled[1]) // 2))
        return ImageGeometry(size, (scaled[0] / width, scaled[1] / height), offset)
    larger = round(tall / spec.crop_fraction), round(wide / spec.crop_fraction)
    if larger[0] * width >= larger[1] * height:
        scaled = max(wide, int(larger[0] * width / height)), larger[0]
    else:
        scaled = larger[1], max(tall, int(larger[1] * height / width))
    offset = (-float(round((scaled[0] - wide) / 2)), -float(round((scaled[1] - tall) / 2)))
    return ImageGeometry(size, (scaled[0] / width, scaled[1] / height), offset)

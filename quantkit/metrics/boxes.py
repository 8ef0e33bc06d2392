"""Labels of an image (its objects, or the class of every pixel), and how the image became the network's input.

Boxes are [x1, y1, x2, y2] in pixels of the upright image. An image of width w and height h becomes the input by

    input = image·scale + offset          for x and for y

    exact        scale = size/(w, h)              offset 0
    shortest     scale = resized/(w, h)           offset = −(left, top) of the crop
    letterbox    scale = resized/(w, h)           offset = (left, top) of the image on its canvas
    none         scale 1                          offset 0
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quantkit.preprocess import Preprocess

IGNORED = 255
"""Class of pixels that count neither as correct nor as wrong."""


@dataclass(frozen=True, slots=True)
class ImageGeometry:
    """Mapping of an image of `size` (width, height) to an input: scale and offset for x and y, in input pixels.

    canvas: width and height of the input.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]
    canvas: tuple[int, int] = (0, 0)

    def to_image(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert boxes [M, 4] from input pixels to image pixels, clipped to the image."""
        back = (boxes - np.tile(self.offset, 2)) / np.tile(self.scale, 2)
        return np.asarray(np.clip(back, 0.0, np.tile(self.size, 2)))


@dataclass(frozen=True, slots=True)
class Outline:
    """The shape of one object in image pixels: the union of polygons [P, 2] of x and y, or run lengths.

    runs: COCO's run lengths of the whole image, column by column, background first; None for polygons.
    """

    polygons: tuple[NDArray[np.float64], ...] = ()
    runs: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects in an image: class indices [M], boxes [M, 4] in image pixels.

    crowd [M]: detections there count neither as correct nor as wrong: COCO's boxes around several objects that are not
    labelled one by one, and Pascal VOC's difficult objects. areas [M]: COCO's areas in pixels; None: those of outlines
    or boxes. outlines: M shapes; None if the labels have none. keypoints [M, K, 3]: x, y in image pixels, visibility
    (0: not labelled, 1: hidden, 2: visible).
    """

    classes: NDArray[np.intp]
    boxes: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64] | None = None
    outlines: tuple[Outline, ...] | None = None
    keypoints: NDArray[np.float64] | None = None


def scale_objects(objects: Objects, factors: tuple[float, float]) -> Objects:
    """Return objects with x and y multiplied by factors, such as those in fractions of an image by its size.

    Areas and run lengths cannot be scaled; such objects have none.
    """
    outlines = objects.outlines
    if outlines is not None:
        outlines = tuple(replace(found, polygons=tuple(p * factors for p in found.polygons)) for found in outlines)
    keypoints = None if objects.keypoints is None else objects.keypoints * (*factors, 1.0)
    return replace(objects, boxes=objects.boxes * np.tile(factors, 2), outlines=outlines, keypoints=keypoints)


@dataclass(frozen=True, slots=True)
class Scene:
    """The label of an image for boxes, outlines and keypoints: its objects, and how it became the input.

    ids: COCO's category ids by class index; empty if the labels have none.
    """

    objects: Objects
    geometry: ImageGeometry
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The label of an image for semantic segmentation: the class of every pixel [H, W], `IGNORED` where it has none."""

    classes: NDArray[np.uint8]
    geometry: ImageGeometry


def image_geometry(spec: Preprocess, size: tuple[int, int]) -> ImageGeometry:
    """Return the mapping of an upright image of `size` (width, height) by a resolved spec, rounded as `data` does."""
    assert spec.size is not None, "bug in quantkit: the spec was not resolved"
    width, height = size
    tall, wide = spec.size
    if spec.resize == "none" or (size == (wide, tall) and (spec.resize != "shortest" or spec.crop_fraction == 1.0)):
        return ImageGeometry(size, (1.0, 1.0), (0.0, 0.0), size)
    if spec.resize == "exact":
        return ImageGeometry(size, (wide / width, tall / height), (0.0, 0.0), (wide, tall))
    if spec.resize == "letterbox":
        ratio = min(tall / height, wide / width)
        scaled = max(1, round(width * ratio)), max(1, round(height * ratio))
        offset = (float((wide - scaled[0]) // 2), float((tall - scaled[1]) // 2))
        return ImageGeometry(size, (scaled[0] / width, scaled[1] / height), offset, (wide, tall))
    larger = round(tall / spec.crop_fraction), round(wide / spec.crop_fraction)
    if larger[0] * width >= larger[1] * height:
        scaled = max(wide, int(larger[0] * width / height)), larger[0]
    else:
        scaled = larger[1], max(tall, int(larger[1] * height / width))
    offset = (-float(round((scaled[0] - wide) / 2)), -float(round((scaled[1] - tall) / 2)))
    return ImageGeometry(size, (scaled[0] / width, scaled[1] / height), offset, (wide, tall))

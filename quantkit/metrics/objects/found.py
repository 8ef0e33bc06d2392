"""The objects that a network finds in an image, in image pixels and with the labels' classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import BackendError, DataError
from quantkit.extras import install_command
from quantkit.metrics.boxes import ImageGeometry
from quantkit.metrics.heads.detections import Detections
from quantkit.metrics.heads.head import Head

MOST_MASKS = 100
"""Masks of an image that are made, of the highest scores: as many as COCO counts."""
Runs = dict[str, Any]
"""A mask as pycocotools encodes it: `size` and `counts`."""


@dataclass(frozen=True, slots=True)
class FoundObjects:
    """Objects in one image. boxes [M, 4] in image pixels, scores [M], classes [M]; the highest score first.

    masks: M masks as pycocotools encodes them; None without masks. keypoints [M, K, 3] in image pixels. size: width and
    height of the image.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.intp]
    masks: tuple[Runs, ...] | None = None
    keypoints: NDArray[np.float64] | None = None
    size: tuple[int, int] | None = None

    def only(self, chosen: NDArray[np.intp]) -> FoundObjects:
        """Return the objects with these indices."""
        masks = None if self.masks is None else tuple(self.masks[i] for i in chosen)
        points = None if self.keypoints is None else self.keypoints[chosen]
        return FoundObjects(self.boxes[chosen], self.scores[chosen], self.classes[chosen], masks, points, self.size)


def to_image(found: Detections, geometry: ImageGeometry) -> FoundObjects:
    """Convert detections from input pixels to image pixels. Masks are made for the MOST_MASKS highest scores only."""
    if found.levels is not None:
        found = found.only(np.arange(min(MOST_MASKS, len(found.scores))))
    boxes = geometry.to_image(found.boxes)
    points = found.keypoints
    if points is not None:
        places = (points[..., :2] - geometry.offset) / geometry.scale
        points = np.concatenate([places, points[..., 2:]], axis=-1)
    masks = None
    if found.levels is not None:
        masks = tuple(
            encode_mask(image_mask(level, box, geometry)) for level, box in zip(found.levels, boxes, strict=True)
        )
    return FoundObjects(boxes, found.scores, found.classes, masks, points, geometry.size)


def image_mask(level: NDArray[np.float32], box: NDArray[np.float64], geometry: ImageGeometry) -> NDArray[np.uint8]:
    """Return the mask [H, W] in the image, inside its box, where the level, interpolated linearly, is positive.

    level: [h, w] over the whole input.
    """
    width, height = geometry.size
    mask = np.zeros((height, width), np.uint8)
    left, top, right, bottom = (int(edge) for edge in np.ceil(box - 0.5))  # pixels whose centre is inside
    if right <= left or bottom <= top:
        return mask
    rows = weights_of_line(np.arange(top, bottom), geometry, 1, level.shape[0])
    columns = weights_of_line(np.arange(left, right), geometry, 0, level.shape[1])
    mask[top:bottom, left:right] = interpolate(level, rows, columns) > 0
    return mask


Line = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]
"""Lower and upper neighbour of each position, and the weight of the upper one."""


def weights_of_line(pixels: NDArray[np.intp], geometry: ImageGeometry, axis: int, size: int) -> Line:
    """Return where image pixels lie between the `size` values of a map over the whole input. axis: 0 for x, 1 for y."""
    place = (pixels + 0.5) * geometry.scale[axis] + geometry.offset[axis]
    place = np.clip(place * (size / geometry.canvas[axis]) - 0.5, 0.0, size - 1.0)
    lower = np.floor(place).astype(np.intp)
    return lower, np.minimum(lower + 1, size - 1), (place - lower).astype(np.float32)


def interpolate(level: NDArray[Any], rows: Line, columns: Line) -> NDArray[np.float32]:
    """Return values [..., H, W] of a map [..., h, w], linear between its neighbours."""
    low, high, share = rows
    lines = level[..., low, :] * (1 - share[:, None]) + level[..., high, :] * share[:, None]
    low, high, share = columns
    return np.asarray(lines[..., low] * (1 - share) + lines[..., high] * share)


def encode_mask(mask: NDArray[np.uint8]) -> Runs:
    """Return a mask [H, W] as pycocotools encodes it."""
    made: Runs = mask_library().encode(np.asfortranarray(mask))
    return made


def mask_counts(runs: Runs) -> list[int]:
    """Return the run lengths in pycocotools' text of a mask, background first (`rleFrString` of its maskApi.c)."""
    text: bytes = runs["counts"]
    counts: list[int] = []
    value, shift = 0, 0
    for byte in text:
        digit = byte - 48
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:
            continue
        if digit & 0x10:
            value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    return counts


def mask_library() -> Any:
    """Return pycocotools.mask. BackendError if it is missing."""
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise missing_library(error) from None
    return mask


def missing_library(error: ModuleNotFoundError) -> BackendError:
    """Return the error that pycocotools is not installed; raise the error itself if it lacks something else."""
    if (error.name or "").partition(".")[0] != "pycocotools":
        raise error
    return BackendError("mAP needs pycocotools, which is not installed", remedy=install_command("detection"))


def label_classes(head: Head, numbers: NDArray[np.intp], ids: Sequence[int], image: str) -> NDArray[np.intp]:
    """Return the labels' class indices for a head's class numbers; −1 for a number that the labels do not have.

    ids: COCO's category ids by class index, empty if the labels have none. A head with as many classes as there are
    ids counts them; one with more numbers classes by id. DataError for a background that was detected.
    """
    if numbers.size and int(numbers.min()) < head.first:
        raise DataError(
            f"{image}: a box has class {int(numbers.min())}, but 0 is the background of a {head.layout} head",
            remedy="name a head whose classes begin at 0: --metric map:nms",
        )
    if not ids or not (head.by_id or (head.classes is not None and head.classes > len(ids))):
        return numbers - head.first
    index = {number: at for at, number in enumerate(ids)}
    return np.array([index.get(int(number), -1) for number in numbers], np.intp)

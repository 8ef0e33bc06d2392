"""Labels of semantic segmentation: images whose pixels are class indices, 255 where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError, UnreadableError
from quantkit.image_file import opened_image
from quantkit.metrics.boxes import IGNORED

MODES = frozenset({"L", "P", "1", "I", "I;16"})
"""Pillow's modes of images with one channel: values, or indices of a palette."""


def read_class_map(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the class of every pixel [H, W] of an image of `size` (width, height). DataError names the file."""
    try:
        with opened_image(path) as image:
            mode, found = image.mode, image.size
            values = np.asarray(image) if mode in MODES and found == size else None
    except UnreadableError as error:
        raise DataError(f"{path}: {error}", remedy="fix the file, or remove it and its image") from None
    if mode not in MODES:
        raise DataError(
            f"{path} has {mode} pixels, not class indices", remedy="save class maps as PNG with one channel"
        )
    if values is None:
        raise DataError(
            f"{path} is {found[0]}×{found[1]}, but its image is {size[0]}×{size[1]}",
            remedy="a class map has a pixel for every pixel of its image",
        )
    if values.min() < 0 or values.max() > IGNORED:
        raise DataError(f"{path} has the class {values.max()}", remedy=f"classes are 0 … {IGNORED - 1}")
    return values.astype(np.uint8)

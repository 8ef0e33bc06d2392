"""Images with several objects of CIFAR-10 on smooth backgrounds, their masks and boxes. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

OBJECTS = 3
"""At most so many objects in an image."""
MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
DEVIATION = np.array([0.2470, 0.2435, 0.2616], np.float32)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Compositions:
    """images: uint8 [N, side, side, 3]. masks: uint8 [N, side, side], 0 behind the objects and 1 + class on them.
    boxes: float32 [N, OBJECTS, 4], left, top, right, bottom in pixels. classes: int64 [N, OBJECTS], −1 for none."""

    images: Array
    masks: Array
    boxes: Array
    classes: Array


def read_objects(folder: Path) -> tuple[Array, Array]:
    """Read the images of class folders in alphabetical order: uint8 [N, 32, 32, 3], int64 [N]."""
    from PIL import Image

    images, labels = [], []
    for label, kind in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in sorted(kind.iterdir()):
            with Image.open(path) as image:
                images.append(np.asarray(image.convert("RGB")))
            labels.append(label)
    return np.stack(images), np.array(labels, np.int64)


def compose(objects: Array, labels: Array, count: int, side: int, seed: int) -> Compositions:
    """Make `count` images of one to three objects, 16 or 32 pixels wide, and 64 where the image has room."""
    random = np.random.default_rng(seed)
    sizes = [size for size in (16, 32, 64) if 2 * size <= side + 32]
    coarse = random.integers(0, 256, (count, 4, 4, 3)).astype(np.float32)
    smooth = coarse.repeat(side // 4, 1).repeat(side // 4, 2)
    grain = random.normal(0, 8, (count, side, side, 3)).astype(np.float32)
    images = np.clip(0.5 * smooth + 64 + grain, 0, 255).astype(np.uint8)
    masks = np.zeros((count, side, side), np.uint8)
    boxes = np.zeros((count, OBJECTS, 4), np.float32)
    classes = np.full((count, OBJECTS), -1, np.int64)
    for k in range(count):
        for place in range(int(random.integers(1, OBJECTS + 1))):
            chosen, size = int(random.integers(len(objects))), int(random.choice(sizes))
            left, top = (int(v) for v in random.integers(0, side - size + 1, 2))
            if masks[k, top : top + size, left : left + size].any():
                continue  # objects do not overlap
            images[k, top : top + size, left : left + size] = resized(objects[chosen], size)
            masks[k, top : top + size, left : left + size] = 1 + labels[chosen]
            boxes[k, place] = left, top, left + size, top + size
            classes[k, place] = labels[chosen]
    return Compositions(images, masks, boxes, classes)


def resized(image: Array, size: int) -> Array:
    """Return a 32×32 image at half, the same, or double size."""
    if size == 16:
        return image.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
    return image.repeat(size // 32, 0).repeat(size // 32, 1)


def network_input(images: Array) -> Array:
    """Return what the networks read: float32 [N, 3, H, W], normalized by CIFAR-10's mean and deviation."""
    scaled = (images.astype(np.float32) / 255 - MEAN) / DEVIATION
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))

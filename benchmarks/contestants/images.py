"""The calibration images as batches of 32, made one at a time: nobody holds them all as float32.

x = (rgb / 255 - mean) / std, float32, NCHW, with the mean and standard deviation of CIFAR-10.
An .npz holds uint8 [N, 32, 32, 3] under "x"; of a folder, the first N JPEGs by path are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contestants.job import BATCH_SIZE, Job

INPUT = "image"
MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
STD = np.array([0.2470, 0.2435, 0.2616], np.float32)

Batch = dict[str, npt.NDArray[np.float32]]


class Images:
    """Iterates over the batches of a job, from the start each time."""

    def __init__(self, job: Job) -> None:
        """Remember where the images are; nothing is read yet."""
        self._source, self._limit = job.images, job.limit

    def __iter__(self) -> Iterator[Batch]:
        """Yield {input name: float32 [32, 3, 32, 32]}."""
        raw = _from_folder if self._source.is_dir() else _from_npz
        for pixels in raw(self._source, self._limit):
            x = (pixels.astype(np.float32) / 255 - MEAN) / STD
            yield {INPUT: np.ascontiguousarray(x.transpose(0, 3, 1, 2), dtype=np.float32)}


class Reader:
    """The reader that onnxruntime asks for (get_next), with what modelopt asks for besides."""

    def __init__(self, images: Images) -> None:
        """Start at the first batch."""
        self._images = images
        self._batches = iter(images)

    def get_next(self) -> Batch | None:
        """The next batch, None after the last."""
        return next(self._batches, None)

    def get_first(self) -> Batch:
        """The first batch, without moving on."""
        return next(iter(self._images))

    def rewind(self) -> None:
        """Back to the first batch."""
        self._batches = iter(self._images)


def _from_npz(path: Path, limit: int | None) -> Iterator[npt.NDArray[Any]]:
    with np.load(path) as file:
        pixels = file["x"][:limit]
    for start in range(0, len(pixels), BATCH_SIZE):
        yield pixels[start : start + BATCH_SIZE]


def _from_folder(path: Path, limit: int | None) -> Iterator[npt.NDArray[Any]]:
    from PIL import Image

    files = sorted(path.rglob("*.jpg"))[:limit]
    for start in range(0, len(files), BATCH_SIZE):
        decoded = []
        for file in files[start : start + BATCH_SIZE]:
            with Image.open(file) as image:
                decoded.append(np.asarray(image.convert("RGB")))
        yield np.stack(decoded)

"""Counts of pixels of each class in two maps, image by image, from which IoU and accuracy of any selection follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.metrics.boxes import IGNORED

MOST = IGNORED + 1


def check_counts(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return counts [N, classes] of pixels. ValueError where they are something else."""
    if rows.dtype != np.int32 or rows.shape[1:] != (MOST,):
        raise ValueError(f"counts of pixels are {rows.dtype} {list(rows.shape)}")
    return rows


@dataclass(slots=True)
class MapOverlaps:
    """Pixels that each image has of each class in a first map, in a second, and in both; 3 kB an image.

    A pixel counts where the first map has a class and the second one lies in the input.
    """

    _both: list[NDArray[np.int32]] = field(default_factory=list)
    _first: list[NDArray[np.int32]] = field(default_factory=list)
    _second: list[NDArray[np.int32]] = field(default_factory=list)

    def add(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
        """Add the maps [H, W] of an image."""
        counts = (first != IGNORED) & (second != IGNORED)
        a, b = first[counts], second[counts]
        for rows, values in ((self._both, a[a == b]), (self._first, a), (self._second, b)):
            rows.append(np.bincount(values, minlength=MOST).astype(np.int32))

    def state(self) -> Mapping[str, Any]:
        """Return the counts of each image."""
        empty = np.zeros((0, MOST), np.int32)
        rows = {"both": self._both, "first": self._first, "second": self._second}
        return {name: np.stack(found) if found else empty for name, found in rows.items()}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the images that follow. ValueError where they are not counts."""
        for name, rows in (("both", self._both), ("first", self._first), ("second", self._second)):
            rows.extend(check_counts(state[name]))

    @property
    def images(self) -> int:
        """Return the number of images."""
        return len(self._both)

    @property
    def classes(self) -> NDArray[np.intp]:
        """Return the classes that occur in either map."""
        return np.flatnonzero(self._sum(self._first) + self._sum(self._second))

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Return the number of pixels of each of these classes in the first map."""
        return np.asarray(self._sum(self._first)[self.classes])

    def agreement(self, image: int) -> float:
        """Return the share of pixels of an image that are equal; 1 if none counts."""
        total = int(self._first[image].sum())
        return float(self._both[image].sum()) / total if total else 1.0

    def class_ious(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the IoU of each class [R, classes] for weights [R, N] of the images; NaN where it does not occur."""
        kept = self.classes
        both, first, second = (
            weights @ np.stack(rows)[:, kept] if rows else np.zeros((len(weights), 0))
            for rows in (self._both, self._first, self._second)
        )
        union = first + second - both
        return np.asarray(np.divide(both, union, out=np.full_like(both, np.nan, dtype=np.float64), where=union > 0))

    def accuracy(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of equal pixels [R] for weights [R, N] of the images; NaN where no pixel counts."""
        both, total = (weights @ np.stack(rows).sum(axis=1) for rows in (self._both, self._first))
        return np.asarray(np.divide(both, total, out=np.full_like(total, np.nan), where=total > 0))

    @staticmethod
    def _sum(rows: list[NDArray[np.int32]]) -> NDArray[np.int64]:
        return np.sum(rows, axis=0, dtype=np.int64) if rows else np.zeros(MOST, np.int64)

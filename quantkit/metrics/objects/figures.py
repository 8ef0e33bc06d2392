"""The figures of a detector: mean average precision, by class and by size, also of any sample of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantkit.metrics.boxes import Scene
from quantkit.metrics.objects.found import FoundObjects
from quantkit.metrics.objects.matching import ClassTable, MatchBy
from quantkit.metrics.objects.precision import mean_of_known, mean_precisions

ALL = "all"


@dataclass(frozen=True, slots=True, eq=False)
class ObjectFigures:
    """The matches of one network's detections. tables: by range of sizes, of each class that has objects there.

    found, scenes: detections and labels of each image, in order. at_50: the main figure is that at IoU 0.50.
    """

    by: MatchBy
    tables: Mapping[str, Sequence[ClassTable]]
    found: Sequence[FoundObjects]
    scenes: Sequence[Scene]
    at_50: bool = False

    @property
    def classes(self) -> tuple[int, ...]:
        """Return the classes that have objects, by index."""
        return tuple(table.number for table in self.tables[ALL])

    @property
    def sizes(self) -> tuple[str, ...]:
        """Return the ranges of sizes that have objects: small, medium, large."""
        return tuple(name for name, tables in self.tables.items() if tables and name != ALL)

    def objects(self, name: str) -> NDArray[np.float64]:
        """Return the number of labels of each class in a range of sizes."""
        return np.array([table.objects.sum() for table in self.tables[name]])

    def precisions(self, name: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the average precision of each class [R, classes, 2] over IoU 0.50 … 0.95, and at 0.50."""
        return mean_precisions(self.tables[name], weights)

    def main(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the main figure [R] for weights [R, N] of the images."""
        return mean_of_known(self.precisions(ALL, weights)[..., int(self.at_50)])

    def replicate(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the main figure, then the average precision of each class, for weights [R, N] of the images."""
        found = self.precisions(ALL, weights)
        return np.concatenate([mean_of_known(found[..., int(self.at_50)])[:, None], found[..., 0]], axis=1)

"""One object of an image as a reader finds it, and all of them as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantkit.metrics.boxes import Objects, Outline
from quantkit.view import shorten_middle

FAULTS = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""Exceptions of a document that has other values than those of labels."""
SHOWN = 120
"""Characters of a fault that an error quotes."""


class ObjectRow(NamedTuple):
    """One object: class, box x1, y1, x2, y2 in pixels, and as far as labels have them the rest of `Objects`."""

    kind: int
    left: float
    top: float
    right: float
    bottom: float
    crowd: bool = False
    area: float | None = None
    outline: Outline | None = None
    keypoints: NDArray[np.float64] | None = None

    @property
    def rectangle(self) -> Outline:
        """The box as an outline."""
        corners = [(self.left, self.top), (self.right, self.top), (self.right, self.bottom), (self.left, self.bottom)]
        return Outline((np.array(corners, np.float64),))


def as_objects(rows: Sequence[ObjectRow], keypoints: int = 0) -> Objects:
    """Convert rows to objects. keypoints: K, the number of an object's keypoints; 0 if the labels have none.

    Beside outlines, an object without one gets its box as its outline; beside keypoints, one without gets K that are
    not labelled. Areas are kept if every object has one.
    """
    rows = [ObjectRow(*row) for row in rows]
    outlined, measured = any(row.outline for row in rows), all(row.area is not None for row in rows)
    points = [row.keypoints if row.keypoints is not None else np.zeros((keypoints, 3)) for row in rows]
    return Objects(
        np.array([row.kind for row in rows], np.intp),
        np.array([row[1:5] for row in rows], np.float64).reshape(-1, 4),
        np.array([row.crowd for row in rows], np.bool_),
        np.array([row.area for row in rows], np.float64) if rows and measured else None,
        tuple(row.outline or row.rectangle for row in rows) if outlined else None,
        np.array(points, np.float64).reshape(-1, keypoints, 3) if keypoints else None,
    )


def describe_fault(error: Exception) -> str:
    """Return an error of damaged labels in a few words."""
    text = shorten_middle(str(error), SHOWN)
    if isinstance(error, KeyError):
        return f"{text} is missing"
    return text if isinstance(error, ValueError) else f"a value of another type ({text})"

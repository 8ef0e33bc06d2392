"""A sum of floats that does not depend on their order, so that sums of parts add up to the sum of all.

The sum is kept as floats that do not overlap, which hold it exactly, and is rounded once, at the end.

Source: Shewchuk, Discrete Comput. Geom. 18 (1997), as in Python's `math.fsum`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class ExactSum:
    """An exact sum of floats so far. Beyond the range of floats it is infinite or NaN, as in float arithmetic."""

    __slots__ = ("_beyond", "_parts")

    def __init__(self) -> None:
        self._parts: list[float] = []
        self._beyond = 0.0

    def add(self, value: float) -> None:
        """Add a float."""
        kept = 0
        for part in self._parts:
            larger, smaller = (value, part) if abs(value) >= abs(part) else (part, value)
            value = larger + smaller
            rest = smaller - (value - larger)
            if rest:
                self._parts[kept] = rest
                kept += 1
        if math.isfinite(value):
            self._parts[kept:] = [value]
        else:
            self._parts, self._beyond = [], self._beyond + value

    @property
    def value(self) -> float:
        """The sum, rounded to the nearest float."""
        return math.fsum(self._parts) + self._beyond

    def state(self) -> NDArray[np.float64]:
        """Return the floats whose sum it is."""
        return np.array([self._beyond, *self._parts], np.float64)

    def extend(self, state: NDArray[np.float64]) -> None:
        """Add the sum that another one holds."""
        self._beyond += float(state[0])
        for part in state[1:].tolist():
            self.add(part)

"""The arithmetic from pixels to a network's input: (pixel·scale − mean)/std in float64, rounded once to its type."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import UnreadableError


@lru_cache(maxsize=8)
def level_table(scale: float, mean: tuple[float, ...], std: tuple[float, ...], depth: int, dtype: str) -> NDArray[Any]:
    """Return the 256 input values of each channel, [depth, 256]. UnreadableError where they do not fit the type."""
    levels = np.arange(256, dtype=np.float64)
    with np.errstate(over="ignore"):
        rows = [(levels * scale - channel_value(mean, c)) / channel_value(std, c) for c in range(depth)]
    return cast_pixels(np.stack(rows), np.dtype(dtype))


def channel_value(values: tuple[float, ...], channel: int) -> float:
    """Return the value of a channel; a single value applies to all."""
    return values[channel] if len(values) > 1 else values[0]


def cast_pixels(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return values as `dtype`; integers are rounded. UnreadableError where they do not fit."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        rounded = np.rint(values)
        if not (rounded.min() >= limits.min and rounded.max() <= limits.max):
            raise UnreadableError(f"values after preprocessing do not fit the input's type {dtype}")
        return rounded.astype(dtype)
    with np.errstate(over="ignore"):
        out = values.astype(dtype)
    if not np.isfinite(out).all():
        raise UnreadableError(f"values after preprocessing do not fit the input's type {dtype}")
    return out

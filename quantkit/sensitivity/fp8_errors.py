"""The errors of tensors in FP8: of activations from histograms or batch by batch, and of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quantkit.numerics import E4M3_LARGEST, e4m3_codes, round_to_e4m3
from quantkit.qdq.stored_weights import broadcast_to_channels
from quantkit.rules.fp8_error import fp8_squared_error, least_fp8_threshold

if TYPE_CHECKING:
    from quantkit.histogram import Histogram
    from quantkit.qdq.grid import Grid
    from quantkit.values import Array

FACTORS = tuple(2.0 ** (k / 4) for k in range(-4, 5))
"""Factors applied to a scale in the search for a better one: within a factor of two, after which the steps repeat."""
CODES = 256


def estimate_fp8_error(histogram: Histogram, scale: float) -> tuple[float, float]:
    """Return the mean squared error with a scale, and the least one."""
    error = fp8_squared_error(histogram, scale * E4M3_LARGEST)
    return error, min(error, fp8_squared_error(histogram, least_fp8_threshold(histogram)))


def used_codes(values: Array, grid: Grid) -> Array:
    """Return which of the 256 codes values take: bool [256]."""
    codes = e4m3_codes(values / scale_of_grid(grid, values.ndim)).reshape(-1)
    return np.bincount(codes, minlength=CODES).astype(bool)


def count_saturated(values: Array, grid: Grid) -> int:
    """Count the values beyond ±448·scale."""
    return int(np.count_nonzero(np.abs(values) > E4M3_LARGEST * scale_of_grid(grid, values.ndim)))


def best_factor_share(places: Array, counts: Array) -> float:
    """Return the noise with the best of `FACTORS` as a fraction of that with the scale itself.

    places: values in units of the scale; counts: how many there are of each.
    """
    rounded = {factor: round_to_e4m3(places / factor).astype(np.float64) * factor for factor in FACTORS}
    noises = {factor: float(np.square(places - made) @ counts) for factor, made in rounded.items()}
    return min(noises.values()) / noises[1.0] if noises[1.0] else 1.0


def scale_of_grid(grid: Grid, rank: int) -> Array:
    """Return one scale, or one per channel, in a shape that broadcasts over a tensor of this rank."""
    assert grid.scale is not None
    return broadcast_to_channels(grid.scale.astype(np.float32), grid, rank)

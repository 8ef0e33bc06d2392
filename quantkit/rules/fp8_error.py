"""The squared error of FP8 (E4M3) rounding and clipping over a histogram, and the threshold at which it is least.

A tensor is rounded at x/scale, with scale = threshold/448. The steps of E4M3 grow with the values, so that the error is
relative between 2^−6·scale and 448·scale (binades), absolute below (subnormals), and that of clipping above. All three
are integrated exactly over every bin, with values spread evenly within it.

A threshold twice as large has the same relative errors, except for subnormals: clipping gains little, but the place of
the threshold within a factor of two decides where the steps change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantkit.numerics import E4M3_EXPONENT, E4M3_LARGEST, E4M3_MANTISSA, e4m3_steps, float32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantkit.histogram import Histogram

FINE, COARSE = 64, 8
"""Thresholds that are tried within a factor of two: from max|x|/2 to 2·max|x|, where it is found on every benchmark
network; and below, down to max|x|/16."""
AROUND = 8
"""Thresholds that are tried on either side of the best one, up to its neighbours."""
AT_ONCE = 8
"""Thresholds whose errors are computed together: their edges stay in the cache."""


def least_fp8_threshold(histogram: Histogram) -> float:
    """Return the threshold of least squared error in FP8, below 2·max|x|; 0 for a tensor that was zero."""
    import numpy as np

    if histogram.amax == 0.0:
        return 0.0
    octaves, sizes = tried_octaves()
    errors = fp8_squared_errors(histogram, histogram.amax * np.exp2(octaves))
    best = int(np.argmin(errors))
    around = octaves[best] + sizes[best] * np.arange(-AROUND, AROUND + 1) / (AROUND + 1)
    thresholds = histogram.amax * np.exp2(around)
    return float32(float(thresholds[np.argmin(fp8_squared_errors(histogram, thresholds))]))


def tried_octaves() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log2(threshold/max|x|) of the thresholds that are tried first, and how far apart they are."""
    import numpy as np

    coarse, fine = np.arange(-4 * COARSE, -COARSE) / COARSE, np.arange(-FINE, FINE) / FINE
    sizes = np.concatenate([np.full(len(coarse), 1 / COARSE), np.full(len(fine), 1 / FINE)])
    return np.concatenate([coarse, fine]), sizes


def fp8_squared_errors(histogram: Histogram, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean squared error at each threshold [n] → [n], in the tensor's unit squared."""
    import numpy as np

    filled = np.flatnonzero(histogram.counts)
    counts = histogram.counts[filled].astype(np.float64)
    scales = np.asarray(thresholds, np.float64) / E4M3_LARGEST
    asked = np.zeros(len(histogram.counts) + 1, dtype=bool)  # a set of edges, most of which two bins share
    asked[filled] = asked[filled + 1] = True
    edges = np.flatnonzero(asked) * histogram.width
    low = np.cumsum(asked)[filled] - 1
    errors = np.empty(len(scales))
    for start in range(0, len(scales), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        until = error_primitive(edges / scales[some, None])
        errors[some] = (until[:, low + 1] - until[:, low]) @ counts
    return errors * (scales**3 / (histogram.width * histogram.elements))


def fp8_squared_error(histogram: Histogram, threshold: float) -> float:
    """Return the mean squared error at one threshold; that of a tensor that was zero is 0."""
    import numpy as np

    if threshold <= 0.0 or not histogram.elements:
        return 0.0 if histogram.amax == 0.0 else float("inf")
    return float(fp8_squared_errors(histogram, np.array([threshold]))[0])


def error_primitive(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ∫ (t − E4M3(t))² dt from 0 to each u ≥ 0."""
    import numpy as np

    inside = np.minimum(u, E4M3_LARGEST)
    steps = e4m3_steps(inside)
    places = inside / steps
    nearest = np.rint(places)
    away = places - nearest
    # Whole steps of this size from 0, less the 8 below the binade, plus what these 8 really are: a geometric series.
    least = 2.0 ** (E4M3_EXPONENT - E4M3_MANTISSA)
    cubes = steps * steps * steps  # `**` takes ten times as long
    below = least**3 + (cubes - least**3) / 7.0
    rounding = ((nearest + 4.0 * (away * away * away) - 8.0) * cubes + 8.0 * below) / 12.0
    beyond = np.maximum(u - E4M3_LARGEST, 0.0)
    result: NDArray[np.float64] = rounding + beyond * beyond * beyond / 3.0
    return result

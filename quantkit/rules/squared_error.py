"""The squared error of 8-bit rounding and clipping over a histogram, and the threshold at which it is least."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from quantkit.numerics import LEVELS, float32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantkit.histogram import Histogram

SPARSE = 64
"""Up to so many filled bins the squared error is computed for every edge: it has many minima then."""
PROMISING = 16
"""Edges of the grid around which every edge is tried. On rough histograms eight of them missed the least error by up to
2.6 %, sixteen by 0.7 %."""
PARTS = 16
"""Places in a bin where `squared_error` looks."""


def least_error_threshold(
    histogram: Histogram, counts: NDArray[np.float64] | None = None, clipping: float = 1.0
) -> float:
    """Return the bin edge of least squared error, at most max|x|; 0 for a tensor that was zero.

    counts, clipping: as for `least_error_edge`.
    """
    import numpy as np

    if histogram.amax == 0.0:
        return 0.0
    counts = histogram.counts.astype(np.float64) if counts is None else counts
    return edge_threshold(histogram, least_error_edge(histogram, counts, clipping))


def edge_threshold(histogram: Histogram, edge: int) -> float:
    """Return the threshold at a bin edge, at most max|x|."""
    return min(float32(edge * histogram.width), histogram.amax)


def least_error_edge(histogram: Histogram, counts: NDArray[np.float64], clipping: float) -> int:
    """Return the number of the bin edge of least squared error, of a tensor that was not zero.

    counts: how much each bin counts [2048]. clipping: how much the error of clipped values counts beside that of
    rounded ones. A grid of edges is tried, then every edge around the best of them.
    """
    import numpy as np

    last = min(len(histogram.counts), int(np.ceil(histogram.amax / histogram.width)))
    edges, rounding = edge_grid()
    tried = int(np.searchsorted(edges, last, side="right"))
    errors = squared_errors(counts, edges[:tried], rounding[:tried], clipping)
    promising = edges[np.argsort(errors, kind="stable")[:PROMISING]]
    asked = np.zeros(last + 1, dtype=bool)  # a set of edges; np.union1d would load numpy.ma first
    asked[np.clip(promising[:, None] + np.arange(-7, 8), 1, last)] = asked[last] = True
    if np.count_nonzero(histogram.counts) <= SPARSE:
        asked[1:] = True
    around = np.flatnonzero(asked)
    parts = np.array_split(around, -(-len(around) // 64))  # small enough for the cache
    errors = np.concatenate([squared_errors(counts, part, clipping=clipping) for part in parts])
    return int(around[np.argmin(errors)])


@lru_cache(maxsize=1)
def edge_grid() -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return edges at most 1/128 of their size apart, and their rounding errors, in float32: good enough to choose.

    The rounding error of a value near the threshold oscillates with it, with a period of 1/127 of its size.
    """
    import numpy as np

    from quantkit.histogram import BINS

    edges = np.concatenate(
        [np.arange(1, 256), np.arange(256, 512, 2), np.arange(512, 1024, 4), np.arange(1024, 2049, 8)]
    )
    return edges, rounding_errors(edges, BINS, np.float32)


class EdgeErrors:
    """The rounding errors at clipping edges, in float64: no tensor changes them, so that each is computed once.

    Edges are computed when they are first asked for, of which memory is touched: 32 MiB for all 2048. Two threads may
    compute the same edge, with the same bits.
    """

    def __init__(self, bins: int) -> None:
        import numpy as np

        self._rows = np.zeros((bins + 1, bins))
        self._known = np.zeros(bins + 1, dtype=bool)

    def rows(self, edges: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the errors of the bins below the largest of some edges, as `rounding_errors` does: [n, bins]."""
        new = edges[~self._known[edges]]
        if len(new):
            self._rows[new, : new.max()] = rounding_errors(new, int(new.max()))
            self._known[new] = True
        found: NDArray[np.float64] = self._rows[edges, : edges.max()]
        return found


@lru_cache(maxsize=1)
def edge_errors(bins: int) -> EdgeErrors:
    """Return the rounding errors of histograms with so many bins."""
    return EdgeErrors(bins)


def rounding_errors(
    edges: NDArray[np.intp], bins: int, dtype: type[np.floating[Any]] | None = None
) -> NDArray[np.floating[Any]]:
    """Return the expected squared rounding error of a value of each of the first bins, by clipping edge: [n, bins],
    in bins².

    A step is edge/127; ∫(u − round u)² is taken exactly over every bin below the edge, and is 0 beyond it. dtype:
    float64 by default.
    """
    import numpy as np

    kind = dtype or np.float64
    steps = (edges / LEVELS).astype(kind)[:, None]
    errors = np.diff(primitive(np.minimum(np.arange(bins + 1, dtype=kind) / steps, kind(LEVELS))), axis=1)
    errors *= steps**3 / kind(12.0)
    return errors


def primitive(u: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return 12·∫(u − round u)², computed in place of `u`."""
    import numpy as np

    nearest = np.rint(u)
    u -= nearest
    u *= u * u
    u *= 4
    u += nearest
    return u


def squared_error(histogram: Histogram, threshold: float) -> float:
    """Return the mean squared error of 8-bit rounding and clipping at any threshold, in the tensor's unit squared.

    Every bin is taken at `PARTS` places, so that thresholds between edges, and beyond the range, have one too.
    """
    import numpy as np

    if threshold <= 0.0 or not histogram.elements:
        return 0.0 if histogram.amax == 0.0 else float("inf")
    places = places_in(histogram)
    step = threshold / LEVELS
    errors = np.square(places - np.minimum(np.rint(places / step), LEVELS) * step).mean(axis=1)
    return float(errors @ histogram.counts) / histogram.elements


def places_in(histogram: Histogram) -> NDArray[np.float64]:
    """Return `PARTS` values of |x| in every bin, spread evenly: [2048, PARTS]."""
    import numpy as np

    bins = len(histogram.counts)
    places: NDArray[np.float64] = (np.arange(bins * PARTS, dtype=np.float64) + 0.5) * (histogram.width / PARTS)
    return places.reshape(bins, PARTS)


def mean_square(histogram: Histogram) -> float:
    """Return the mean of x², with values spread evenly within each bin as in `squared_error`."""
    import numpy as np

    return float(np.square(places_in(histogram)).mean(axis=1) @ histogram.counts) / max(histogram.elements, 1)


def squared_errors(
    weights: NDArray[np.float64],
    edges: NDArray[np.intp],
    rounding: NDArray[np.floating[Any]] | None = None,
    clipping: float = 1.0,
) -> NDArray[np.float64]:
    """Return the expected squared error, summed over all values, of clipping at each bin edge [n] → [n], in bins².

    weights: how much each bin counts [2048]. clipping: how much the error of clipped values counts.
    """
    import numpy as np

    if rounding is None:
        rounding = edge_errors(len(weights)).rows(edges)
    # Not `@`: OpenBLAS splits a product of this size among threads, whose waiting for each other costs more than it.
    inside = np.einsum("ij,j->i", rounding, weights[: rounding.shape[1]].astype(rounding.dtype))
    j = np.arange(len(weights))
    moments = np.stack([weights, weights * (j + 0.5), weights * (j * j + j + 1.0 / 3.0)])
    beyond = np.concatenate([np.cumsum(moments[:, ::-1], axis=1)[:, ::-1], np.zeros((3, 1))], axis=1)
    n, first, second = beyond[:, edges]
    clipped = second - 2.0 * edges * first + edges.astype(np.float64) ** 2 * n
    errors: NDArray[np.float64] = inside + clipping * np.maximum(clipped, 0.0)
    return errors

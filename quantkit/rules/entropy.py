"""The rule `entropy`: least KL divergence over 1921 candidates, TensorRT's IInt8EntropyCalibrator2 bit for bit.

The search follows S. Migacz, "8-bit inference with TensorRT" (GTC 2017), with the details that TensorRT's own tables
settle: docs/decisions/0002-entropy-search.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from quantkit.numerics import FLOAT32_MAX, float32
from quantkit.rules.registry import RuleKind
from quantkit.values import Algorithm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantkit.histogram import Histogram

ENTROPY_LEVELS = 128
"""The search starts at this many bins and quantizes each candidate to this many levels."""


@dataclass(frozen=True, slots=True)
class Entropy:
    """TensorRT's entropy calibration, reproduced to the last bit of the threshold."""

    @property
    def name(self) -> str:
        """`entropy`."""
        return "entropy"

    def threshold(self, histogram: Histogram) -> float:
        """Return (i + 1/2)·R/2048 for the i of the smallest divergence; can exceed max|x|."""
        if histogram.amax == 0.0:
            return 0.0
        return float32(
            min((entropy_bins(histogram.counts) + 0.5) * histogram.range / len(histogram.counts), FLOAT32_MAX)
        )


def level_edges() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the candidates i [1921], and for each the bins at which its 128 levels begin and end [1921, 129].

    Bin j lies in level floor(j·128/i), so level l begins at bin ceil(l·i/128).
    """
    import numpy as np

    from quantkit.histogram import BINS

    candidates = np.arange(ENTROPY_LEVELS, BINS + 1)
    levels = np.arange(ENTROPY_LEVELS + 1)
    return candidates, -(-levels[None, :] * candidates[:, None] // ENTROPY_LEVELS)


@lru_cache(maxsize=1)
def level_spans() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the candidates i [1921], and for each the positions of its 128 levels in `span_sums` [1921, 128]."""
    import numpy as np

    from quantkit.histogram import BINS

    candidates, edges = level_edges()
    return candidates, (np.diff(edges, axis=1) - 1) * BINS + edges[:, :-1]


def span_sums(cumulative: NDArray[Any]) -> NDArray[Any]:
    """Return the sums over n bins from bin j on, at [(n − 1)·2048 + j], for n up to the 16 bins of the widest level.

    cumulative: sums over the first 0, 1, … 2048 bins.
    """
    import numpy as np

    bins = len(cumulative) - 1
    first = np.arange(bins)
    ends = np.minimum(first + np.arange(1, bins // ENTROPY_LEVELS + 1)[:, None], bins)
    sums: NDArray[Any] = (cumulative[ends] - cumulative[first]).ravel()
    return sums


def entropy_bins(counts: NDArray[np.int64]) -> int:
    """Return the number of bins i in 128 … 2048 that TensorRT keeps of `counts` [2048].

    P is the histogram clipped at i, its tail added to bin i−1; Q the same without the tail, in 128 levels whose mass
    is shared evenly by their nonzero bins; both are normalised, and bin 0 is taken to be bin 1. Over cumulative sums,

        KL(P‖Q) = Σ P log P − Σ P log(mass/bins of the level) + log(Σ Q)

    so that all 1921 candidates cost a few array operations. Logarithms are taken of the 32,768 spans of bins from which
    the 245,888 levels are picked. Ties take the larger i. Where no candidate is admissible (a constant tensor), the
    result is 2048.
    """
    import numpy as np

    bins = len(counts)
    h = counts.astype(np.float64)
    h[0] = h[1]
    candidates, levels = level_spans()
    mass = np.concatenate(([0.0], np.cumsum(h)))
    filled = np.concatenate(([0], np.cumsum(h > 0)))
    information = np.concatenate(([0.0], np.cumsum(xlogx(h))))

    kept = mass[candidates]
    tail = mass[bins] - kept
    last = h[candidates - 1]
    admissible = (filled[candidates] >= 2) & ((tail == 0.0) | (last > 0.0))
    if not admissible.any():
        return bins

    span_mass = span_sums(mass)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_share = np.where(span_mass > 0.0, np.log(span_mass / span_sums(filled)), 0.0)
        self_information = information[candidates] - xlogx(last) + xlogx(last + tail)
        cross = (span_mass * log_share)[levels].sum(axis=1) + tail * log_share[levels[:, -1]]
        divergence = (self_information - cross) / mass[bins] - np.log(mass[bins]) + np.log(kept)
    divergence = np.where(admissible, divergence, np.inf)
    # Equal divergences differ by rounding here; 1e-12 is far below any difference that counts make.
    ties = np.flatnonzero(divergence <= divergence.min() + 1e-12)
    return int(candidates[ties[-1]])


def xlogx(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x·log x, 0 at 0."""
    import numpy as np

    return x * np.log(np.where(x > 0.0, x, 1.0))


KIND = RuleKind(
    "entropy",
    Entropy,
    "TensorRT's default, least KL divergence",
    calibrators=frozenset({Algorithm.ENTROPY_2, Algorithm.ENTROPY}),
    in_fp8=None,
    rank=40,
)

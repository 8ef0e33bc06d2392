"""Rules: which threshold a histogram is clipped at. A rule is a frozen value; scale = threshold/127.

    rule                threshold                                          source
    MinMax()            max|x|, exactly                                    TensorRT IInt8MinMaxCalibrator
    Entropy()           least KL divergence over 1921 candidates           TensorRT IInt8EntropyCalibrator2, bit for bit
    Percentile(99.99)   upper edge of the bin where the share is reached   TensorRT IInt8LegacyCalibrator, cutoff 1
    Mse()               least expected squared error of 8-bit rounding     Sung et al. 2015 (arXiv 1511.06488), Nagel
                        and clipping                                       et al. 2021 (arXiv 2106.08295) §3.1
    Best()              that of the rules above, and of percentile 99.999, which has the least squared error

The entropy search follows S. Migacz, "8-bit inference with TensorRT" (GTC 2017), with the details that TensorRT's own
tables settle: docs/decisions/0002-entropy-search.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from quantkit.errors import UsageError
from quantkit.histogram import BINS, Histogram
from quantkit.numerics import FLOAT32_MAX, LEVELS, float32

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

SPARSE = 64
"""Up to so many filled bins the squared error is computed for every edge: it has many minima then."""
PROMISING = 16
"""Edges of the grid around which every edge is tried. On rough histograms eight of them missed the least error by up to
2.6 %, sixteen by 0.7 %."""
PARTS = 16
"""Places in a bin where `squared_error` looks."""
ENTROPY_LEVELS = 128
"""The search starts at this many bins and quantizes each candidate to this many levels."""


@runtime_checkable
class Rule(Protocol):
    """A way to choose the threshold of a tensor."""

    @property
    def name(self) -> str:
        """As it is written on the command line and in file names."""

    def threshold(self, histogram: Histogram) -> float:
        """The clipping threshold, a float32 value in the unit of the tensor; 0 for a tensor that was zero."""


@dataclass(frozen=True, slots=True)
class MinMax:
    """Clip nothing: the threshold is max|x|."""

    @property
    def name(self) -> str:
        """`minmax`."""
        return "minmax"

    def threshold(self, histogram: Histogram) -> float:
        """max|x| over all batches, exactly."""
        return histogram.amax


@dataclass(frozen=True, slots=True)
class Entropy:
    """TensorRT's entropy calibration, reproduced to the last bit of the threshold."""

    @property
    def name(self) -> str:
        """`entropy`."""
        return "entropy"

    def threshold(self, histogram: Histogram) -> float:
        """(i + 1/2)·R/2048 for the i of the smallest divergence; can exceed max|x|."""
        if histogram.amax == 0.0:
            return 0.0
        return float32(min((entropy_bins(histogram.counts) + 0.5) * histogram.range / BINS, FLOAT32_MAX))


@dataclass(frozen=True, slots=True)
class Percentile:
    """Clip the (100 − keep) % largest |x|, as TensorRT's Legacy calibrator with quantile keep/100 does."""

    keep: float = 99.99

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 100.0:
            raise UsageError(
                f"percentile {self.keep:g} is not in (0, 100]",
                remedy="for example percentile:99.99",
            )

    @property
    def name(self) -> str:
        """`percentile:<keep>`."""
        return f"percentile:{Decimal(repr(float(self.keep))):f}"

    @property
    def quantile(self) -> float:
        """keep/100, rounded once: 99.99 is the double 0.9999."""
        return float(Decimal(repr(float(self.keep))).scaleb(-2))

    def threshold(self, histogram: Histogram) -> float:
        """Upper edge of the first bin whose cumulative share reaches keep/100."""
        if histogram.amax == 0.0:
            return 0.0
        cumulative = np.cumsum(histogram.counts)
        reached = np.searchsorted(cumulative / cumulative[-1], self.quantile)
        return float32(min((min(int(reached), BINS - 1) + 1) * histogram.range / BINS, FLOAT32_MAX))


@dataclass(frozen=True, slots=True)
class Mse:
    """Least mean squared error of clipping and rounding to 8 bits, values spread evenly within each bin."""

    @property
    def name(self) -> str:
        """`mse`."""
        return "mse"

    def threshold(self, histogram: Histogram) -> float:
        """A bin edge, at most max|x|: a grid of edges is tried, then every edge around the best of them."""
        if histogram.amax == 0.0:
            return 0.0
        last = min(BINS, int(np.ceil(histogram.amax / histogram.width)))
        edges, rounding = edge_grid()
        tried = int(np.searchsorted(edges, last, side="right"))
        errors = squared_errors(histogram.counts, edges[:tried], rounding[:tried])
        promising = edges[np.argsort(errors, kind="stable")[:PROMISING]]
        around = np.union1d(np.clip(promising[:, None] + np.arange(-7, 8), 1, last), last)
        if np.count_nonzero(histogram.counts) <= SPARSE:
            around = np.arange(1, last + 1)
        parts = np.array_split(around, -(-len(around) // 64))  # small enough for the cache
        errors = np.concatenate([squared_errors(histogram.counts, part) for part in parts])
        best = int(around[np.argmin(errors)])
        return min(float32(best * histogram.width), histogram.amax)


@dataclass(frozen=True, slots=True)
class Best:
    """For every tensor the rule with the least squared error over its histogram."""

    rules: tuple[Rule, ...] = (Mse(), Percentile(99.999), Percentile(99.99), Entropy(), MinMax())

    @property
    def name(self) -> str:
        """`best`."""
        return "best"

    def threshold(self, histogram: Histogram) -> float:
        """The threshold of the chosen rule."""
        return self.choice(histogram)[1]

    def choice(self, histogram: Histogram) -> tuple[Rule, float]:
        """The chosen rule, the first of equals, and its threshold."""
        found = [(rule, rule.threshold(histogram)) for rule in self.rules]
        return min(found, key=lambda pair: squared_error(histogram, pair[1]))


RULES: Mapping[str, type[Best | Entropy | MinMax | Mse]] = {
    "entropy": Entropy,
    "minmax": MinMax,
    "mse": Mse,
    "best": Best,
}


def parse_rule(text: str) -> Rule:
    """The rule that `text` names: `entropy`, `minmax`, `mse`, `best`, `percentile` or `percentile:99.9`. UsageError."""
    if found := RULES.get(text):
        return found()
    if match := re.fullmatch(r"percentile(?::(\d+(?:\.\d+)?))?", text):
        return Percentile(float(match[1])) if match[1] else Percentile()
    raise UsageError(f"unknown rule {text!r}", remedy="one of entropy, minmax, mse, best, percentile:99.99")


def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules of a comma-separated list, each once, in order. UsageError."""
    return as_rules([parse_rule(part.strip()) for part in text.split(",")])


def as_rules(rules: str | Rule | Sequence[Rule]) -> tuple[Rule, ...]:
    """Rules as a caller may give them: names, one rule, or several. UsageError where none is given, or one twice."""
    if isinstance(rules, str):
        return parse_rules(rules)
    chosen: tuple[Rule, ...] = (rules,) if isinstance(rules, Rule) else tuple(rules)
    if not chosen:
        raise UsageError("no rule is given", remedy="for example entropy")
    names = [rule.name for rule in chosen]
    if len(set(names)) != len(names):
        raise UsageError(f"a rule is named twice: {','.join(names)}", remedy="name each rule once")
    return chosen


def percentile_of(quantile: float) -> Percentile:
    """The rule that keeps a share of the values: 0.9999 is 99.99 %, without the rounding of 100·0.9999."""
    return Percentile(float(Decimal(repr(quantile)).scaleb(2)))


# ── the entropy search ──────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=1)
def level_edges() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Candidates i [1921], and for each the bins at which its 128 levels begin and end [1921, 129].

    Bin j lies in level floor(j·128/i), so level l begins at bin ceil(l·i/128).
    """
    candidates = np.arange(ENTROPY_LEVELS, BINS + 1)
    levels = np.arange(ENTROPY_LEVELS + 1)
    return candidates, -(-levels[None, :] * candidates[:, None] // ENTROPY_LEVELS)


def entropy_bins(counts: NDArray[np.int64]) -> int:
    """The number of bins i in 128 … 2048 that TensorRT keeps of `counts` [2048].

    P is the histogram clipped at i, its tail added to bin i−1; Q the same without the tail, in 128 levels whose mass
    is shared evenly by their nonzero bins; both normalised, bin 0 taken as bin 1. Written out over cumulative sums,

        KL(P‖Q) = Σ P log P − Σ P log(mass/bins of the level) + log(Σ Q)

    so that all 1921 candidates cost a few array operations. Ties take the larger i. Where no candidate is admissible
    (a constant tensor), 2048.
    """
    h = counts.astype(np.float64)
    h[0] = h[1]
    candidates, edges = level_edges()
    mass = np.concatenate(([0.0], np.cumsum(h)))
    filled = np.concatenate(([0], np.cumsum(h > 0)))
    information = np.concatenate(([0.0], np.cumsum(xlogx(h))))

    kept = mass[candidates]
    tail = mass[BINS] - kept
    last = h[candidates - 1]
    admissible = (filled[candidates] >= 2) & ((tail == 0.0) | (last > 0.0))
    if not admissible.any():
        return BINS

    level_mass = np.diff(mass[edges], axis=1)
    level_filled = np.diff(filled[edges], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_share = np.where(level_mass > 0.0, np.log(level_mass / level_filled), 0.0)
        self_information = information[candidates] - xlogx(last) + xlogx(last + tail)
        cross = (level_mass * log_share).sum(axis=1) + tail * log_share[:, -1]
        divergence = (self_information - cross) / mass[BINS] - np.log(mass[BINS]) + np.log(kept)
    divergence = np.where(admissible, divergence, np.inf)
    # Equal divergences differ by rounding here; 1e-12 is far below any difference that counts make.
    ties = np.flatnonzero(divergence <= divergence.min() + 1e-12)
    return int(candidates[ties[-1]])


def xlogx(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """x·log x, 0 at 0."""
    return x * np.log(np.where(x > 0.0, x, 1.0))


# ── the squared error ───────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=1)
def edge_grid() -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Edges no further apart than 1/128 of their size, and their rounding errors, in float32: good enough to choose.

    The rounding error of a value near the threshold oscillates with it, with a period of 1/127 of its size.
    """
    edges = np.concatenate(
        [np.arange(1, 256), np.arange(256, 512, 2), np.arange(512, 1024, 4), np.arange(1024, 2049, 8)]
    )
    return edges, rounding_errors(edges, BINS, np.float32)


def rounding_errors(
    edges: NDArray[np.intp], bins: int, dtype: type[np.floating[Any]] = np.float64
) -> NDArray[np.floating[Any]]:
    """Expected squared rounding error of a value of each of the first bins, by clipping edge: [n, bins], in bins².

    A step is edge/127; ∫(u − round u)² is taken exactly over every bin below the edge, and is 0 beyond it.
    """
    steps = (edges / LEVELS).astype(dtype)[:, None]
    errors = np.diff(primitive(np.minimum(np.arange(bins + 1, dtype=dtype) / steps, dtype(LEVELS))), axis=1)
    errors *= steps**3 / dtype(12.0)
    return errors


def primitive(u: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """12·∫(u − round u)², in place of `u`."""
    nearest = np.rint(u)
    u -= nearest
    u *= u * u
    u *= 4
    u += nearest
    return u


def squared_error(histogram: Histogram, threshold: float) -> float:
    """Mean squared error of 8-bit rounding and clipping at any threshold, in the tensor's unit squared.

    Every bin is taken at `PARTS` places, so that thresholds between edges, and beyond the range, have one too.
    """
    if threshold <= 0.0 or not histogram.elements:
        return 0.0 if histogram.amax == 0.0 else float("inf")
    places = places_in(histogram)
    step = threshold / LEVELS
    errors = np.square(places - np.minimum(np.rint(places / step), LEVELS) * step).mean(axis=1)
    return float(errors @ histogram.counts) / histogram.elements


def places_in(histogram: Histogram) -> NDArray[np.float64]:
    """`PARTS` values of |x| in every bin, spread evenly: [2048, PARTS]."""
    places: NDArray[np.float64] = (np.arange(BINS * PARTS, dtype=np.float64) + 0.5) * (histogram.width / PARTS)
    return places.reshape(BINS, PARTS)


def mean_square(histogram: Histogram) -> float:
    """Mean of x², values spread evenly within each bin as in `squared_error`."""
    return float(np.square(places_in(histogram)).mean(axis=1) @ histogram.counts) / max(histogram.elements, 1)


def squared_errors(
    counts: NDArray[np.int64], edges: NDArray[np.intp], rounding: NDArray[np.floating[Any]] | None = None
) -> NDArray[np.float64]:
    """Expected squared error, summed over all values, of clipping at each bin edge [n] → [n], in bins²."""
    weights = counts.astype(np.float64)
    if rounding is None:
        rounding = rounding_errors(edges, int(edges.max()))
    inside = rounding @ weights[: rounding.shape[1]].astype(rounding.dtype)
    j = np.arange(BINS)
    moments = np.stack([weights, weights * (j + 0.5), weights * (j * j + j + 1.0 / 3.0)])
    beyond = np.concatenate([np.cumsum(moments[:, ::-1], axis=1)[:, ::-1], np.zeros((3, 1))], axis=1)
    n, first, second = beyond[:, edges]
    clipping = second - 2.0 * edges * first + edges.astype(np.float64) ** 2 * n
    errors: NDArray[np.float64] = inside + np.maximum(clipping, 0.0)
    return errors

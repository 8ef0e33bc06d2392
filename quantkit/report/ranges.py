"""Ranges: histograms of the worst tensors with the thresholds at which rules clip them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quantkit.histogram import BINS, Histogram
from quantkit.numerics import noise_decibels, noise_share
from quantkit.report import charts_plane
from quantkit.report.page import Cell, Drawing, Gallery, PageSection, PageTable
from quantkit.report.wording import count_noun, format_decibel, format_percent, format_significant
from quantkit.rules import Rule, SelectingRule, rule_kinds
from quantkit.rules.squared_error import least_error_threshold, mean_square, squared_error
from quantkit.sensitivity.result import Sensitivity
from quantkit.statistics import Statistics

SHOWN_RULES = tuple(rule for kind in rule_kinds().values() if not isinstance(rule := kind.rule(), SelectingRule))
"""The rules that have thresholds of their own."""
WORST = 9
"""Number of tensors that are drawn."""


@dataclass(frozen=True, slots=True)
class Clipping:
    """The effect of a rule on a tensor.

    clipped: fraction of the values in bins beyond the threshold. sqnr_db: for 8-bit rounding and clipping, with values
    spread evenly within their bins.
    """

    rule: str
    threshold: float
    clipped: float
    sqnr_db: float


def clipping(found: Histogram, rule: Rule) -> Clipping:
    """Return the threshold of a rule and its cost."""
    threshold = rule.threshold(found)
    if not found.elements or found.amax == 0.0:
        return Clipping(rule.name, threshold, 0.0, math.inf)
    first = min(BINS, math.ceil(threshold / found.width - 1e-9))
    clipped = 0.0 if threshold >= found.amax else float(found.counts[first:].sum()) / found.elements
    return Clipping(rule.name, threshold, clipped, sqnr_at(found, threshold))


def sqnr_at(found: Histogram, threshold: float) -> float:
    """Return the SQNR in dB of 8-bit rounding and clipping at a threshold."""
    return noise_decibels(noise_share(squared_error(found, threshold), mean_square(found)))


def worst_tensors(statistics: Statistics, sensitivity: Sensitivity | None, count: int = WORST) -> tuple[str, ...]:
    """Return the activations with the most noise, as measured, or else by the error of their histogram under `mse`."""
    measured = [t.name for t in sensitivity.tensors if not t.weight] if sensitivity else []
    known = [name for name in dict.fromkeys(measured) if name in statistics.histograms]
    if not known:
        errors = {name: sqnr_at(h, least_error_threshold(h)) for name, h in statistics.histograms.items()}
        known = sorted(errors, key=lambda name: errors[name])
    return tuple(known[:count])


def ranges_section(statistics: Statistics, sensitivity: Sensitivity | None) -> PageSection:
    """Return the section with histograms of the worst tensors and the thresholds of all rules."""
    names = worst_tensors(statistics, sensitivity)
    drawings = tuple(
        range_drawing(f"range-{i}", name, statistics.histograms[name], SHOWN_RULES) for i, name in enumerate(names, 1)
    )
    lead = (
        f"The {count_noun(len(names), 'tensor')} with the lowest SQNR, out of {len(statistics)}. "
        "Values to the right of a threshold are clipped; the further right the threshold, the coarser the steps for "
        "all other values."
    )
    return PageSection("ranges", "Ranges and thresholds", lead, (Gallery(drawings),))


def range_drawing(key: str, tensor: str, found: Histogram, rules: Sequence[Rule]) -> Drawing:
    """Return a histogram with the effect of every rule."""
    costs = [clipping(found, rule) for rule in rules]
    chart = charts_plane.histogram_plot(tensor, found, [(c.rule, c.threshold) for c in costs])
    best = max(c.sqnr_db for c in costs)
    rows = tuple(
        (
            Cell(c.rule),
            Cell(format_significant(c.threshold)),
            Cell(format_percent(c.clipped, 3)),
            Cell(format_decibel(c.sqnr_db), status="best" if c.sqnr_db == best else ""),
        )
        for c in costs
    )
    table = PageTable(f"Thresholds of {tensor}", ("rule", "threshold", "clipped", "SQNR"), rows)
    return Drawing(key, chart, None, "", table, heading=tensor)

"""Sections on tuning: the configurations that were tried and why, and the engines by accuracy and latency."""

from __future__ import annotations

import math

from quantkit.metrics.registry import metric_title
from quantkit.report.charts_plane import PlanePoint, plane
from quantkit.report.page import Block, Cell, Drawing, PageSection, PageTable, PageVerdict, Prose
from quantkit.report.wording import (
    count_noun,
    format_decibel,
    format_percent,
    format_seconds,
    format_signed,
    format_significant,
)
from quantkit.sensitivity.result import Sensitivity
from quantkit.tuning.result import FrontPoint, Tuning
from quantkit.tuning.trial import Trial

NARROW = 350.0
LEAST = 1.0
"""Minimum range of the axis of change, in percentage points."""
THOUSAND = 1e3
"""Milliseconds in a second."""


def tuning_verdict(tuning: Tuning) -> PageVerdict:
    """Return what was chosen, and whether it is within the budget on the held-out part."""
    within = tuning.within_budget
    figures = (
        (f"{tuning.samples[0]:,}", "tuning samples"),
        (f"{tuning.samples[1]:,}", "held-out samples"),
        (f"{tuning.evaluations:,}", "evaluation" if tuning.evaluations == 1 else "evaluations"),
        (format_seconds(tuning.seconds), "to tune"),
    )
    budget = f"the budget of {tuning.budget}"
    badge = f"within {budget}" if within else f"over {budget}"
    if within and tuning.report.doubts:
        within, badge = False, f"in doubt: {badge}"
    return PageVerdict((tuning.verdict,), "within" if within else "over", badge, figures, tuning.notes)


def tried_section(tuning: Tuning) -> PageSection:
    """Return all trials in order, with reasons and outcomes, and the layers that stay float."""
    lead = (
        f"In this order, on the {count_noun(tuning.samples[0], 'sample')} of the tuning part. The search ends at the "
        "first configuration whose drop plus one standard error is within the budget. SQNR is that of the outputs on a "
        "few samples; configurations without a promising SQNR are not evaluated."
    )
    head = (
        "rule, repairs, layers",
        "SQNR",
        f"drop{tuning.unit and ', percentage points'}",
        "95 % interval",
        "why",
        "outcome",
    )
    rows = tuple(trial_table_row(trial, tuning) for trial in tuning.trials)
    blocks: list[Block] = [
        PageTable("Configurations in the order of the search", head, rows, frozenset({4, 5}), cards=True)
    ]
    if fp8 := tuning.chosen.recipe.fp8:
        blocks.append(Prose((f"Operators with weights: {tuning.types_text}. In FP8: {', '.join(fp8)}.",)))
    if kept := tuning.chosen.recipe.kept:
        share = format_percent(tuning.chosen.floats, 1)
        blocks.append(Prose((f"Kept in float, with {share} of the weights: {', '.join(kept)}.",)))
    return PageSection("tried", "Search", lead, tuple(blocks))


def trial_table_row(trial: Trial, tuning: Tuning) -> tuple[Cell, ...]:
    """Return the row of a trial; the chosen one is marked."""
    found, known = trial.figure, not math.isnan(trial.proxy_db)
    drop, interval, status = "", "", ""
    if found is not None:
        drop, status = format_signed(found.drop), "within" if found.drop <= tuning.max_drop else "over"
        interval = "" if math.isnan(found.low) else f"{format_signed(found.low)} … {format_signed(found.high)}"
    return (
        Cell(trial.recipe.text(), "chosen" if trial is tuning.chosen else ""),
        Cell(format_decibel(trial.proxy_db) if known else ""),
        Cell(drop, status=status),
        Cell(interval),
        Cell(trial.why),
        Cell(trial.outcome),
    )


def front_section(tuning: Tuning) -> PageSection | None:
    """Return engines on the held-out part by the change of the metric and by latency; None without engines."""
    if not tuning.front:
        return None
    unit = "percentage points" if tuning.share else metric_title(tuning.metric)
    axes = ("batches per second", f"change of {metric_title(tuning.metric)}, {unit}")
    title = "Accuracy against speed"
    head = ("engine", "precision", "ms per batch", f"drop, {unit}")
    table = PageTable(title, head, tuple(front_table_row(p, tuning.max_drop) for p in tuning.front), frozenset({1}))
    spots = [
        PlanePoint(f"{p.name}, chosen" if p.chosen else p.name, THOUSAND / p.milliseconds, -p.drop)
        for p in tuning.front
        if p.drop is not None and p.milliseconds > 0
    ]
    blocks: list[Block] = [table]
    if len(spots) > 1:
        least = LEAST if tuning.share else 1e-6
        wide, narrow = plane(spots, axes, title, least=least), plane(spots, axes, title, NARROW, least)
        blocks.append(Drawing("front-chart", wide, narrow, ""))
    return PageSection("front", "Accuracy and speed", front_lead(tuning), tuple(blocks))


def front_lead(tuning: Tuning) -> str:
    """Return how the engines were timed, and what was evaluated of them."""
    if tuning.speed is not None:
        return (
            f"The engines that were timed side by side on {tuning.machine}, at batch {max(tuning.speed.batches)}. "
            "FP16 and the chosen one were evaluated on the held-out part."
        )
    return (
        f"Engines of every precision, each timed alone on {tuning.machine or 'a GPU'} and evaluated on the held-out "
        "part. The chosen one is the simplest of those that are as fast as the fastest within the budget."
    )


def front_table_row(point: FrontPoint, max_drop: float) -> tuple[Cell, ...]:
    """Return the row of an engine."""
    drop, status = "", ""
    if point.drop is not None:
        drop, status = format_signed(point.drop), "within" if point.drop <= max_drop else "over"
    return (
        Cell(point.name, "chosen" if point.chosen else ""),
        Cell(point.precision.upper()),
        Cell(format_significant(point.milliseconds)),
        Cell(drop, status=status),
    )


def tuned_sensitivity(tuning: Tuning) -> Sensitivity | None:
    """Return the ranking of layers; None if no layer had to be kept float."""
    base = tuning.ranked
    if base is None or not tuning.ranking:
        return None
    return Sensitivity(tuning.model, base.recipe.rule, base.db, tuning.ranking, (), base.samples, (), {}, 0.0)

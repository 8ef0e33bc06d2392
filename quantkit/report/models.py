"""Sections on the models of an evaluation: verdict, table, drops with their intervals, speed."""

from __future__ import annotations

import math
import re

from quantkit.engines.bench_result import BenchResult
from quantkit.engines.bench_result import bench_verdicts as bench_verdict
from quantkit.evaluation.result import Evaluation, ModelScore, OutputDeviation, layers_text
from quantkit.metrics.registry import is_share_metric, metric_title
from quantkit.report import charts_rows
from quantkit.report.charts_plane import PlanePoint, plane
from quantkit.report.page import Block, Cell, Drawing, PageSection, PageTable, PageVerdict, Prose
from quantkit.report.wording import (
    count_noun,
    format_decibel,
    format_number,
    format_percent,
    format_probability,
    format_seconds,
    format_signed,
    format_significant,
    format_size,
)

NARROW = 350.0
LEAST = 1.0
"""Minimum range of an axis of quality, in percentage points."""
SHARES = re.compile(r"accuracy(@.+)?")
"""Metrics that are fractions but not in the registry."""


def difference_unit(evaluation: Evaluation) -> str:
    """Return the unit of differences."""
    return "percentage points" if evaluation.share else metric_title(str(evaluation.metric))


def evaluation_verdict(evaluation: Evaluation) -> PageVerdict:
    """Return the sentences of the verdict, and whether the candidates are within the budget."""
    status, badge = "", ""
    judged = [m for m in evaluation.candidates if m.difference is not None]
    if evaluation.max_drop is not None and judged:
        unit = "percentage point" if evaluation.share and evaluation.max_drop == 1 else difference_unit(evaluation)
        budget = f"{evaluation.max_drop:g} {unit}"
        over = evaluation.over_budget
        status = "over" if over else "within"
        badge = f"over the budget of {budget}" if over else f"within the budget of {budget}"
        if evaluation.doubts and not over:
            status, badge = "over", f"in doubt: {badge}"
        if over and len(judged) > 1:
            badge = f"{len(over)} of {len(judged)} {badge}"
    reference = evaluation.reference
    figures = [(f"{evaluation.samples:,}", "sample" if evaluation.samples == 1 else "samples")]
    if evaluation.metric in reference.metrics:
        value = metric_text(evaluation, str(evaluation.metric), reference.metrics[str(evaluation.metric)])
        figures.append((value, f"{metric_title(str(evaluation.metric))} of {reference.name}"))
    count = len(evaluation.candidates)
    figures += [
        (str(count), "candidate" if count == 1 else "candidates"),
        (format_seconds(evaluation.seconds), "to evaluate"),
    ]
    sentences = evaluation.statements or ("There is nothing to compare: only the reference was evaluated.",)
    notes = tuple(text for text in evaluation.notes if text not in evaluation.doubts)  # they stand in the sentences
    return PageVerdict(sentences, status, badge, tuple(figures), notes)


def metric_text(evaluation: Evaluation, name: str, value: float) -> str:
    """Format a metric, as a percentage if it is a fraction."""
    is_share = evaluation.share if name == evaluation.metric else is_share_metric(name) or bool(SHARES.fullmatch(name))
    return format_percent(value) if is_share else format_significant(value)


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────


def models_section(evaluation: Evaluation) -> PageSection:
    """Return the table of models, the reference first, and below it that of outputs."""
    metrics = list(dict.fromkeys(name for model in evaluation.models for name in model.metrics))
    columns = {"kind": [Cell(m.kind.value) for m in evaluation.models]}
    for metric in metrics:
        columns[metric_title(metric)] = [metric_cell(evaluation, model, metric) for model in evaluation.models]
    columns[f"drop, {difference_unit(evaluation)}"] = [drop_cell(evaluation, m) for m in evaluation.models]
    columns["agreement"] = [agreement_cell(m) for m in evaluation.models]
    columns["SQNR"] = [Cell("" if not m.outputs else charts_rows.worst_output(m)) for m in evaluation.models]
    columns["confidence"] = [confidence_cell(evaluation, m) for m in evaluation.models]
    columns["size"] = [Cell(format_size(m.bytes)) for m in evaluation.models]
    place = common_place(evaluation)
    columns["samples/s"] = [speed_cell(m) for m in evaluation.models]
    columns["INT8 layers"] = [int8_cell(m) for m in evaluation.models]
    filled = {name: cells for name, cells in columns.items() if any(cell.text for cell in cells)}
    names = [Cell(m.name, "reference" if i == 0 else "") for i, m in enumerate(evaluation.models)]
    rows = tuple(zip(names, *filled.values(), strict=True))
    table = PageTable("Comparison of the models", ("model", *filled), rows, frozenset({1}), cards=True)
    blocks: list[Block] = [table, *output_tables(evaluation), *match_tables(evaluation)]
    lead = "A drop is reference minus candidate, so a loss is positive; its paired 95 % interval is in parentheses."
    lead += " Shifts of the confidence are in percentage points (pp)." if "confidence" in filled else ""
    lead += f" Speeds were measured with {place}." if place else ""
    return PageSection("models", "Models", lead, tuple(blocks))


def metric_cell(evaluation: Evaluation, model: ModelScore, metric: str) -> Cell:
    """Return the cell of a metric of a model."""
    return Cell(metric_text(evaluation, metric, model.metrics[metric]) if metric in model.metrics else "")


def drop_cell(evaluation: Evaluation, model: ModelScore) -> Cell:
    """Return the cell of a drop with its interval, and whether it is within the budget, if there is one."""
    d = model.difference
    if d is None:
        return Cell("")
    status = ""
    if evaluation.max_drop is not None:
        status = "over" if not d.value <= evaluation.max_drop else "" if evaluation.doubts else "within"
    return Cell(format_signed(d.value), charts_rows.format_interval_ends(d), status=status)


def confidence_cell(evaluation: Evaluation, model: ModelScore) -> Cell:
    """Return the cell of the mean confidence and its shift; that of the reference is known from a candidate."""
    c = model.confidence
    if c is not None:
        return Cell(format_percent(c.candidate, 1), f"{format_signed(c.shift)} pp")
    known = (m.confidence for m in evaluation.candidates if m.confidence is not None)
    first = next(known, None) if model is evaluation.reference else None
    return Cell("" if first is None else format_percent(first.reference, 1))


def agreement_cell(model: ModelScore) -> Cell:
    """Return the cell of the fraction of samples with the reference's prediction, and the number of the others."""
    return (
        Cell("")
        if model.agreement is None
        else Cell(format_percent(model.agreement), f"{model.changed_samples:,} changed")
    )


def common_place(evaluation: Evaluation) -> str:
    """Return where and with which batch size speeds were measured, by kind of model if that differs."""
    places: dict[str, list[str]] = {}
    for m in evaluation.models:
        if m.speed is not None:
            kinds = places.setdefault(f"batches of {m.speed.batch:,} on {m.speed.where}", [])
            kinds += [] if m.kind.value in kinds else [m.kind.value]
    if len(places) < 2:
        return next(iter(places), "")
    return "; ".join(f"{place} ({', '.join(kinds)})" for place, kinds in places.items())


def speed_cell(model: ModelScore) -> Cell:
    """Return the cell of samples per second and the time of a batch."""
    s = model.speed
    if s is None:
        return Cell("")
    return Cell(
        format_number(s.samples_per_second, 0), "" if s.latency_ms is None else f"{format_significant(s.latency_ms)} ms"
    )


def int8_cell(model: ModelScore) -> Cell:
    """Return the cell of the number of INT8 layers and of all layers that could be INT8."""
    return Cell(layers_text(model, " of "))


def output_tables(evaluation: Evaluation) -> list[Block]:
    """Return a table of every output's distance from the reference."""
    rows = tuple(output_row(m, o) for m in evaluation.candidates for o in m.outputs)
    if not rows:
        return []
    head = ("model", "output", "SQNR", "cosine", "KL, nats", "largest difference")
    return [PageTable("Outputs compared with the reference", head, rows, frozenset({1}), folded="All outputs")]


def match_tables(evaluation: Evaluation) -> list[Block]:
    """Return a table of the outputs that are compared by equality."""
    rows = tuple(
        (
            Cell(model.name),
            Cell(match.name),
            Cell(f"{match.equal_samples:,} of {match.samples:,}"),
            Cell(f"{match.equal_values:,} of {match.values:,}"),
        )
        for model in evaluation.candidates
        for match in model.matches
    )
    head = ("model", "output", "equal samples", "equal values")
    title = "Outputs that are equal to the reference's"
    return [PageTable(title, head, rows, frozenset({1}), folded="All outputs that are not float")] if rows else []


def output_row(model: ModelScore, output: OutputDeviation) -> tuple[Cell, ...]:
    """Return the row of an output."""
    kl = "–" if output.kl is None else format_significant(output.kl)
    cosine = format_number(output.cosine, 5)
    return (
        Cell(model.name),
        Cell(output.name),
        Cell(format_decibel(output.sqnr_db)),
        Cell(cosine),
        Cell(kl),
        Cell(format_significant(output.largest)),
    )


# ── the interval ────────────────────────────────────────────────────────────────────────────────────────────────────


def drop_section(evaluation: Evaluation) -> PageSection | None:
    """Return the plot of drops with their intervals; None without a metric."""
    judged = [(m, m.difference) for m in evaluation.candidates if m.difference is not None]
    if not judged:
        return None
    unit = difference_unit(evaluation)
    lead = (
        "The line is the 95 % interval of the drop on samples like these. If it includes zero, the loss may be chance; "
        "the loss is significant only if the whole interval is right of zero."
    )
    if evaluation.max_drop is not None:
        lead += " The dashed line is the budget; a diamond marks a drop over it."
    head = ("model", f"drop, {unit}", "from", "to", "p", "better", "worse", "method")
    rows = tuple(
        (
            Cell(m.name),
            Cell(format_signed(d.value)),
            Cell(format_signed(d.low)),
            Cell(format_signed(d.high)),
            Cell(format_probability(d.p).removeprefix("p ")),
            Cell(f"{d.better:,}"),
            Cell(f"{d.worse:,}"),
            Cell(d.method_text),
        )
        for m, d in judged
    )
    table = PageTable("Drops with their intervals", head, rows, frozenset({7}), folded="As a table")
    chart, narrow = charts_rows.drop_plot(evaluation), charts_rows.drop_plot(evaluation, NARROW)
    return PageSection("drop", "Accuracy loss", lead, (Drawing("drop-chart", chart, narrow, "", table),))


# ── speed ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def speed_section(evaluation: Evaluation, bench: BenchResult | None) -> PageSection | None:
    """Return quality against speed if all speeds come from one GPU, and the latencies of a benchmark."""
    blocks: list[Block] = []
    timed = charts_rows.gpu_speeds(evaluation)
    points, axis, is_percentage = quality_points(evaluation, timed)
    if len(points) > 1:
        where = next(m.speed.where for m, _ in timed if m.speed)
        axes, title = (f"samples per second on {where}", axis), "Quality against speed"
        rows = tuple((Cell(s.name), Cell(format_number(s.speed, 0)), Cell(format_number(s.quality))) for s in points)
        table = PageTable(title, ("model", "samples/s", axis), rows, folded="As a table")
        least = LEAST if is_percentage else 1e-6
        wide, narrow = plane(points, axes, title, least=least), plane(points, axes, title, NARROW, least)
        blocks.append(Drawing("speed-chart", wide, narrow, "", table, heading=title))
    if bench is not None and bench.batches:
        said = (*bench_verdict(bench), *bench.notes)
        blocks = [Prose(tuple(f"{text[:1].upper()}{text[1:]}." for text in said)), *blocks] if said else blocks
        blocks += bench_blocks(bench)
    lead = "All figures come from one machine and can be compared."
    return PageSection("speed", "Accuracy and speed", lead, tuple(blocks)) if blocks else None


def quality_points(
    evaluation: Evaluation, timed: tuple[tuple[ModelScore, float], ...]
) -> tuple[list[PlanePoint], str, bool]:
    """Return the models as points, the caption of their quality, and whether it is a percentage.

    The quality is the metric, or without labels the agreement with the reference.
    """
    points: list[PlanePoint] = []
    metric = evaluation.metric
    unit = 100.0 if evaluation.share or metric is None else 1.0
    for model, speed in timed:
        first = model is evaluation.reference
        agreement = 1.0 if first else model.agreement
        quality = agreement if metric is None else model.metrics.get(metric)
        if quality is not None and math.isfinite(quality):
            points.append(PlanePoint(model.name, speed, unit * quality, first))
    axis = metric_title(metric) if metric is not None else "agreement with the reference"
    is_percentage = unit == 100.0
    return points, f"{axis}, %" if is_percentage else axis, is_percentage


def bench_blocks(bench: BenchResult) -> list[Block]:
    """Return latency at every batch size, and throughput."""
    head = ("model", "batch", "median, ms", "p90, ms", "p99, ms", "CUDA graph", "runs")
    rows = tuple(
        (
            Cell(x.subject),
            Cell(str(x.batch)),
            Cell(charts_rows.significant_ms(x.median)),
            Cell(charts_rows.significant_ms(x.p90)),
            Cell(charts_rows.significant_ms(x.p99)),
            Cell("yes" if x.graph else "no"),
            Cell(f"{x.runs:,}"),
        )
        for x in bench.latencies
    )
    table = PageTable("Latencies", head, rows, frozenset({5}), folded="As a table")
    chart, narrow = charts_rows.latency_plot(bench), charts_rows.latency_plot(bench, NARROW)
    caption = f"Median latency of one batch on {bench.machine}, without memory copies."
    blocks: list[Block] = [Drawing("latency-chart", chart, narrow, caption, table, heading=chart.title)]
    if bench.throughputs:
        throughputs = tuple(
            (
                Cell(t.subject),
                Cell(str(t.batch)),
                Cell(str(t.streams)),
                Cell("yes" if t.graph else "no"),
                Cell(format_number(t.rate, 0)),
            )
            for t in bench.throughputs
        )
        columns = ("model", "batch", "streams", "CUDA graph", "samples/s")
        title = "Throughput, including memory copies"
        blocks.append(
            PageTable(
                title, columns, throughputs, frozenset({3}), folded=f"{title}: {count_noun(len(throughputs), 'figure')}"
            )
        )
    return blocks

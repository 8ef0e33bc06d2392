"""Charts with one row per item: drops with intervals, the layers' shares of the noise, latencies at every batch size.

A row has a name, a mark on a common axis, and its figure as text on the right. The name is on the left of the mark, or
above it in narrow drawings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantkit.engines.bench_result import BenchResult
from quantkit.evaluation.object_changes import PrecisionChange, RegionChange
from quantkit.evaluation.result import Device, Evaluation, MetricDifference, ModelScore
from quantkit.metrics.registry import metric_title
from quantkit.report.charts import Chart, element, fitted_name, line, polygon, rectangle, text_line, text_width
from quantkit.report.charts_axes import Scale, bottom_axis, drawable_values, spanning_scale
from quantkit.report.wording import count_noun, format_decibel, format_number, format_percent, format_signed
from quantkit.sensitivity.result import LayerError, Sensitivity

STACKED = 560.0
"""Drawings narrower than this have the names above the marks."""
PITCH, PITCH_STACKED = 28.0, 44.0
AXIS = 46.0
"""Height of the axis below the rows."""
LAYERS = 25
"""Number of layers that are drawn; the table lists all."""


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The positions of rows: names from the left edge, marks between `left` and `right`, figures up to `width`."""

    width: float
    top: float
    count: int
    left: float
    right: float
    room: float
    """Space for a name, in pixels."""
    pitch: float
    stacked: bool

    @property
    def bottom(self) -> float:
        """The vertical position below the last row."""
        return self.top + self.count * self.pitch

    def middle(self, index: int) -> float:
        """Return the vertical position of a row's mark."""
        return self.top + index * self.pitch + (30.0 if self.stacked else self.pitch / 2)

    def label(self, index: int, text: str) -> str:
        """Return the name of a row."""
        y = self.top + index * self.pitch + 14.0 if self.stacked else self.middle(index) + 4.0
        return fitted_name(0.0, y, text, self.room)

    def figure(self, index: int, text: str) -> str:
        """Return the figure of a row, on the right at the height of its name."""
        y = self.top + index * self.pitch + 14.0 if self.stacked else self.middle(index) + 4.0
        return text_line(self.width, y, text, "figure", "end")


def lay_out_rows(width: float, names: Sequence[str], figures: Sequence[str], top: float = 8.0) -> RowLayout:
    """Allot space to names and figures, and the rest to marks."""
    stacked = width < STACKED
    widest = max(map(text_width, names), default=0.0)
    figure = max(map(text_width, figures), default=0.0)
    room = max(width - figure - 12.0, 60.0) if stacked else min(widest + 4.0, 0.36 * width)
    left = 8.0 if stacked else room + 16.0
    right = width - 8.0 if stacked else max(width - figure - 14.0, left + 60.0)
    return RowLayout(width, top, len(names), left, right, room, PITCH_STACKED if stacked else PITCH, stacked)


# ── drops with their intervals ──────────────────────────────────────────────────────────────────────────────────────


def drop_plot(evaluation: Evaluation, width: float = 960.0) -> Chart:
    """Draw the drop of every candidate with its 95 % interval, and the budget as a line. Losses are right of zero."""
    found = [(model, d) for model in evaluation.candidates if (d := model.difference) is not None]
    metric = metric_title(str(evaluation.metric))
    unit = "percentage points" if evaluation.share else metric
    layout = lay_out_rows(width, [m.name for m, _ in found], [format_interval(d) for _, d in found], 26.0)
    budget = [] if evaluation.max_drop is None else [evaluation.max_drop]
    scale = spanning_scale(
        [0.0, *budget, *(v for _, d in found for v in (d.value, d.low, d.high))], layout.left, layout.right
    )
    zero = scale(0.0)
    body = bottom_axis(scale, layout.top, layout.bottom, f"drop of {metric} in {unit} (a loss is positive)")
    body.append(line(zero, layout.top - 4.0, zero, layout.bottom, "zero"))
    if budget:
        body += budget_line(scale(budget[0]), layout, f"budget {format_number(budget[0])}")
    for index, (model, d) in enumerate(found):
        over = bool(budget) and d.value > budget[0]
        body += [layout.label(index, model.name), layout.figure(index, format_interval(d))]
        body += whisker(scale, d, layout.middle(index), over)
    said = "; ".join(f"{m.name}: {format_interval(d)}" for m, d in found) or "no candidate was compared"
    description = f"Drop in {unit} with 95 % intervals. {said}." + (
        f" The budget is {format_number(budget[0])}." if budget else ""
    )
    return Chart(f"Drop of {metric}", description, width, layout.bottom + AXIS, tuple(body))


def format_interval(difference: MetricDifference) -> str:
    """Return for example `+0.25 (+0.06 … +0.44)`."""
    d = difference
    return f"{format_signed(d.value)} {format_interval_ends(d)}".rstrip()


def format_interval_ends(d: MetricDifference | PrecisionChange | RegionChange) -> str:
    """Return for example `(+0.06 … +0.44)`; empty if there is no interval."""
    return "" if math.isnan(d.low) or math.isnan(d.high) else f"({format_signed(d.low)} … {format_signed(d.high)})"


def budget_line(x: float, layout: RowLayout, text: str) -> list[str]:
    """Draw the line of the budget with its label above."""
    half = 0.56 * text_width(text)  # it is bold
    at = min(max(x, half), layout.width - half)
    drawn = line(x, layout.top - 6.0, x, layout.bottom, "budget")
    return [drawn, text_line(at, layout.top - 11.0, text, "label budget-label", "middle")]


def whisker(scale: Scale, difference: MetricDifference, y: float, over: bool) -> list[str]:
    """Draw the interval as a line with ends, and the value as a disc, or as a diamond if it is over the budget."""
    d = difference
    drawn: list[str] = []
    kind = "loss" if over else "accent"
    if not (math.isnan(d.low) or math.isnan(d.high)):
        a, b = scale(d.low), scale(d.high)
        drawn = [line(a, y, b, y, f"whisker {kind}"), *(line(x, y - 5, x, y + 5, f"whisker {kind}") for x in (a, b))]
    if math.isnan(d.value):
        return drawn
    x = scale(d.value)
    if over:
        return [*drawn, polygon([(x - 6, y), (x, y - 6), (x + 6, y), (x, y + 6)], "mark loss")]
    return [*drawn, element("circle", {"class": "mark accent", "cx": x, "cy": y, "r": 5.0})]


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def layer_share_plot(sensitivity: Sensitivity, width: float = 960.0) -> Chart:
    """Draw the layers' shares of the noise, worst first, with what keeping each in float gains."""
    shown = sensitivity.layers[:LAYERS]
    names = [f"{rank}. {layer.node or layer.operator}" for rank, layer in enumerate(shown, 1)]
    figures = [layer_figure(layer) for layer in shown]
    layout = lay_out_rows(width, names, figures)
    known = drawable_values(100.0 * layer.share for layer in shown)
    scale = Scale(0.0, max([*known, 0.01]), layout.left, layout.right)
    body = bottom_axis(scale, layout.top, layout.bottom, "share of the noise of all layers, %")
    for index, layer in enumerate(shown):
        y = layout.middle(index)
        body += [layout.label(index, names[index]), layout.figure(index, figures[index])]
        if math.isfinite(layer.share):
            kind = "bar kept" if layer.kept else "bar accent"
            end = scale(100.0 * layer.share)
            body.append(rectangle(layout.left, y - 7.0, end - layout.left, 14.0, kind))
    rest = len(sensitivity.layers) - len(shown)
    listed = ", ".join(f"{name} {figure}" for name, figure in zip(names, figures, strict=True))
    description = f"Share of the output noise, worst first: {listed}."
    description += f" {count_noun(rest, 'more layer')} in the table." if rest else ""
    return Chart(
        f"Layers of {Path(sensitivity.model).name} by their noise",
        description,
        width,
        layout.bottom + AXIS,
        tuple(body),
    )


def layer_figure(layer: LayerError) -> str:
    """Return for example `12.3 %, +0.8 dB`: its share of the noise, and what keeping it float gains."""
    share = format_percent(layer.share, 1)
    return f"{share}, stays float" if layer.kept else f"{share}, {format_signed(layer.gain_db, 1)} dB"


# ── latencies ───────────────────────────────────────────────────────────────────────────────────────────────────────


def latency_plot(bench: BenchResult, width: float = 960.0) -> Chart:
    """Draw the median latency of every model, grouped by batch size; each group has its own axis."""
    body: list[str] = []
    said: list[str] = []
    top = 0.0
    for batch in bench.batches:
        timed = [(s.name, v) for s in bench.subjects if (v := bench.median(s.name, batch)) is not None]
        figures = [f"{significant_ms(v)} ms" for _, v in timed]
        layout = lay_out_rows(width, [n for n, _ in timed], figures, top + 26.0)
        longest = max(v for _, v in timed)
        scale = Scale(0.0, longest or 1.0, layout.left, layout.right)
        body.append(text_line(0.0, top + 16.0, f"batch {batch}", "heading"))
        for index, (subject, value) in enumerate(timed):
            y = layout.middle(index)
            best = value <= min(v for _, v in timed)
            body += [layout.label(index, subject), layout.figure(index, figures[index])]
            body.append(rectangle(layout.left, y - 7.0, scale(value) - layout.left, 14.0, bar_kind(best)))
        said.append(f"batch {batch}: " + ", ".join(f"{n} {f}" for (n, _), f in zip(timed, figures, strict=True)))
        top = layout.bottom + 10.0
    description = f"Median latency of one batch on {bench.machine}. {'; '.join(said)}."
    return Chart("Latency at every batch size", description, width, top, tuple(body))


def bar_kind(best: bool) -> str:
    """Return the classes of a bar; the fastest stands out."""
    return "bar accent" if best else "bar plain"


def significant_ms(value: float) -> str:
    """Format milliseconds with three decimals below ten, and one above."""
    return format_number(value, 3 if value < 10.0 else 1)


def gpu_speeds(evaluation: Evaluation) -> tuple[tuple[ModelScore, float], ...]:
    """Return models with their samples per second if at least two were timed, all on one GPU; else nothing."""
    timed = tuple((m, m.speed) for m in evaluation.models if m.speed is not None and m.speed.device is Device.GPU)
    if len(timed) < 2 or len({speed.where for _, speed in timed}) > 1:
        return ()
    return tuple((m, speed.samples_per_second) for m, speed in timed if math.isfinite(speed.samples_per_second))


def worst_output(model: ModelScore) -> str:
    """Return the SQNR of the output that differs most from the reference's."""
    worst = model.worst_output
    return "–" if worst is None else format_decibel(worst.sqnr_db)

"""Charts of detectors: precision over recall of a class, and how the scores of matched objects shift."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantkit.evaluation.object_changes import Histogram
from quantkit.report.charts import Chart, element, fitted_name, format_coordinate, line, rectangle, text_line
from quantkit.report.charts_axes import Scale, bottom_axis, left_axis, spanning_scale, tick_labels, tick_values
from quantkit.report.charts_plane import CLASSES
from quantkit.report.wording import count_noun, format_percent

LEFT, TOP, HIGH = 44.0, 22.0, 190.0
"""Left and upper margin of the plots, and their height, in pixels."""
LINE = 18.0
"""Height of a line of the legend."""
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAST = 0.1
"""Minimum range of the axis of shifts, as a fraction, so that noise does not look like a shift."""


def precision_plot(name: str, curves: Sequence[tuple[str, Sequence[float]]], width: float = 380.0) -> Chart:
    """Draw precision over recall, the reference first. curves: name of the model, precision at equidistant recalls."""
    across, up = Scale(0.0, 1.0, LEFT, width - 8.0), Scale(0.0, 1.0, TOP + HIGH, TOP)
    body = bottom_axis(across, TOP, TOP + HIGH, "recall")
    body += left_axis(up, LEFT, width - 8.0, [(value, f"{value:g}") for value in TICKS])
    body.append(text_line(0.0, 11.0, "precision", "axis"))
    bottom, said = TOP + HIGH + 46.0, []
    for index, (model, values) in enumerate(curves):
        kind = "curve plain" if index == 0 else f"curve {CLASSES[(index - 1) % len(CLASSES)]}"
        points = curve_points(values, across, up)
        if points:
            body.append(element("polyline", {"class": kind, "points": points}))
        y = bottom + LINE * (index + 1)
        body += [line(0.0, y - 4.0, 26.0, y - 4.0, kind), fitted_name(34.0, y, model, width - 34.0)]
        said.append(f"{model}: mean precision {format_percent(mean_precision(values), 1)}")
    height = bottom + LINE * len(curves) + 6.0
    title = f"Precision and recall of {name}"
    return Chart(title, f"{title} at IoU 0.50. {'; '.join(said)}.", width, height, tuple(body))


def curve_points(values: Sequence[float], across: Scale, up: Scale) -> str:
    """Return the points of a curve of values at equidistant places from 0 to 1."""
    last = max(len(values) - 1, 1)
    at = [(across(i / last), up(v)) for i, v in enumerate(values) if math.isfinite(v)]
    return " ".join(f"{format_coordinate(x)},{format_coordinate(y)}" for x, y in at)


def mean_precision(values: Sequence[float]) -> float:
    """Return the mean over the recalls, which is the average precision at IoU 0.50. NaN without values."""
    return sum(values) / len(values) if values else math.nan


def shift_plot(model: str, shifts: Histogram, width: float = 380.0) -> Chart:
    """Draw how many matched objects have which change of their score, in percentage points."""
    bars = [
        (100.0 * a, 100.0 * b, count)
        for a, b, count in zip(shifts.edges, shifts.edges[1:], shifts.counts, strict=False)
        if count > 0 and math.isfinite(a) and math.isfinite(b)
    ]
    across = spanning_scale([0.0, *(v for a, b, _ in bars for v in (a, b))], LEFT, width - 8.0, 100.0 * LEAST)
    up = Scale(0.0, 1.05 * max([1, *(count for _, _, count in bars)]), TOP + HIGH, TOP)
    places = [v for v in tick_values(up, 4) if v == int(v)]
    body = bottom_axis(across, TOP, TOP + HIGH, "score of candidate − reference, percentage points")
    body += left_axis(up, LEFT, width - 8.0, tuple(zip(places, tick_labels(places), strict=True)))
    body.append(text_line(0.0, 11.0, "objects", "axis"))
    for low, high, count in bars:
        x, y = across(low), up(count)
        body.append(rectangle(x + 0.5, y, across(high) - x - 1.0, TOP + HIGH - y, "bar accent"))
    body.append(line(across(0.0), TOP - 4.0, across(0.0), TOP + HIGH, "zero"))
    total, fallen = sum(count for _, _, count in bars), sum(count for _, high, count in bars if high <= 0.0)
    description = f"Change of the scores of {count_noun(total, 'matched object')}; {fallen:,} of them fell."
    return Chart(f"Shift of scores: {model}", description, width, TOP + HIGH + 46.0, tuple(body))

"""Charts with two axes: accuracy against speed, and histograms of tensors with the thresholds of rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.histogram import BINS, Histogram
from quantkit.report.charts import Chart, element, fitted_name, format_coordinate, line, text_line, text_width
from quantkit.report.charts_axes import Scale, bottom_axis, left_axis, spanning_scale, tick_labels, tick_values
from quantkit.report.wording import format_significant

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NARROW = 560.0
"""Planes that are narrower than this, or have more than `MANY` points, number the points and list names below."""
MANY = 6
LANES = 3
"""Minimum number of lanes for labels, so that charts side by side have the same height."""
BARS = 128
"""Bars of a histogram, each of 16 of its 2048 bins."""
BOLD = 1.12
"""Factor by which the bold labels of thresholds are wider."""
CLASSES = ("r1", "r2", "r3", "r4", "r5")


@dataclass(frozen=True, slots=True)
class PlanePoint:
    """A named point: its speed in the unit of the horizontal axis, and its quality in that of the vertical axis."""

    name: str
    speed: float
    quality: float
    reference: bool = False


@dataclass(frozen=True, slots=True)
class LabelBox:
    """A rectangle that a label or a point occupies."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: LabelBox) -> bool:
        """Return True if both overlap."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


def plane(
    spots: Sequence[PlanePoint], axes: tuple[str, str], title: str, width: float = 960.0, least: float = 1e-6
) -> Chart:
    """Draw quality against speed; up and right is better. axes: captions of speed and of quality.

    least: minimum range of the quality axis, so that chance does not look like a difference.
    """
    left, top, bottom = 64.0, 28.0, 330.0
    across = spanning_scale([s.speed for s in spots], left, width - 24.0)
    up = spanning_scale([s.quality for s in spots], bottom, top, least)
    places = tick_values(up, 5)
    body = bottom_axis(across, top, bottom, axes[0])
    body += left_axis(up, left, width, tuple(zip(places, tick_labels(places), strict=True)))
    body.append(text_line(0.0, 14.0, f"{axes[1]}; up and right is better", "axis"))
    drawable = [s for s in spots if math.isfinite(s.speed) and math.isfinite(s.quality)]
    at = [(across(s.speed), up(s.quality)) for s in drawable]
    for spot, (x, y) in zip(drawable, at, strict=True):
        kind = "mark plain" if spot.reference else "mark accent"
        body.append(element("circle", {"class": kind, "cx": x, "cy": y, "r": 5.5}))
    numbered = width < NARROW or len(drawable) > MANY
    labels = [str(i) for i in range(1, len(drawable) + 1)] if numbered else [s.name for s in drawable]
    body += place_labels(labels, at, LabelBox(left, top - 8.0, width - left, bottom - top + 8.0))
    height = bottom + 50.0
    if numbered:
        body += [
            fitted_name(0.0, height + 18.0 * i + 6.0, f"{i + 1}  {spot.name}", width) for i, spot in enumerate(drawable)
        ]
        height += 18.0 * len(drawable)
    said = "; ".join(f"{s.name}: {format_significant(s.speed)}, {format_significant(s.quality)}" for s in spots)
    return Chart(title, f"{axes[1]} against {axes[0]}. {said}.", width, height, tuple(body))


def place_labels(labels: Sequence[str], at: Sequence[tuple[float, float]], within: LabelBox) -> list[str]:
    """Draw labels next to their points without overlaps, as long as there is a free place.

    Each label takes the nearest free place, with a thin line to its point if it is further away.
    """
    taken = [LabelBox(x - 7.0, y - 7.0, 14.0, 14.0) for x, y in at]
    drawn = []
    for text, (x, y) in zip(labels, at, strict=True):
        room = min(text_width(text), within.width * 0.35)
        box = free_place(x, y, room + 4.0, within, taken)
        taken.append(box)
        if abs(box.y + 8.0 - y) > 20.0:
            drawn.append(line(x, y, min(max(x, box.x), box.x + box.width), box.y + 8.0, "leader"))
        drawn.append(fitted_name(box.x + 2.0, box.y + 12.0, text, room + 1.0))
    return drawn


def free_place(x: float, y: float, width: float, within: LabelBox, taken: Sequence[LabelBox]) -> LabelBox:
    """Return the nearest free box for a label around a point, inside `within`; the nearest one if none is free."""
    candidates = []
    for away in (0.0, 18.0, 36.0, 54.0, 72.0):
        for dy in (0.0,) if away == 0.0 else (-away, away):
            middle = y + dy - 8.0
            candidates += [LabelBox(x + 9.0, middle, width, 16.0), LabelBox(x - 9.0 - width, middle, width, 16.0)]
            candidates += [LabelBox(x - width / 2, middle, width, 16.0)] if dy else []
    inside = [
        box
        for box in candidates
        if within.x <= box.x
        and box.x + box.width <= within.x + within.width
        and within.y <= box.y
        and box.y + box.height <= within.y + within.height
    ]
    free = (box for box in inside if not any(box.meets(other) for other in taken))
    return next(free, (inside or candidates)[0])


# ── histograms ──────────────────────────────────────────────────────────────────────────────────────────────────────


def histogram_plot(
    tensor: str, found: Histogram, thresholds: Sequence[tuple[str, float]], width: float = 380.0
) -> Chart:
    """Draw the histogram of |x| with logarithmic counts and the thresholds. thresholds: rule name and threshold."""
    lanes = label_lanes(thresholds, found, width)
    top = 10.0 + 17.0 * max([LANES, *(lane + 1 for lane, _ in lanes)])
    bottom, left = top + 130.0, 40.0
    across = Scale(0.0, axis_end(found, thresholds), left, width - 8.0)
    counts = found.counts.reshape(BARS, BINS // BARS).sum(axis=1)
    decades = max(1, math.ceil(math.log10(int(counts.max()) + 1)))
    up = Scale(0.0, float(decades), bottom, top)
    levels = [(0.0, "0"), *((math.log10(10.0**d + 1.0), power_label(d)) for d in tick_decades(decades))]
    body = left_axis(up, left, width - 8.0, levels)
    body += (
        [element("path", {"class": "area", "d": histogram_outline(counts, found, across, up)})]
        if found.range > 0
        else []
    )
    body += bottom_axis(across, bottom, bottom + 4.0, "|x|")
    body.append(text_line(0.0, 10.0, "count", "axis"))
    for index, ((rule, threshold), (lane, anchor)) in enumerate(zip(thresholds, lanes, strict=True)):
        kind = CLASSES[index % len(CLASSES)]
        x, y = across(threshold), 12.0 + 17.0 * lane
        body.append(line(x, y + -9.0, x, bottom, f"threshold {kind}"))
        shift = 4.0 if anchor == "start" else -4.0
        body.append(text_line(x + shift, y, rule, f"label {kind}", anchor))
    said = ", ".join(f"{rule} at {format_significant(t)}" for rule, t in thresholds) or "none"
    description = (
        f"Histogram of the absolute values of {tensor} with logarithmic counts: {found.elements:,} values between "
        f"{format_significant(found.minimum)} and {format_significant(found.maximum)}. Thresholds: {said}."
    )
    return Chart(f"Histogram of {tensor}", description, width, bottom + 40.0, tuple(body))


def axis_end(found: Histogram, thresholds: Sequence[tuple[str, float]]) -> float:
    """Return the end of the axis, a little beyond the largest value or threshold; 1 if all values are zero."""
    return 1.04 * max([found.amax, *(t for _, t in thresholds if math.isfinite(t))]) or 1.0


def label_lanes(thresholds: Sequence[tuple[str, float]], found: Histogram, width: float) -> list[tuple[int, str]]:
    """Return the lane (0 on top) and the side of the label of every threshold, so that no labels overlap."""
    across = Scale(0.0, axis_end(found, thresholds), 40.0, width - 8.0)
    ends: list[list[tuple[float, float]]] = []
    lanes: dict[str, tuple[int, str]] = {}
    for rule, threshold in sorted(thresholds, key=lambda pair: -pair[1]):
        x, room = across(threshold), BOLD * text_width(rule) + 6.0
        anchor = "end" if x - room > 44.0 else "start"
        span = (x - room, x - 3.0) if anchor == "end" else (x + 3.0, x + room)
        lane = 0
        while lane < len(ends) and any(a < span[1] and span[0] < b for a, b in ends[lane]):
            lane += 1
        if lane == len(ends):
            ends.append([])
        # A line runs down through the lanes below its label.
        ends[lane].append(span)
        for lower in range(lane + 1, len(thresholds)):
            if lower == len(ends):
                ends.append([])
            ends[lower].append((x - 2.0, x + 2.0))
        lanes[rule] = (lane, anchor)
    return [lanes[rule] for rule, _ in thresholds]


def tick_decades(decades: int) -> range:
    """Return the powers of ten that get a tick, at most five."""
    step = -(-decades // 5)
    return range(step, decades + 1, step)


def power_label(exponent: int) -> str:
    """Format a power of ten: `1`, `10`, `100`, `1k`, `10M`."""
    unit = ("", "k", "M", "G", "T", "P", "E")[exponent // 3]
    return f"{10 ** (exponent % 3)}{unit}"


def histogram_outline(counts: NDArray[np.int64], found: Histogram, across: Scale, up: Scale) -> str:
    """Return the path around the bars. A bar with a single value is visible, an empty one is not."""
    steps = [f"M{format_coordinate(across(0.0))},{format_coordinate(up.start)}"]
    for index, count in enumerate(counts.tolist()):
        a, b = index * found.range / BARS, (index + 1) * found.range / BARS
        if a > across.high:
            break
        y = format_coordinate(up(math.log10(count + 1)))
        steps.append(f"L{format_coordinate(across(a))},{y}L{format_coordinate(across(min(b, across.high)))},{y}")
    return (
        "".join(steps) + f"L{format_coordinate(across(min(found.range, across.high)))},{format_coordinate(up.start)}Z"
    )

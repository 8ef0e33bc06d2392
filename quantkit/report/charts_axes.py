"""Axes: scales from figures to pixels, and their ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quantkit.report.charts import line, text_line, text_width

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
LARGEST = 1e300


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear scale from `low` … `high` to pixels `start` … `end`. Values outside are drawn at the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def drawable_values(values: Iterable[float]) -> list[float]:
    """Return the values that can be drawn."""
    return [min(max(v, -LARGEST), LARGEST) for v in values if math.isfinite(v)]


def spanning_scale(values: Iterable[float], start: float, end: float, least: float = 1e-6) -> Scale:
    """Return a scale of all finite values with a margin of a twentieth at both ends. least: its minimum range."""
    known = drawable_values(values) or [0.0]
    low, high = min(known), max(known)
    least = max(least, 1e-6 * max(abs(low), abs(high)))
    if high - low < least:
        low, high = (low + high) / 2 - least / 2, (low + high) / 2 + least / 2
    margin = (high - low) / 20
    return Scale(low - margin, high + margin, start, end)


def tick_values(scale: Scale, count: int) -> tuple[float, ...]:
    """Return about `count` round values on the scale: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    span = scale.high - scale.low
    rough = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in STEPS if s * power >= rough * (1 - 1e-9))
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return tuple(i * step for i in range(first, last + 1))


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return labels of ticks, all with the same, smallest possible number of decimals."""
    if not values:
        return []
    largest = max(abs(v) for v in values)
    if largest >= 1e7 or 0.0 < largest < 1e-4:
        digits = next((d for d in range(3, 17) if len({f"{v:.{d}g}" for v in values}) == len(values)), 17)
        return [f"{v:.{digits}g}".replace("-", "−") for v in values]
    decimals = next((d for d in range(13) if all(abs(round(v, d) - v) <= 1e-9 * largest for v in values)), 12)
    return [f"{v:,.{decimals}f}".replace("-", "−") for v in values]


def bottom_axis(scale: Scale, top: float, bottom: float, caption: str) -> list[str]:
    """Return grid lines from `top` to `bottom`, tick labels below them, and the caption of the axis."""
    room = abs(scale.end - scale.start)
    for count in (6, 5, 4, 3, 2, 1):
        places = tick_values(scale, count)
        labels = tick_labels(places)
        if sum(text_width(label) + 14 for label in labels) <= room:
            break
    drawn = []
    for value, label in zip(places, labels, strict=True):
        x = scale(value)
        drawn += [line(x, top, x, bottom, "grid"), text_line(x, bottom + 17, label, "tick", "middle")]
    middle = max((scale.start + scale.end) / 2, text_width(caption) / 2)
    return [*drawn, text_line(middle, bottom + 36, caption, "axis", "middle")]


def left_axis(scale: Scale, left: float, right: float, labels: Sequence[tuple[float, str]]) -> list[str]:
    """Return grid lines from `left` to `right`, with the labels of the given values on the left."""
    drawn = []
    for value, label in labels:
        y = scale(value)
        drawn += [line(left, y, right, y, "grid"), text_line(left - 7, y + 4, label, "tick", "end")]
    return drawn

"""Charts: SVG elements with a title, a description and a size. Colours are classes of `chart.css`.

A chart is drawn for a width in pixels at which its text has its true size; charts that must be readable on a phone are
drawn twice. Everything here is pure: the same figures give the same text.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from quantkit.view import replace_unprintable

TEXT = 12.0
"""Size of text in charts, in pixels."""
NARROW = frozenset("iljtfrI.,:;'|!()[] -/")
WIDE = frozenset("mwMW@%—…+=~&")
Attribute: TypeAlias = "str | float"


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with a title and a description of its content in words, for readers that cannot see it."""

    title: str
    description: str
    width: float
    height: float
    body: tuple[str, ...]

    def svg(self, key: str, style: str = "") -> str:
        """Return the `<svg>` element. key: makes its ids unique in a page. style: CSS to include."""
        inside = [
            element("title", {"id": f"{key}-title"}, escape_markup(self.title)),
            element("desc", {"id": f"{key}-desc"}, escape_markup(self.description)),
            element("style", {}, style) if style else "",
            *self.body,
        ]
        attributes: dict[str, Attribute] = {
            "class": "qk-chart",
            "role": "img",
            "aria-labelledby": f"{key}-title {key}-desc",
            "viewBox": f"0 0 {format_coordinate(self.width)} {format_coordinate(self.height)}",
            "width": self.width,
            "height": self.height,
            "xmlns": "http://www.w3.org/2000/svg",
        }
        return element("svg", attributes, "".join(inside))


def escape_markup(text: str) -> str:
    """Escape text for use between tags and in attributes."""
    return html.escape(replace_unprintable(text))


def format_coordinate(value: float) -> str:
    """Format a coordinate with at most one decimal."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def element(tag: str, attributes: Mapping[str, Attribute], content: str = "") -> str:
    """Return an element; `content` has to be markup."""
    written = "".join(
        f' {k}="{escape_markup(v) if isinstance(v, str) else format_coordinate(v)}"' for k, v in attributes.items()
    )
    return f"<{tag}{written}>{content}</{tag}>" if content or tag == "text" else f"<{tag}{written}/>"


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a straight line."""
    return element("line", {"class": kind, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Return a bar that is at least one pixel wide."""
    return element("rect", {"class": kind, "x": x, "y": y, "width": max(width, 1.0), "height": height, "rx": 1.5})


def text_line(x: float, y: float, text: str, kind: str = "label", anchor: str = "start") -> str:
    """Return a line of text with its baseline at `y`."""
    attributes: dict[str, Attribute] = {"class": kind, "x": x, "y": y}
    if anchor != "start":
        attributes["text-anchor"] = anchor
    return element("text", attributes, escape_markup(text))


def fitted_name(x: float, y: float, text: str, room: float, kind: str = "label", anchor: str = "start") -> str:
    """Return a name, shortened in the middle if it is wider than `room` pixels; then the full name is its tooltip."""
    fitting = fit_text(text, room)
    content = (
        escape_markup(fitting)
        if fitting == text
        else element("title", {}, escape_markup(text)) + escape_markup(fitting)
    )
    attributes: dict[str, Attribute] = {"class": kind, "x": x, "y": y}
    if anchor != "start":
        attributes["text-anchor"] = anchor
    return element("text", attributes, content)


def polygon(points: Iterable[tuple[float, float]], kind: str) -> str:
    """Return a closed polygon."""
    return element(
        "polygon",
        {"class": kind, "points": " ".join(f"{format_coordinate(x)},{format_coordinate(y)}" for x, y in points)},
    )


def text_width(text: str, size: float = TEXT) -> float:
    """Estimate the width of a line of sans-serif text in pixels, rather too large than too small."""
    return size * sum(character_width(c) for c in text)


def character_width(character: str) -> float:
    """Return the width of a character in units of the text size."""
    if character.isascii():
        return 0.36 if character in NARROW else 0.9 if character in WIDE else 0.7 if character.isupper() else 0.6
    if unicodedata.combining(character):
        return 0.0
    return 1.05 if unicodedata.east_asian_width(character) in "WF" or ord(character) > 0x1F000 else 0.85


def fit_text(text: str, room: float, size: float = TEXT) -> str:
    """Shorten text in the middle if it is wider than `room` pixels, because both ends of a node's name matter."""
    text = text if len(text) <= 400 else f"{text[:200]}…{text[-200:]}"
    if text_width(text, size) <= room:
        return text
    kept = len(text) - 1
    while kept > 2:
        head = kept // 3
        candidate = f"{text[:head]}…{text[len(text) - (kept - head) :]}"
        if text_width(candidate, size) <= room:
            return candidate
        kept -= 1
    return "…"

"""What a chart is: SVG elements with a title, a description and a size. Colours are classes of `chart.css`.

A chart is drawn for a width in pixels, at which its text has its true size; what has to be read on a telephone as well
is drawn twice. Everything here is pure: the same figures give the same text.
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
    """A drawing. `title` is its name, `description` says in words what it shows, for readers that cannot see it."""

    title: str
    description: str
    width: float
    height: float
    body: tuple[str, ...]

    def svg(self, key: str, style: str = "") -> str:
        """The `<svg>` element; `key` makes its ids unique in a page, `style` is CSS that it brings along."""
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
    """Text that can stand between tags and in attributes."""
    return html.escape(replace_unprintable(text))


def format_coordinate(value: float) -> str:
    """A coordinate with at most one decimal."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def element(tag: str, attributes: Mapping[str, Attribute], content: str = "") -> str:
    """An element; `content` is markup already."""
    told = "".join(
        f' {k}="{escape_markup(v) if isinstance(v, str) else format_coordinate(v)}"' for k, v in attributes.items()
    )
    return f"<{tag}{told}>{content}</{tag}>" if content or tag == "text" else f"<{tag}{told}/>"


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return element("line", {"class": kind, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A bar; one that stands for something is never thinner than a pixel."""
    return element("rect", {"class": kind, "x": x, "y": y, "width": max(width, 1.0), "height": height, "rx": 1.5})


def text_line(x: float, y: float, text: str, kind: str = "label", anchor: str = "start") -> str:
    """A line of text, its baseline at `y`."""
    attributes: dict[str, Attribute] = {"class": kind, "x": x, "y": y}
    if anchor != "start":
        attributes["text-anchor"] = anchor
    return element("text", attributes, escape_markup(text))


def fitted_name(x: float, y: float, text: str, room: float, kind: str = "label", anchor: str = "start") -> str:
    """A name, its middle left out where it needs more than `room` pixels; the whole name is its tooltip then."""
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
    """A closed shape."""
    return element(
        "polygon",
        {"class": kind, "points": " ".join(f"{format_coordinate(x)},{format_coordinate(y)}" for x, y in points)},
    )


def text_width(text: str, size: float = TEXT) -> float:
    """About how wide a line of sans-serif text is, in pixels; rather too wide than too narrow."""
    return size * sum(character_width(c) for c in text)


def character_width(character: str) -> float:
    """Width of a character in units of the text size."""
    if character.isascii():
        return 0.36 if character in NARROW else 0.9 if character in WIDE else 0.7 if character.isupper() else 0.6
    if unicodedata.combining(character):
        return 0.0
    return 1.05 if unicodedata.east_asian_width(character) in "WF" or ord(character) > 0x1F000 else 0.85


def fit_text(text: str, room: float, size: float = TEXT) -> str:
    """The text, its middle left out where it is wider than `room` pixels. Both ends of a node's name tell something."""
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

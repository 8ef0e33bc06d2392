"""The style of a chart as attributes of its elements, for viewers that drop `<style>`, as code hosts do.

CSS rules override attributes (SVG 2, §6.6: these have no specificity). So a viewer that keeps the style follows it in
light and dark mode, and one that drops it shows the light colours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from quantkit.report.charts import escape_markup
from quantkit.report.page import read_resource

COMMENT = re.compile(r"/\*.*?\*/", re.S)
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
SELECTOR = re.compile(r"\.qk-chart (\w*)((?:\.[\w-]+)*)")
ELEMENT = re.compile(r'<(\w+) class="([^"]*)"')
PRESENTATION = ("fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "paint-order", "font-weight")
FRAME = re.compile(r'viewBox="0 0 (\S+) (\S+)" width="\S+" height="\S+"')
MARGIN = 10.0
"""Margin of background around a chart, in pixels, because a notebook may have another background colour."""
PAPER = f'<rect class="paper" x="{-MARGIN:g}" y="{-MARGIN:g}" width="100%" height="100%"/>'


@dataclass(frozen=True, slots=True)
class StyleRule:
    """A CSS rule: declarations for elements of a tag ("" for any) that have all of the classes."""

    tag: str
    classes: frozenset[str]
    declarations: Mapping[str, str]

    @property
    def specificity(self) -> tuple[int, bool]:
        """The specificity of the rule; of two rules, the larger one wins."""
        return len(self.classes), bool(self.tag)


def with_attributes(svg: str) -> str:
    """Return a chart with its own background that looks the same, in light colours, if its `<style>` is dropped."""
    drawn = FRAME.sub(framed_with_margin, svg.replace("</style>", f"</style>{PAPER}", 1), count=1)
    return ELEMENT.sub(lambda found: f"{found[0]}{presentation_attributes(found[1], found[2])}", drawn)


def framed_with_margin(found: re.Match[str]) -> str:
    """Return the size attributes of a drawing with its margin."""
    width, height = (float(size) + 2 * MARGIN for size in found.groups())
    box = f"{-MARGIN:g} {-MARGIN:g} {width:g} {height:g}"
    return f'viewBox="{box}" width="{width:g}" height="{height:g}"'


def presentation_attributes(tag: str, kind: str) -> str:
    """Return the attributes of an element with these classes, each with a leading space."""
    if tag == "svg":
        size, _, family = declarations(".qk-chart")["font"].partition(" ")
        return f' font-size="{size}" font-family="{escape_markup(family)}"'
    applied: dict[str, str] = {}
    for rule in style_rules():
        if rule.tag in ("", tag) and rule.classes <= set(kind.split()):
            applied |= rule.declarations
    return "".join(f' {name}="{escape_markup(applied[name])}"' for name in PRESENTATION if name in applied)


@lru_cache(maxsize=1)
def style_rules() -> tuple[StyleRule, ...]:
    """Return the rules of `chart.css` for elements inside charts, the most specific last."""
    found = [
        StyleRule(match[1], frozenset(match[2].split(".")[1:]), parse_declarations(body))
        for selectors, body in css_blocks()
        for selector in selectors.split(",")
        if (match := SELECTOR.fullmatch(selector.strip()))
    ]
    return tuple(sorted(found, key=lambda rule: rule.specificity))


def declarations(selector: str) -> dict[str, str]:
    """Return the declarations for exactly this selector."""
    return parse_declarations(next(body for selectors, body in css_blocks() if selectors.strip() == selector))


def parse_declarations(body: str) -> dict[str, str]:
    """Parse `fill: var(--ink); …` into names and values, with variables substituted."""
    pairs = (text.split(":", 1) for text in body.split(";") if ":" in text)
    known = css_variables()
    substituted = {
        name.strip(): re.sub(r"var\((--[\w-]+)\)", lambda v: known[v[1]], value.strip()) for name, value in pairs
    }
    return {name: " ".join(value.split()) for name, value in substituted.items()}


@lru_cache(maxsize=1)
def css_variables() -> dict[str, str]:
    """Return the variables as they are first set, which is for light mode."""
    found: dict[str, str] = {}
    for _, body in css_blocks():
        for name, value in re.findall(r"(--[\w-]+):\s*([^;]+);", body):
            found.setdefault(name, value.strip())
    return found


@lru_cache(maxsize=1)
def css_blocks() -> tuple[tuple[str, str], ...]:
    """Return the selectors and bodies of `chart.css`."""
    return tuple((match[1], match[2]) for match in RULE.finditer(COMMENT.sub("", read_resource("chart.css"))))

"""A page as values: sections of tables, charts, samples and facts, and their rendering as one HTML file.

Page
├── PageVerdict        the conclusion in sentences, and the most important figures
└── PageSection        a heading and its blocks
    ├── PageTable      caption, head, rows of cells
    ├── Drawing        a chart, for wide and for narrow screens, with its figures as a table
    ├── Gallery        small drawings side by side
    ├── SampleCards    images with the predictions of the models
    ├── Facts          names and values, nested
    └── Prose          sentences
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from quantkit._version import __version__
from quantkit.report.charts import Chart
from quantkit.view import replace_unprintable, shorten_middle

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from markupsafe import Markup

NAME, LONG, HEAD = 16, 18, 40
"""Lengths in characters: longer words may be broken at dots (`NAME`) or anywhere (`LONG`); longer column heads are
shortened (`HEAD`)."""
SHIFT = 45.0
"""Maximum strength of the colour of a cell in percent, so that its text stays readable."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: text, a second line, `tint` from −1 (gain) to 1 (loss), and `status` over or within."""

    text: str
    note: str = ""
    tint: float = 0.0
    status: str = ""

    @property
    def long(self) -> bool:
        """True if it contains a word that is too long for a column."""
        return has_long_word(self.text)

    @property
    def row_kind(self) -> str:
        """The CSS classes of the cell as name of a row."""
        return " ".join(["long"] * self.long + ["name"] * (len(self.text) > HEAD))

    @property
    def style(self) -> str:
        """The CSS of its colour, as strong as its tint."""
        if not self.tint:
            return ""
        kind = "loss" if self.tint > 0 else "gain"
        return f"--tint:var(--{kind});--part:{abs(self.tint) * SHIFT:.0f}%"


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table with a head; the first cell of a row is its name. words: columns of text, which are left-aligned.

    cards: on a phone every row becomes a card. folded: summary line of a folded table; "" for one that is open.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[int] = frozenset()
    cards: bool = False
    folded: str = ""
    kind: str = "table"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart. narrow: the same for phones, None if one size fits both. table: its figures."""

    key: str
    chart: Chart
    narrow: Chart | None
    caption: str
    table: PageTable | None = None
    heading: str = ""
    kind: str = "drawing"


@dataclass(frozen=True, slots=True)
class Gallery:
    """Drawings side by side."""

    drawings: tuple[Drawing, ...]
    kind: str = "gallery"


@dataclass(frozen=True, slots=True)
class ModelPrediction:
    """The prediction of a model for a sample, with its confidence."""

    model: str
    text: str
    confidence: str
    right: bool | None = None


@dataclass(frozen=True, slots=True)
class SampleCard:
    """A sample with the models' predictions and its picture as a data URI, or "" without one."""

    name: str
    label: str
    picture: str
    missing: str
    pixelated: bool
    predictions: tuple[ModelPrediction, ...]


@dataclass(frozen=True, slots=True)
class SampleCards:
    """Samples side by side."""

    samples: tuple[SampleCard, ...]
    kind: str = "samples"


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and a value, or facts below it."""

    name: str
    value: str
    below: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    facts: tuple[Fact, ...]
    kind: str = "facts"


@dataclass(frozen=True, slots=True)
class Prose:
    """A list of sentences."""

    sentences: tuple[str, ...]
    kind: str = "prose"


Block: TypeAlias = "PageTable | Drawing | Gallery | SampleCards | Facts | Prose"


@dataclass(frozen=True, slots=True)
class PageSection:
    """A heading with its key for links, a sentence on how to read it, and blocks."""

    key: str
    heading: str
    lead: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class PageVerdict:
    """The first part of a page. status: over, within or "". badge: the same in words. figures: value and name."""

    sentences: tuple[str, ...]
    status: str
    badge: str
    figures: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A complete page. links: file beside the page → what it is."""

    title: str
    subtitle: str
    verdict: PageVerdict
    sections: tuple[PageSection, ...]
    links: Mapping[str, str] = field(default_factory=dict)

    def html(self) -> str:
        """Return the file: no scripts, no external resources, the same bytes for the same values."""
        context: Mapping[str, Any] = {
            "page": self,
            "version": __version__,
            "charts_css": read_resource("chart.css"),
            "page_css": read_resource("page.css"),
        }
        return replace_unprintable(page_template().render(context))


@lru_cache(maxsize=1)
def page_template() -> Template:
    """Return the template of a page; all values in it are escaped."""
    environment = page_environment("quantkit.report")
    environment.filters["heading"] = column_heading
    environment.filters["file_link"] = file_link
    environment.tests["long"] = has_long_word
    return environment.get_template("page.html.j2")


def page_environment(package: str) -> Environment:
    """Return what reads the templates of a package, in which all values are escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = breakable
    return environment


def breakable(text: str) -> Markup:
    """Return text whose long words may be broken after dots, slashes, dashes and underscores."""
    from markupsafe import Markup, escape

    parts = (re.split(r"(?<=\w[./_:-])(?=\w)", word) if len(word) > NAME else [word] for word in text.split(" "))
    return Markup(" ").join(Markup("<wbr>").join(escape(part) for part in word) for word in parts)


def file_link(name: str) -> str:
    """Return the relative address of a file beside the page, whatever bytes are in its name."""
    return quote(os.fsencode(name), safe="")


def column_heading(text: str) -> str:
    """Shorten the name of a column; full names of models are in the rows of another table."""
    return shorten_middle(text, HEAD)


def has_long_word(text: str) -> bool:
    """Return True if a word has too many characters for a column between the places where it may be broken."""
    return any(len(word) > LONG for word in re.split(r"[\s./_:-]+", text))


@lru_cache(maxsize=4)
def read_resource(name: str) -> str:
    """Return the content of a file in the folder of templates."""
    from importlib.resources import files

    return files("quantkit.report").joinpath("templates").joinpath(name).read_text(encoding="utf-8")

"""A page as values: sections of tables, figures, samples and facts, and how they become one HTML file.

Page
├── Verdict            the sentences, first of all, and the few figures that matter
└── Section            a heading and its blocks
    ├── Table          caption, head, rows of cells
    ├── Drawing        a chart, for wide and for narrow screens, with its figures as a table
    ├── Gallery        small drawings side by side
    ├── Samples        images with the answers of the models
    ├── Facts          names and values, nested
    └── Prose          sentences
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from quantkit._version import __version__
from quantkit.report.charts import Chart
from quantkit.view import replace_unprintable, shorten_middle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template
    from markupsafe import Markup

NAME, LONG, HEAD = 16, 18, 40
"""Words longer than `NAME` characters may be broken at their dots; parts longer than `LONG` anywhere; column
heads and names of rows are long from `HEAD` on."""
SHIFT = 45.0
"""Most colour that a cell gets, in percent: its text stays readable."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a cell, a second line, and what marks it: `tint` from −1 (gain) to 1 (loss), `status` over or within."""

    text: str
    note: str = ""
    tint: float = 0.0
    status: str = ""

    @property
    def long(self) -> bool:
        """Whether a word in it is too long for a column."""
        return has_long_word(self.text)

    @property
    def row_kind(self) -> str:
        """The class of the name of a row."""
        return " ".join(["long"] * self.long + ["name"] * (len(self.text) > HEAD))

    @property
    def style(self) -> str:
        """Its colour, as strong as its tint."""
        if not self.tint:
            return ""
        kind = "loss" if self.tint > 0 else "gain"
        return f"--tint:var(--{kind});--part:{abs(self.tint) * SHIFT:.0f}%"


@dataclass(frozen=True, slots=True)
class PageTable:
    """Rows under a head; the first cell of a row is its name. `words`: columns of text, which begin at the left.

    cards: on a telephone every row becomes a card. folded: what the table is folded away under; it is open where "".
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
    """A chart. `narrow` is the same for telephones, None where one size does for both. `table` has its figures."""

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
    """What a model says of a sample, and how sure it is."""

    model: str
    answer: str
    confidence: str
    right: bool | None = None


@dataclass(frozen=True, slots=True)
class SampleCard:
    """A sample with its picture as a data URI, "" where there is none, and the models' answers."""

    name: str
    label: str
    picture: str
    missing: str
    pixelated: bool
    answers: tuple[ModelPrediction, ...]


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
    """Sentences, one below the other."""

    sentences: tuple[str, ...]
    kind: str = "prose"


Block: TypeAlias = "Table | Drawing | Gallery | Samples | Facts | Prose"


@dataclass(frozen=True, slots=True)
class PageSection:
    """A heading with its key for links, a sentence on how to read it, and blocks."""

    key: str
    heading: str
    lead: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class PageVerdict:
    """What comes first. `status`: over, within or "", which `badge` says in words; `figures`: value, and of what."""

    sentences: tuple[str, ...]
    status: str
    badge: str
    figures: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """All of it."""

    title: str
    subtitle: str
    verdict: PageVerdict
    sections: tuple[PageSection, ...]

    def html(self) -> str:
        """The file: no script, nothing from elsewhere, the same bytes for the same values."""
        context: Mapping[str, Any] = {
            "page": self,
            "version": __version__,
            "charts_css": read_resource("chart.css"),
            "page_css": read_resource("page.css"),
        }
        return replace_unprintable(page_template().render(context))


@lru_cache(maxsize=1)
def page_template() -> Template:
    """The page's template, everything in it escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("quantkit.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = breakable
    environment.filters["heading"] = column_heading
    environment.tests["long"] = has_long_word
    return environment.get_template("page.html.j2")


def breakable(text: str) -> Markup:
    """Text whose long words may be broken behind the dots, slashes, dashes and underscores of names."""
    from markupsafe import Markup, escape

    parts = (re.split(r"(?<=\w[./_:-])(?=\w)", word) if len(word) > NAME else [word] for word in text.split(" "))
    return Markup(" ").join(Markup("<wbr>").join(escape(part) for part in word) for word in parts)


def column_heading(text: str) -> str:
    """A column's name, its middle left out where it is long: models have their whole names as rows elsewhere."""
    return shorten_middle(text, HEAD)


def has_long_word(text: str) -> bool:
    """Whether a word has too many characters for a column between places where it may be broken."""
    return any(len(word) > LONG for word in re.split(r"[\s./_:-]+", text))


@lru_cache(maxsize=4)
def read_resource(name: str) -> str:
    """A file beside the template."""
    from importlib.resources import files

    return files("quantkit.report").joinpath("templates").joinpath(name).read_text(encoding="utf-8")

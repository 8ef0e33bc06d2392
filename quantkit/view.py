"""Display of values: sentences, small tables and remarks, as HTML for notebooks and as plain text (`print`).

    RichDisplay    a value with a rich display, which `_view_` defines; a SavableDisplay has a page too
    └── block      a sentence (str), a ViewTable, or Remarks

The HTML contains no colours, fonts or scripts: those of the notebook apply, light or dark. Everything is escaped. A
long table shows its first rows and the number of the others. Plain text is for terminals, and where HTML is not shown.
"""

from __future__ import annotations

import html
import importlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from quantkit.keywords.argument_names import in_python

LINES = 12
"""Maximum number of rows of a table, without its head, and of remarks."""
WORD = 56
"""Maximum number of characters of a word; longer ones, which are names, are shortened in the middle."""
CELL = 72
"""Maximum number of characters of a cell in plain text."""
TITLE = 400
"""Maximum number of characters of a value's title in its `repr`: five lines of a terminal."""
QUOTED = 80
"""Maximum number of characters of a value that an error quotes."""
LEFT = ' style="text-align:left"'
CONTROLS = (
    "\x7f-\x9f"  # with \x9b, which begins a command to a terminal as escape and bracket do
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"  # separators of lines, and what reorders the text around it
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff"  # invisible
    "\ud800-\udfff\ufffe\uffff"  # halves of surrogate pairs, and the two non-characters
)
# What a page cannot contain; the tab and the line feed are spaces there.
UNPRINTABLE = re.compile(f"[\x00-\x08\x0b-\x1f{CONTROLS}]")
# What would steer a terminal, begin a line, or reorder one.
CONTROL = re.compile(f"[\x00-\x1f{CONTROLS}]")


@dataclass(frozen=True, slots=True)
class ViewTable:
    """Rows under a head. words: columns of text, aligned at the left; the others are numbers.

    Columns that are empty in all rows are left out, except the first.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset({0})

    @property
    def columns(self) -> list[int]:
        """The columns that are shown."""
        return [i for i in range(len(self.head)) if i == 0 or any(row[i] for row in self.rows)]

    @property
    def shown(self) -> Sequence[Sequence[str]]:
        """The rows that are shown."""
        return self.rows if len(self.rows) <= LINES else self.rows[: LINES - 1]

    @property
    def more(self) -> str:
        """The number of other rows, `… 289 more`; empty if all rows are shown."""
        left = len(self.rows) - len(self.shown)
        return f"… {left:,} more" if left else ""


@dataclass(frozen=True, slots=True)
class Remarks:
    """Sentences as a list; nothing if there are none."""

    sentences: Sequence[str]

    @property
    def shown(self) -> Sequence[str]:
        """The sentences that are shown."""
        left = len(self.sentences) - LINES + 1
        return self.sentences if left <= 1 else [*self.sentences[: LINES - 1], f"… {left:,} more"]


Block: TypeAlias = "str | ViewTable | Remarks"


class RichDisplay:
    """A base class of values that notebooks display by the blocks of `_view_`."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        cls.__repr__ = RichDisplay.__repr__  # type: ignore[method-assign] # a dataclass would generate its own

    def __str__(self) -> str:
        return "\n".join(line for block in self._view_() for line in block_lines(block))

    def __repr__(self) -> str:
        title = next((block for block in self._view_() if isinstance(block, str)), "")
        text, kind = shorten_middle(join_lines(title), TITLE), type(self).__name__
        return f"<{text}>" if text.startswith(f"{kind} of ") else f"<{kind}: {text}>"

    def _view_(self) -> Sequence[Block]:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return "".join(map(block_html, self._view_()))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:  # noqa: ARG002 (IPython's)
        return {"text/html": self._repr_html_(), "text/plain": str(self)}


class SavableDisplay(RichDisplay):
    """A base class of values that can be saved as a page."""

    __slots__ = ()

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the value as a page (`.html`), for programs (`.json`) or to paste into an issue (`.md`), by the suffix.

        force: replace an existing file. UsageError for another suffix, StaleError, OutputError.
        """
        # Pages are made of values, so the room of pages is above this one; it is looked up when it is needed.
        saving = importlib.import_module("quantkit.report.saving")
        written: Path = saving.save_value(self, path, force=force)
        return written


def replace_unprintable(text: str) -> str:
    """Return text with U+FFFD for every character that is not valid in a page, or that reorders its text."""
    return UNPRINTABLE.sub("\ufffd", text)


def escape_controls(text: str) -> str:
    r"""Return text with `\x1b`, `\n`, `\u202e` for every character that would steer a terminal or forge a line."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def join_lines(text: str) -> str:
    """Return text for a cell: in one line, with long names shortened in the middle."""
    return " ".join(shorten_middle(word, WORD) for word in replace_unprintable(text).split())


def percent_text(share: float, digits: int = 2) -> str:
    """Return a fraction in percent without the sign: `98.60`.

    `0.00` and `100.00` are exact: a fraction that would be rounded to one of them is `<0.01` or `>99.99`.
    """
    text, least = f"{100.0 * share:.{digits}f}", 10.0**-digits
    if share > 0.0 and float(text) == 0.0:
        return f"<{least:.{digits}f}"
    if share < 1.0 and float(text) == 100.0:
        return f">{100.0 - least:.{digits}f}"
    return text


def true_minus(text: str) -> str:
    """Return a number with a true minus sign, and none before zero."""
    return text.replace("-", "−") if text.strip("-0.") else text.lstrip("-")


def signed(value: float) -> str:
    """Return a difference with two decimals and its sign: `+0.50`, `−1.20`; 0 is `+0.00`."""
    text = f"{value:+.2f}"
    return text.replace("-", "−" if text.strip("+-0.") else "+")


def quoted(value: object) -> str:
    """Return a value that is wrong for an error: as Python writes it, at most 80 characters long."""
    return shorten_middle(repr(value), QUOTED)


def shorten_middle(text: str, most: int) -> str:
    """Return at most so many characters, shortened in the middle, because both ends of a node's name matter."""
    if len(text) <= most:
        return text
    head = most // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def block_html(block: Block) -> str:
    """Return a block as HTML."""
    if isinstance(block, str):
        return f"<p>{escape_cell(in_python(block))}</p>"
    if isinstance(block, Remarks):
        points = "".join(f"<li>{escape_cell(in_python(text))}</li>" for text in block.shown)
        return f"<ul>{points}</ul>" if points else ""
    kept = block.columns
    head = "".join(f"<th{cell_style(block, i)}>{escape_cell(block.head[i])}</th>" for i in kept)
    lines = ["".join(f"<td{cell_style(block, i)}>{escape_cell(row[i])}</td>" for i in kept) for row in block.shown]
    if block.more:
        lines.append(f'<td colspan="{len(kept)}"{LEFT}>{block.more}</td>')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if block.rows else ""


def escape_cell(text: str) -> str:
    """Return text that can be placed between tags."""
    return html.escape(join_lines(text))


def cell_style(table: ViewTable, column: int) -> str:
    """Return the style of a cell: notebooks align cells at the right, which is right for numbers only."""
    return LEFT if column in table.words else ""


def block_lines(block: Block) -> list[str]:
    """Return a block as lines of plain text."""
    if isinstance(block, str):
        return [join_lines(in_python(block))]
    if isinstance(block, Remarks):
        return [f"• {join_lines(in_python(text))}" for text in block.shown]
    if not block.rows:
        return []
    kept = block.columns
    lines = [[shorten_middle(join_lines(row[i]), CELL) for i in kept] for row in (block.head, *block.shown)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "  ".join(
            f"{cell:<{width}}" if i in block.words else f"{cell:>{width}}"
            for i, cell, width in zip(kept, line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]
    return [*texts, block.more] if block.more else texts

"""What values show of themselves in notebooks: sentences, small tables and remarks, as HTML and as plain text.

    RichDisplay    a value that shows itself; it says what in `_view_`
    └── block      a sentence (str), a ViewTable, or Remarks

The HTML brings no colours, fonts or scripts along: those of the notebook hold, light or dark. Everything is escaped. A
long table shows its first rows and how many there are more. Plain text is for terminals, and where no HTML is shown.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

LINES = 12
"""Lines of a table at most, without its head, and remarks at most."""
WORD = 56
"""Characters of a word at most; of longer ones, which are names, the middle is left out."""
CELL = 72
"""Characters of a cell in plain text at most."""
LEFT = ' style="text-align:left"'
# What HTML and XML cannot carry: control characters, halves of surrogate pairs, the two non-characters.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class ViewTable:
    """Rows under a head. words: columns of text, which begin at the left; the others are numbers.

    A column that has nothing in any row is left out, the first one excepted.
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
        """`… 289 more`; empty where all rows are shown."""
        left = len(self.rows) - len(self.shown)
        return f"… {left:,} more" if left else ""


@dataclass(frozen=True, slots=True)
class Remarks:
    """Sentences as a list; nothing where there are none."""

    sentences: Sequence[str]

    @property
    def shown(self) -> Sequence[str]:
        """The sentences that are shown."""
        left = len(self.sentences) - LINES + 1
        return self.sentences if left <= 1 else [*self.sentences[: LINES - 1], f"… {left:,} more"]


Block: TypeAlias = "str | ViewTable | Remarks"


class RichDisplay:
    """A value that notebooks show by the blocks of `_view_`."""

    __slots__ = ()

    def _view_(self) -> Sequence[Block]:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return "".join(map(block_html, self._view_()))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:  # noqa: ARG002 (IPython's)
        lines = [line for block in self._view_() for line in block_lines(block)]
        return {"text/html": self._repr_html_(), "text/plain": "\n".join(lines)}


def replace_unprintable(text: str) -> str:
    """The text with U+FFFD for every character that a page cannot carry, so that it is valid UTF-8 and XML."""
    return UNPRINTABLE.sub("\ufffd", text)


def join_lines(text: str) -> str:
    """Text for a cell: in one line, the middle of long names left out."""
    return " ".join(shorten_middle(word, WORD) for word in replace_unprintable(text).split())


def shorten_middle(text: str, most: int) -> str:
    """At most so many characters, the middle left out: both ends of a node's name tell something."""
    if len(text) <= most:
        return text
    head = most // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def block_html(block: Block) -> str:
    """A block as HTML."""
    if isinstance(block, str):
        return f"<p>{escape_cell(block)}</p>"
    if isinstance(block, Remarks):
        points = "".join(f"<li>{escape_cell(text)}</li>" for text in block.shown)
        return f"<ul>{points}</ul>" if points else ""
    kept = block.columns
    head = "".join(f"<th{cell_style(block, i)}>{escape_cell(block.head[i])}</th>" for i in kept)
    lines = ["".join(f"<td{cell_style(block, i)}>{escape_cell(row[i])}</td>" for i in kept) for row in block.shown]
    if block.more:
        lines.append(f'<td colspan="{len(kept)}"{LEFT}>{block.more}</td>')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if block.rows else ""


def escape_cell(text: str) -> str:
    """Text that can stand between tags."""
    return html.escape(join_lines(text))


def cell_style(table: ViewTable, column: int) -> str:
    """Notebooks put cells at the right, where numbers belong."""
    return LEFT if column in table.words else ""


def block_lines(block: Block) -> list[str]:
    """A block as lines of plain text."""
    if isinstance(block, str):
        return [join_lines(block)]
    if isinstance(block, Remarks):
        return [f"• {join_lines(text)}" for text in block.shown]
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

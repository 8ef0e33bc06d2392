"""Results as GitHub's Markdown, for issues, pull requests and the summary of a workflow: what notebooks show, as text.

Everything is escaped: a name in a model makes no link, no emphasis and no line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from quantkit.view import Block, Remarks, RichDisplay, join_lines

ROWS = 50
"""Maximum number of rows of a table, and of remarks."""
SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""Characters that mean something anywhere in a line; an underscore between letters does not."""
OPENING = re.compile(r"^(?:([#+=-])|(\d+)([.)]))")
"""The beginning of a line that would be a heading, a list or a rule."""
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown_text(value: RichDisplay, rows: int = ROWS) -> str:
    """Return a value's sentences, tables and remarks as Markdown. rows: at most, in a table."""
    parts = [lines for block in value._view_() if (lines := markdown_lines(block, rows))]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def markdown_lines(block: Block, rows: int = ROWS) -> list[str]:
    """Return a block as lines of Markdown."""
    if isinstance(block, str):
        return [escape_line(block)]
    if isinstance(block, Remarks):
        return [f"- {escape_line(text)}" for text in block.sentences[:ROWS]] + rest_of(block.sentences, ROWS)
    if not block.rows:
        return []
    kept = block.columns
    head = [escape_markdown(block.head[i]) for i in kept]
    rule = ["---" if i in block.words else "---:" for i in kept]
    body = [[escape_markdown(row[i]) for i in kept] for row in block.rows[:rows]]
    return [*(f"| {' | '.join(line)} |" for line in (head, rule, *body)), *rest_of(block.rows, rows)]


def rest_of(entries: Sequence[object], most: int) -> list[str]:
    """Return the line below a list of which only the first entries are shown; nothing if all are."""
    return ["", f"… {len(entries) - most:,} more (--json lists all)"] if len(entries) > most else []


def escape_line(text: str) -> str:
    """Return text that is a paragraph."""
    return OPENING.sub(r"\\\1" if not text[:1].isdigit() else r"\2\\\3", escape_markdown(text))


def escape_markdown(text: str) -> str:
    """Return text for a cell or a paragraph: in one line, shown as it is."""
    escaped = SPECIAL.sub(lambda match: f"\\{match[0]}", join_lines(text))
    return re.sub("[&<>]", lambda match: ENTITIES[match[0]], escaped)

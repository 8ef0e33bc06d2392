"""Printing: summaries and tables as plain text that survives a pipe and 80 columns, or JSON.

All text of the commands goes through here, line by line: a name in a model or a file cannot steer the terminal or begin
a line of its own, because control characters are shown as `\\x1b`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from quantkit.artifact import nulls_for_nonfinite
from quantkit.cli.terminal.bars import SIGNS
from quantkit.cli.terminal.documents import document_stream
from quantkit.errors import QuantkitError, UsageError
from quantkit.report.markdown import ROWS, markdown_text
from quantkit.view import CONTROL, RichDisplay, escape_controls, shorten_middle

LONGEST_LINE = 4000
"""Maximum number of characters of an error's line, for a name or an option that has no end."""
OVER_BUDGET = 3
"""The exit code for a model that loses more than the budget allows."""

T = TypeVar("T")


class Tone(Enum):
    """The tone of a coloured text; its value is the colour."""

    GOOD = "green"
    DOUBT = "yellow"
    BAD = "red"
    ACTIVE = "cyan"


def shows_colour(stream: TextIO) -> bool:
    """Return True if a stream gets colours: a terminal does, unless NO_COLOR is set; FORCE_COLOR colours pipes too."""
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR", "")
    return forced not in ("", "0") or is_capable_terminal(stream)


def is_capable_terminal(stream: TextIO) -> bool:
    """Return True if a stream leads to a terminal that has colours and whose lines can be redrawn."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, stream: TextIO, tone: Tone | None = None, *, bold: bool = False) -> str:
    """Return the text in a colour if the stream shows them. What is painted is escaped already."""
    if not (tone or bold) or not text or not shows_colour(stream):
        return text
    return click.style(text, fg=tone.value if tone else None, bold=bold or None)


@dataclass(frozen=True, slots=True)
class Printing:
    """A frozen value of the options that say how a result is printed: --json, --markdown and --quiet."""

    as_json: bool
    quiet: bool = False
    as_markdown: bool = False

    def __post_init__(self) -> None:
        """UsageError for two forms at once."""
        if self.as_json and self.as_markdown:
            raise UsageError("--json and --markdown are two forms of the same result", remedy="give one of them")

    @property
    def hides_progress(self) -> bool:
        """True if no bar and no spinner is shown: they are for people at a terminal."""
        return self.quiet or self.as_json or not is_capable_terminal(sys.stderr)

    def print_result(
        self, result: T, document: Callable[[T], Any], summary: Callable[[T], None], *, rows: int = ROWS
    ) -> None:
        """Print the result as JSON (`document` returns it), for people (`summary` prints it), or not at all.

        With --markdown, which commands with values that notebooks display offer, print that; rows: at most, in a table.
        """
        if self.as_json:
            print_json(document(result))
        elif self.as_markdown:
            assert isinstance(result, RichDisplay)
            print_document(markdown_text(result, rows).rstrip("\n"))
        elif not self.quiet:
            summary(result)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output; infinite ratios become null.

    Texts in it are whole: what steers a terminal is escaped as JSON does it, and read back the same.
    """
    text = json.dumps(nulls_for_nonfinite(document), indent=2, ensure_ascii=False, allow_nan=False)
    lines = [CONTROL.sub(lambda match: json.dumps(match[0])[1:-1], line) for line in text.split("\n")]
    print_document("\n".join(lines))


def print_document(text: str) -> None:
    """Print a text that is all that standard output holds."""
    print(text, file=document_stream(), flush=True)


def print_error(error: QuantkitError, *, as_json: bool) -> None:
    """Print an error on standard error; as JSON on standard output too, for programs."""
    print_to_stderr(f"quantkit: {error.headline}", mark=("quantkit:", Tone.BAD))
    for text in error.details:
        print_to_stderr(f"    {text}")
    print_to_stderr(f"  → {error.remedy}", mark=("  →", Tone.GOOD))
    if as_json:
        kind = type(error).__name__
        print_json({"error": {"kind": kind, "problem": error.problem, "remedy": error.remedy}})


def print_usage_error(error: click.ClickException, *, as_json: bool) -> None:
    """Print an error that click found, as click does; as JSON on standard output too, for programs."""
    context = getattr(error, "ctx", None)
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.2 and newer
        for line in error.format_message().splitlines():
            print_to_stderr(line)
        return
    if context is not None:
        for line in context.get_usage().splitlines():
            print_to_stderr(line)
        print_to_stderr(f"Try '{context.command_path} {context.help_option_names[-1]}' for help.")
        print_to_stderr("")
    print_to_stderr(f"Error: {error.format_message()}", mark=("Error:", Tone.BAD))
    if as_json:
        print_json({"error": {"kind": "UsageError", "problem": error.format_message(), "remedy": "see --help"}})


def warn(text: str) -> None:
    """Print a warning on standard error."""
    print_to_stderr(f"warning: {text}", indent=9, mark=("warning:", Tone.DOUBT))


def note(text: str) -> None:
    """Print a remark on standard error."""
    print_to_stderr(text, indent=0)


def print_to_stderr(text: str, indent: int | None = None, mark: tuple[str, Tone] | None = None) -> None:
    """Print a line on standard error. If that fails, standard output and the exit code stay what they are.

    indent: wrap the line on a terminal, with so many spaces before the lines below the first. mark: how the line
    begins, and the colour of that.
    """
    line = shorten_middle(escape_controls(text), LONGEST_LINE)
    line = line if indent is None else wrapped(line, sys.stderr, indent=indent)
    if mark is not None:
        line = paint(mark[0], sys.stderr, mark[1], bold=True) + line.removeprefix(mark[0])
    with contextlib.suppress(OSError), BLOCK_LOCK:
        if BLOCK:
            redraw_block([])
        print(line, file=sys.stderr)


BLOCK: list[str] = []
"""The lines at the bottom of the terminal that are redrawn in place."""
BLOCK_LOCK = threading.RLock()
SIGN_TONES = {"✓": Tone.GOOD} | dict.fromkeys(SIGNS, Tone.ACTIVE)
"""Signs at the beginning of these lines → their colour."""


def redraw_block(lines: Sequence[str]) -> None:
    """Replace the lines at the bottom of the terminal, on standard error; none remove it."""
    with contextlib.suppress(OSError), BLOCK_LOCK:
        up = f"\033[{len(BLOCK) - 1}A" if len(BLOCK) > 1 else ""
        BLOCK[:] = [escape_controls(line) for line in lines]
        painted = [paint(line[:1], sys.stderr, SIGN_TONES.get(line[:1])) + line[1:] for line in BLOCK]
        print(f"\r{up}\033[J" + "\n".join(painted), end="", file=sys.stderr, flush=True)


def print_line(text: str = "") -> None:
    """Print a line."""
    print(escape_controls(text))


def print_heading(text: str) -> None:
    """Print an empty line and the heading of what follows."""
    print_line()
    print(paint(escape_controls(text), sys.stdout, bold=True))


def print_sentence(text: str, tone: Tone | None = None) -> None:
    """Print `• text`, the sign in the colour of what it says."""
    sign = paint("•", sys.stdout, tone, bold=tone is not None)
    print(sign + wrapped(f"• {escape_controls(text)}", sys.stdout, indent=2).removeprefix("•"))


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print `name   value` lines."""
    rows = [(escape_controls(name), escape_controls(value)) for name, value in fields]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(wrapped(f"{name:<{width}}  {value}", sys.stdout, indent=width + 2))


def print_sizes(paths: Iterable[Path]) -> None:
    """Print `wrote  path  12 KiB` for each file."""
    for path in paths:
        size = path.stat().st_size
        text = f"{size / 2**20:.1f} MiB" if size >= 1 << 20 else f"{size / 1024:.0f} KiB"
        print_line(f"wrote  {path}  {text}")


def terminal_size(stream: TextIO) -> os.terminal_size:
    """Return columns and lines of the terminal that a stream leads to: COLUMNS and LINES if set, 80 × 24 in a pipe."""
    try:
        real = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        real = os.terminal_size((0, 0))
    given = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    asked = [int(text) if re.fullmatch("[1-9][0-9]{0,4}", text) else 0 for text in given]
    return os.terminal_size((asked[0] or real.columns or 80, asked[1] or real.lines or 24))


def line_width() -> int:
    """Return the characters in a line of standard output: those of the terminal, 80 in a pipe."""
    return terminal_size(sys.stdout).columns if sys.stdout.isatty() else 80


def table_width(table: Sequence[Sequence[str]]) -> int:
    """Return the characters in a line of a table with all its columns whole."""
    return sum(max(map(len, column)) + 2 for column in zip(*table, strict=True)) - 2


def print_rows(head: Sequence[str], rows: Iterable[Sequence[str]], *, text: frozenset[int] = frozenset()) -> None:
    """Print a table. On a terminal that is too narrow its first column is shortened; where that does not do, the table
    is divided: columns for which there is no room come below, beside the first column again.

    text: columns that are aligned left, as the first one; the others are numbers and are aligned right.
    """
    body = [[escape_controls(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[i]) for line in body) for i in range(len(head))]
    room = line_width() if sys.stdout.isatty() else sum(widths) + 2 * len(widths)
    beside = room - sum(widths[1:]) - 2 * (len(widths) - 1)
    widest = room - max(widths[1:], default=0) - 2
    widths[0] = min(widths[0], beside if beside >= 12 else max(12, min(widest, room // 2)))
    for part, columns in enumerate(divide_columns(widths, room)):
        if part:
            print()
        for number, line in enumerate(body):
            first = f"{shorten_middle(line[0], widths[0]):<{widths[0]}}"
            cells = [f"{line[i]:<{widths[i]}}" if i in text else f"{line[i]:>{widths[i]}}" for i in columns]
            print(paint("  ".join([first, *cells]).rstrip(), sys.stdout, bold=number == 0))


def divide_columns(widths: Sequence[int], room: int) -> list[list[int]]:
    """Return the columns behind the first in groups that fit beside it, at least one in each."""
    groups: list[list[int]] = [[]]
    used = widths[0]
    for column, width in enumerate(widths[1:], 1):
        if groups[-1] and used + 2 + width > room:
            groups.append([])
            used = widths[0]
        groups[-1].append(column)
        used += 2 + width
    return groups


def wrapped(text: str, stream: TextIO, *, indent: int = 0) -> str:
    """Return the text with lines that end between words if the stream is a terminal; a pipe gets one line.

    indent: of the lines below the first. Numbers keep their unit.
    """
    columns = terminal_size(stream).columns
    if not stream.isatty() or len(text) <= columns or columns < 2 * indent:
        return text
    kept = text.replace(" %", "\u00a0%").replace(" …", "\u00a0…").replace("… ", "…\u00a0")
    start = len(kept) - len(kept.lstrip())
    lines = textwrap.wrap(
        kept,
        columns,
        subsequent_indent=" " * max(indent, start),
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    return "\n".join(lines).replace("\u00a0", " ")

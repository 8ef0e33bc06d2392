"""Sentences on a terminal end their lines between words; names, errors and JSON carry no control characters there."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantkit
from quantkit.cli.terminal.console import (
    Printing,
    Tone,
    note,
    print_error,
    print_fields,
    print_heading,
    print_json,
    print_line,
    print_rows,
    print_sentence,
    print_to_stderr,
    print_usage_error,
    warn,
    wrapped,
)
from quantkit.cli.terminal.model_table import print_statements
from quantkit.errors import DataError
from quantkit.view import CONTROL, escape_controls
from tests.support.reports import candidate, evaluation

WORDS = st.lists(st.text("abc…%.", min_size=1, max_size=12), min_size=1, max_size=40)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(WORDS, st.integers(0, 12))
def test_wrapping_changes_nothing_but_where_lines_end(words: list[str], indent: int) -> None:
    text = " ".join(words)
    made = wrapped(text, Terminal(), indent=indent)
    assert made.split() == words
    first, *rest = made.split("\n")
    assert first == text[: len(first)]
    for line in rest:
        assert line.startswith(" " * indent + line.strip()[:1])
    assert wrapped(text, io.StringIO(), indent=indent) == text


def test_a_line_keeps_to_the_terminal_and_numbers_keep_their_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = (
        "• model.int8.onnx loses 0.04 percentage points of top-1 (95 % interval of the drop: −0.06 … 0.14): no "
        "significant loss on 10,000 samples."
    )
    lines = wrapped(text, Terminal(), indent=2).split("\n")
    assert max(map(len, lines)) <= 40
    assert any("95 %" in line for line in lines)
    assert any("−0.06 … 0.14" in line for line in lines)
    assert all(line[:2] in ("• ", "  ") for line in lines)


def test_a_pipe_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_sentence("word " * 60)
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(
    ("terminal", "variables", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": "", "TERM": "xterm"}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "0"}, False),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_who_gets_colours(
    terminal: bool, variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors red, warnings yellow, verdicts as they are; without colours the same text."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    warn("look")
    print_error(DataError("wrong", remedy="fix it"), as_json=False)
    print_sentence("kept", Tone.GOOD)
    print_rows(("name", "n"), [("a", "1")])
    text = stream.getvalue()
    assert re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() == [
        "warning: look",
        "quantkit: wrong",
        "  → fix it",
        "• kept",
        "name  n",
        "a     1",
    ]
    tones = {"warning:": "33", "quantkit:": "31", "  →": "32", "•": "32"}
    assert all(f"\x1b[{code}m\x1b[1m{mark}\x1b[0m" in text for mark, code in tones.items()) == coloured
    assert ("\x1b" in text) == coloured


@pytest.mark.parametrize(("term", "hidden"), [("xterm", False), ("dumb", True)])
def test_a_terminal_that_cannot_redraw_gets_no_bars(term: str, hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert Printing(as_json=False).hides_progress == hidden


def test_a_divided_table_has_whole_names(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", stream)
    print_rows(("model", *("12345678" for _ in range(5))), [("model.onnx+model.calib", *"abcde")])
    assert stream.getvalue().count("model.onnx+model.calib") == 2


def test_a_doubt_that_the_recommendation_names_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    made = evaluation(candidate("int8"), doubts=("it was guessed", "labels are mixed up"))
    print_statements(made, "Cannot tell: it was guessed.")
    assert "it was guessed" not in (printed := capsys.readouterr().out)
    assert "In doubt: labels are mixed up." in printed
    print_statements(made)
    assert "In doubt: it was guessed." in capsys.readouterr().out


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(20, 140))
def test_a_table_is_divided_where_it_is_wider_than_the_terminal(widths: list[int], columns: int) -> None:
    """No line is wider, every cell is there once, and no part is empty."""
    head, row = ["n" * widths[0], *("h" * w for w in widths[1:])], [f"{i}" * w for i, w in enumerate(widths)]
    stream = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("NO_COLOR", "1")
        patch.setattr(sys, "stdout", stream)
        print_rows(head, [row])
    lines = stream.getvalue().splitlines()
    assert [word for word in " ".join(lines).split() if word in row[1:]] == row[1:]
    assert "" not in (lines[0], lines[-1])
    assert max(map(len, lines)) <= max(columns, 12 + 2 + max(widths))
    if sum(widths) + 2 * len(widths) - 2 <= columns:
        assert len(lines) == 2


HOSTILE = "\x1b[2J\x1b]0;title\x07 x\nquantkit: all is well\r\x9b31m\u202egnp.exe\u2066\u2028\x00\udce4\U000e0041 end"
"""A name that would clear the screen, set its title, begin a line, and turn letters around."""


def spoken(capsys: pytest.CaptureFixture[str]) -> str:
    """Return all that was printed; it has no control characters but the ends of lines."""
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert not CONTROL.search(text.replace("\n", ""))
    return text


def test_a_hostile_name_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Every function that prints shows a name in one line, with its control characters as escapes."""
    printers: list[tuple[Callable[[str], object], int]] = [
        (print_line, 1),
        (print_heading, 2),
        (print_sentence, 1),
        (warn, 1),
        (note, 1),
        (print_to_stderr, 1),
        (lambda text: print_fields([(text, text), ("b", "c")]), 2),
        (lambda text: print_rows((text, text), [(text, text)], text=frozenset({1})), 2),
        (lambda text: print_error(DataError(text, remedy=text, details=[text]), as_json=False), 3),
        (lambda text: print_usage_error(click.UsageError(text), as_json=False), 1),
    ]
    for printer, lines in printers:
        printer(HOSTILE)
        text = spoken(capsys)
        assert text.count("\n") == lines
        assert r"\x1b[2J" in text
        assert r"\u202e" in text


def test_json_keeps_the_true_names(capsys: pytest.CaptureFixture[str]) -> None:
    """What steers a terminal is escaped in JSON, and read back as it was."""
    print_json({HOSTILE: [HOSTILE]})
    text = spoken(capsys)
    assert json.loads(text) == {HOSTILE: [HOSTILE]}


@given(st.text(st.characters(codec=None, categories=("C", "Z", "L"))))
def test_escaped_text_is_safe_and_stays(text: str) -> None:
    """Nothing is left to escape, and text without control characters stays as it is."""
    shown = escape_controls(text)
    assert escape_controls(shown) == shown
    assert (shown == text) == (not CONTROL.search(text))


def test_an_error_without_end_is_one_readable_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Both ends of a text of a million characters are shown."""
    print_error(DataError("a" * 1_000_000, remedy="stop"), as_json=False)
    assert len(capsys.readouterr().err) < 5000


def test_nothing_is_printed_around_the_console() -> None:
    """Only console.py prints; the others, and the packages below, go through it."""
    folder = Path(quantkit.__file__).parent
    found = []
    for path in folder.rglob("*.py"):
        if path == folder / "cli" / "terminal" / "console.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if re.fullmatch(r"print|(click\.)?(echo|secho|style)|sys\.(__)?std(out|err)(__)?\.write|.*\.show", called):
                found.append(f"{path.relative_to(folder)}:{node.lineno}: {called}")
    assert found == []

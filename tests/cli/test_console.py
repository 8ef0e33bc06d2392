"""Sentences on a terminal end their lines between words; in a pipe they are one line."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.cli.terminal.console import print_sentence, wrapped

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
        "• model.int8.onnx loses 0.04 percentage points of top-1 (95 % interval: −0.06 … 0.14): no significant loss on "
        "10,000 samples."
    )
    lines = wrapped(text, Terminal(), indent=2).split("\n")
    assert max(map(len, lines)) <= 40
    assert any("95 %" in line for line in lines)
    assert any("−0.06 … 0.14" in line for line in lines)
    assert all(line[:2] in ("• ", "  ") for line in lines)


def test_a_pipe_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_sentence("word " * 60)
    assert capsys.readouterr().out.count("\n") == 1

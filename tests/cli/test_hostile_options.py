"""Options without sense are refused in one line with exit code 2, before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest

from quantkit.cli.application import app, run_command_line
from quantkit.cli.arguments.parsing import NUMBER, Number, parse_counts, parse_size
from quantkit.errors import UsageError
from quantkit.values import check_number

NO_NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "1e400",
    "²",
    "٣",
    "",
    "\0",
    "9" * 5000,
    "a" * 1_000_000,
    "1_000",
    " 5",
    "0x10",
    "1,2",
)
NO_WHOLE_NUMBERS = (*NO_NUMBERS, "1.5", "1e3")


def numeric_options(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Option]]:
    """Yield every option that takes a number, with the words of its command."""
    for name, below in getattr(command, "commands", {}).items():
        yield from numeric_options(below, (*words, name))
    yield from ((words, p) for p in command.params if isinstance(p, click.Option) and isinstance(p.type, Number))


OPTIONS = [(*words, option.opts[0]) for words, option in numeric_options(app)]


def test_no_option_takes_numbers_as_python_does() -> None:
    """Python's int() and float() also take ٣, 1_000, nan and 1e400."""
    kinds = {type(p.type).__name__ for _, command in app.commands.items() for p in command.params}
    assert not kinds & {"IntParamType", "FloatParamType", "IntRange", "FloatRange"}
    assert len(OPTIONS) > 30


@pytest.mark.parametrize("words", OPTIONS, ids=" ".join)
def test_what_is_no_number_is_a_usage_error(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    (option,) = (p for w, p in numeric_options(app) if (*w, p.opts[0]) == words)
    for text in NO_NUMBERS if option.type is NUMBER else NO_WHOLE_NUMBERS:
        assert run_command_line([*words, text]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("quantkit: ")
        assert printed.count("\n") == 2, "the fault and the remedy"
        assert len(printed) < 400


@pytest.mark.parametrize(
    "text",
    ["", "9" * 400 + "T", "1e3", "-1", "0", "0.5", "nan", "²", "٣K", "8388608T", "1KK", "9" * 1_000_000],
)
def test_a_size_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("512M", 512 << 20), ("2 GiB", 2 << 30), ("1.5k", 1536), ("1kb", 1024)]
)
def test_a_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "1,", ",", "1,,2", "٣", "²", "1_0", "1," + "9" * 5000, "a"])
def test_a_list_of_numbers_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not a list of whole numbers"):
        parse_counts(text, "--batch")


@pytest.mark.parametrize("value", [True, "5", 1.0, float("nan"), 0, 11, 10**400, [], object()])
def test_a_number_out_of_bounds(value: Any) -> None:
    """Also what a caller in Python passes."""
    with pytest.raises(UsageError, match=r"^n is .*\n  → give a whole number"):
        check_number("n", value, 1, 10)


@pytest.mark.parametrize("arguments", [["inspect", ""], ["inspect", "a\0b"], ["calibrate", "m.onnx", "--data="]])
def test_an_empty_argument(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unset variable of the shell is not the folder `.`."""
    assert run_command_line(arguments) == 2
    assert capsys.readouterr().err.startswith("quantkit: ")

"""The reference of all commands in docs/cli.md is generated from the commands; `pytest --regen` writes it."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from quantkit.cli.application import app as program
from tests.support.command_line import transcript_in

app: Any = program
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
WORDS = {
    "MODEL": "an ONNX file; where a command says so, an engine or `model.onnx+model.calib` too",
    "ENGINE": "a TensorRT engine that `quantkit build` or trtexec wrote",
    "TABLE, A, B": "calibration tables, such as `model.calib`",
    "STATS": "a statistics file, `model.stats.safetensors`",
    "RUN": "a result that `quantkit evaluate --output` wrote",
    "SAVED_MODEL": "a folder of TensorFlow",
    "MODULE, CALLABLE": "a Python module and a function or class in it, `module:callable`",
    "PATH, FILE, DIR": "a file or a folder, a file, a folder",
    "URL": "a place in a store, such as `s3://bucket/run`",
    "INDEX, COUNT": "`3/64`: the part 3 of the 64 parts 0, 1 … 63",
    "PRESET": "a preprocessing by name, for example `imagenet`",
    "NAME": "a name from the list beside the option",
    "RULE": "a calibration method, for example `mse` or `percentile:99.99`",
    "NODE, PATTERN, OPERATOR": "a node's name, a pattern such as `head/*`, an operator such as `Softmax`",
    "INPUT, MIN, OPT, MAX": "an input's name, and its smallest, best and largest batch size or shape: `image=1:8:32`",
    "ARCHITECTURE": "a GPU architecture, for example `sm86` or `8.6`; `ARCHITECTURE,…` are several",
    "PROFILE": "a GPU profile that `quantkit profile` wrote",
    "GPU": "a GPU by name: `l4`; `GPU,…` are several",
    "P": "a precision: `fp32`, `tf32`, `fp16`, `int8`, `best`",
    "N": "a whole number; `N,N…` are several",
    "X": "a number, also a fraction, for example `0.5`",
    "HOST, PORT": "a machine's name or address, and a port: `head:10001`",
    "SIZE": "an amount of memory, for example `2GiB`, or the sizes of an axis",
    "X.Y.Z": "a version, for example `8.6.1`",
    "POINTS": "percentage points, for example `0.5`",
    "FRACTION": "a number from 0 to 1",
    "DB": "decibels",
    "MINUTES": "a number of minutes, for example `2.5`",
    "S": "seconds",
}
"""Placeholders of usage lines and options → their meaning."""
HEAD = "# Commands\n\nEvery command takes `--help`. This page is generated from their definitions.\n"
ROWS = "\n".join(
    f"| {', '.join(f'`{word}`' for word in words.split(', '))} | {text} |" for words, text in WORDS.items()
)
PLACEHOLDERS = f"""## Placeholders and exit codes

| placeholder | meaning |
|---|---|
{ROWS}

`[X]` may be left out, `X…` can be repeated, `a|b` is one of them. Options that can be repeated say so. Exit codes:
0 done, 1 refused or failed, 2 usage, 3 over budget or in doubt about it, 130 interrupted.
"""


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield every command below `command` with its full name, groups left out."""
    if hasattr(command, "commands"):
        for word, below in command.commands.items():
            yield from commands(below, f"{name} {word}")
    else:
        yield name, command


def option_line(option: click.Option, context: click.Context) -> str:
    """Return an option as a list entry."""
    assert option.metavar or option.is_flag or isinstance(option.type, click.Choice), f"{option.name} needs a metavar"
    names = ", ".join(f"`{name}`" for name in option.opts)
    other = "".join(f" / `{name}`" for name in option.secondary_opts)
    value = "" if option.is_flag else f" `{option.make_metavar(context)}`"
    default = f" Default: `{option.default}`." if option.show_default else ""
    return f"- {names}{other}{value}: {option.help}{default}"


def section(name: str, command: Any) -> str:
    """Return the usage, the description and the options of a command."""
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    about = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help))
    shown = [p for p in command.params if isinstance(p, click.Option) and "--help" not in p.opts]
    lines = "".join(f"{option_line(p, context)}\n" for p in shown)
    examples = "\n```sh\n" + "".join(f"{line}\n" for line in command.examples) + "```\n"
    return f"## {name}\n\n```text\n{usage}\n```\n\n{about}\n\n{lines}{examples}"


def contents() -> str:
    """Return the commands by purpose, with their summaries, as on the help page of the program."""
    known = dict(commands(app, "quantkit"))
    rows = []
    for title, verbs in app.headings.items():
        names = [name for verb in verbs for name in known if f"{name} ".startswith(f"quantkit {verb} ")]
        rows += [f"| **{title}** | |"]
        rows += [f"| [{n}](#{n.replace(' ', '-')}) | {known[n].get_short_help_str(limit=200)} |" for n in names]
    assert len(rows) == len(known) + len(app.headings)
    return "\n".join(["| command | |", "|---|---|", *rows, ""])


def reference() -> str:
    """Return the page."""
    return "\n".join(
        [HEAD, contents(), PLACEHOLDERS, *(section(name, command) for name, command in commands(app, "quantkit"))]
    )


def test_the_reference_is_current(request: pytest.FixtureRequest) -> None:
    now = reference()
    if request.config.getoption("--regen"):
        PAGE.write_text(now, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == now, "run `pytest --regen tests/cli/test_help.py` and read the diff"


def test_every_placeholder_is_explained() -> None:
    known = {word for words in WORDS for word in words.split(", ")}
    used = {
        word
        for _, command in commands(app, "quantkit")
        for parameter in command.params
        for word in re.findall(r"X\.Y\.Z|\b[A-Z][A-Z_]*\b", parameter.metavar or "")
    }
    assert used == known, "explain it in WORDS above, in the words of people who read a usage line"


def test_the_reference_has_nothing_empty() -> None:
    assert not re.search(r"\bNone\b|^- .*: *$|`\[?[A-Z]+\]?`$", reference(), re.MULTILINE)


@pytest.mark.parametrize("name", [name for name, _ in commands(app, "quantkit")])
def test_every_command_explains_itself(name: str, tmp_path: Path) -> None:
    shown, code = transcript_in(tmp_path, [*name.split()[1:], "--help"])
    assert code == 0
    assert shown.startswith("Usage: ")
    assert "--json" in shown
    assert "\nExamples:\n" in shown


def test_a_terminal_that_lacks_a_character_gets_its_number() -> None:
    without_ellipsis = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    line = [sys.executable, "-m", "quantkit", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=without_ellipsis)
    assert r"8.6 \u2026 10.x" in done.stdout


@pytest.mark.parametrize(("name", "command"), list(commands(app, "quantkit")), ids=lambda value: str(value))
def test_every_command_has_examples_that_parse(name: str, command: Any) -> None:
    assert len(command.examples) >= 2
    assert max(len(line) + 2 for line in command.examples) <= 80
    for line in command.examples:
        assert len(line) <= 98, "the help page is at most 100 columns wide"
        words = shlex.split(line)
        below: Any = app
        context = click.Context(app, info_name=words.pop(0))
        while hasattr(below, "commands"):
            below = below.commands[words.pop(0)]
        assert below is command, f"{line} is an example of another command"
        with below.make_context(name, words, parent=context):
            pass


@pytest.mark.parametrize("arguments", [[], ["table"], ["stats"], ["export"]], ids=" ".join)
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_lists_of_commands_cut_no_summary(arguments: list[str], columns: int) -> None:
    group: Any = app
    for word in arguments:
        group = group.commands[word]
    with click.Context(group, info_name="quantkit", terminal_width=columns) as context:
        text = group.get_help(context)
    words = " ".join(text.split())
    assert max(map(len, text.splitlines())) <= columns
    for name, command in group.commands.items():
        assert command.short_help, f"{name} has no summary"
        assert len(command.short_help) <= 60
        assert f"{name} {command.short_help}" in words


def test_the_help_begins_with_where_to_start() -> None:
    assert next(iter(app.headings)) == "Start here"
    below = [name for names in app.headings.values() for name in names]
    assert below[0] == "run"
    assert sorted(below) == sorted(app.commands), "every command has a heading"

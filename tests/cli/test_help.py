"""The reference of all commands in docs/cli.md is generated from the commands; `pytest --regen` writes it."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from quantkit.cli.application import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
HEAD = "# Commands\n\nEvery command takes `--help`. This page is generated from their definitions.\n"


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield every command below `command` with its full name, groups left out."""
    if hasattr(command, "commands"):
        for word, below in command.commands.items():
            yield from commands(below, f"{name} {word}")
    else:
        yield name, command


def option_line(parameter: Any) -> str:
    """Return a parameter as a list entry."""
    written = parameter.metavar
    if isinstance(parameter, click.Argument):
        return f"- `{written}`"
    assert written or parameter.is_flag, f"{parameter.name} needs a metavar"
    names = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
    value = "" if parameter.is_flag else f" `{written}`"
    default = f" Default: `{parameter.default}`." if parameter.show_default else ""
    return f"- {names}{value}: {parameter.help}{default}"


def reference() -> str:
    """Return the page."""
    parts = [HEAD]
    for name, command in commands(app, "quantkit"):
        about = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help))
        shown = [option_line(p) for p in command.params if "--help" not in p.opts]
        parts.append(f"## {name}\n\n{about}\n\n" + "\n".join(shown) + "\n")
    return "\n".join(parts)


def test_the_reference_is_current(request: pytest.FixtureRequest) -> None:
    now = reference()
    if request.config.getoption("--regen"):
        PAGE.write_text(now, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == now, "run `pytest --regen tests/cli/test_help.py` and read the diff"


@pytest.mark.parametrize("name", [name for name, _ in commands(app, "quantkit")])
def test_every_command_explains_itself(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", *name.split(), "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ")
    assert "--json" in done.stdout

"""Every option explains itself, and means the same in every command that has it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import click
import pytest

from quantkit.cli import options
from quantkit.cli.application import app
from quantkit.cli.terminal.console import Printing

OWN_MEANING = {
    "--output": "what a command writes",
    "--table": "scales that are used unchanged (quantize, layers), or for the INT8 of an engine (build, bench)",
    "--precision": "one (build), several (bench, run), the accelerator's (export triton)",
    "--labels": "of samples, or the names of classes (export triton)",
    "--preprocess": "of samples, or in the served model (export triton)",
    "--against": "a model (compile), the Q/DQ model of the network (layers), or whatever a map is compared with (map)",
    "--batch": "sizes to time (bench), or the size to compile (compile)",
    "--for": "GPU architectures (compile), or the profile of a GPU (quantize)",
    "--seconds": "for each figure (bench), or for all (profile)",
    "--force": "files that are replaced, or runs that are compared all the same (compare)",
}
"""Option → why its text is not the same in every command."""


def named_commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for word, below in command.commands.items():
            yield from named_commands(below, f"{name} {word}")
    else:
        yield name, command


COMMANDS = dict(named_commands(app, "quantkit"))


def command_options() -> Iterator[tuple[str, click.Option]]:
    for name, command in COMMANDS.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and "--help" not in parameter.opts:
                yield name, parameter


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text_in_sentences(name: str) -> None:
    texts = {p.opts[0]: p.help for command, p in command_options() if command == name}
    assert not [option for option, text in texts.items() if not text or not text.endswith(".") or not text[0].isupper()]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_in_sentences(name: str) -> None:
    assert COMMANDS[name].help.rstrip().endswith(".")


def test_an_option_has_the_same_help_text_everywhere() -> None:
    """The first sentence; others say what differs: a default, or what several values are for."""
    texts: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for command, option in command_options():
        if option.opts[0] not in OWN_MEANING:
            first = (option.help or "").split(". ")[0].removesuffix(".")
            texts[option.opts[0]][first].append(command)
    assert {option: dict(found) for option, found in texts.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (options.LayerSelection, options.LAYER_SELECTION.keys()),
        (options.DataChoice, options.DATA_CHOICE.keys() | {"data", "limit"}),
        (Printing, options.PRINTING.keys()),
    ],
)
def test_every_field_of_a_shared_value_has_an_option(value: type, declared: set[str]) -> None:
    assert {field.name for field in fields(value)} == set(declared)


def test_options_arrive_as_one_frozen_value() -> None:
    @click.command()
    @options.layer_selection(without=("min_coverage",))
    @options.data_choice("threads", default_limit=7)
    def show(selection: options.LayerSelection, samples: options.DataChoice) -> tuple[Any, Any]:
        return selection, samples

    line = ["--data", "imgs", "--exclude", "a", "--exclude", "b", "--threads", "2"]
    selection, samples = show.main(line, standalone_mode=False)
    assert (selection.policy, selection.exclude, selection.min_coverage) == ("tensorrt", ("a", "b"), None)
    assert "min_coverage" not in selection.keywords(), "the command does not offer it"
    assert selection.keywords()["exclude"] == ("a", "b")
    assert (samples.data, samples.limit, samples.threads, samples.seed) == ("imgs", 7, 2, None)
    assert (samples.reading().limit, samples.reading().threads) == (7, 2)

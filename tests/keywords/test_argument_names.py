"""Messages name options as the command line does, and arguments in Python; both from one text."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantkit
from quantkit.keywords.argument_names import COMMAND, FLAGS, RENAMED, VALUED, in_python
from tests.cli.test_remedies import COMMANDS, OPTION, text_of

ROOT = Path(quantkit.__file__).parent
NOT_IN_PYTHON = {
    "--compile",
    "--json",
    "--val-limit",
    "--no-layers",
    "--exclude-file",
    "--html",
    "--plot",
    "--val",
    "--memory",
    "--time-limit",
    "--for",
    "--parity",
}
"""Options that only commands have: of files that they write, of two steps at once, of tools for machines."""


def texts_of(path: Path) -> Iterator[str]:
    """The strings in a file, without docstrings and command lines of other programs; values in them become `x`."""
    left_out = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):  # a node comes before its parts
        if isinstance(node, ast.Expr):
            left_out.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            left_out.update(map(id, node.values))
        if id(node) not in left_out and not (text := text_of(node)).startswith(("--tint", "quantkit")):
            yield text


CLICK = {name: option for command in COMMANDS.values() for option in command.params for name in option.opts}


def options_named() -> set[str]:
    """Find the options of commands that the library's texts name, outside of the command line's own modules."""
    library = [path for path in ROOT.rglob("*.py") if "cli" not in path.parts and "--" in path.read_text("utf-8")]
    texts = (text for path in library for text in texts_of(path))
    return {option for text in texts for option in OPTION.findall(COMMAND.sub("", text))} & set(CLICK)


def test_every_option_that_the_library_names_has_a_name_in_python() -> None:
    named = options_named()
    assert len(named) > 40
    assert {option for option in named if in_python(option) == option} <= NOT_IN_PYTHON


def test_the_names_in_python_are_keywords_of_a_verb() -> None:
    verbs = [getattr(quantkit, name) for name in quantkit.__all__ if inspect.isroutine(getattr(quantkit, name))]
    known = {name for verb in verbs for name in inspect.signature(verb).parameters} | {"metric"}
    known |= set(quantkit.Settings.model_fields)
    renamed = {RENAMED.get(name, name.replace("-", "_")) for name in VALUED} | {v.split("=")[0] for v in FLAGS.values()}
    assert renamed <= known


def test_flags_are_those_of_the_command_line() -> None:
    flags = {
        name.removeprefix("--") for name, option in CLICK.items() if isinstance(option, click.Option) and option.is_flag
    }
    assert set(FLAGS) - {"no-gpu"} <= flags
    assert not VALUED & flags


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("another --output keeps both; --force replaces it", "another output= keeps both; force=True replaces it"),
        ("for example --metric top1@logits", 'for example metric="top1@logits"'),
        ("measure its boxes: --metric map", 'measure its boxes: metric="map"'),
        ("--metric keypoint-map:v8 (a head)", 'metric="keypoint-map:v8" (a head)'),
        ("give --labels FILE (one `file,label` a line)", 'give labels="FILE" (one `file,label` a line)'),
        ("at least --max-memory 64K", "at least max_memory=65536"),
        ("--batch 1,32 --streams 1,2", "batches=(1, 32) streams=(1, 2)"),
        ("--tensorrt-version 8.6 or 10.3", 'tensorrt_version="8.6" or 10.3'),
        ("with --provider cuda; --limit 32, or", 'with provider="cuda"; limit=32, or'),
        (
            "quantkit calibrate M --data D --force, then --force",
            "quantkit calibrate M --data D --force, then force=True",
        ),
        ("omit --max-drop or --no-labels", "omit max_drop= or without_labels=True"),
        ("trtexec --onnx=x --int8", "trtexec --onnx=x --int8"),
        ("file--force and ---data", "file--force and ---data"),
    ],
)
def test_a_message_in_python(text: str, said: str) -> None:
    assert in_python(text) == said


@given(st.text(max_size=200))
def test_other_text_stays(text: str) -> None:
    assert in_python(text) == text or "--" in text
    in_python(f"--{text}")


def test_an_error_has_both(tmp_path: Path) -> None:
    (tmp_path / "x.calib").write_text("mine")
    data = Path(__file__).parents[2] / "calibration_data"
    with pytest.raises(quantkit.QuantkitError) as caught:
        quantkit.quantize(data / "model.onnx", tmp_path / "x.calib", data=data / "images")
    assert caught.value.remedy == "another --output keeps both; --force replaces it"
    assert str(caught.value).endswith("→ another output= keeps both; force=True replaces it")

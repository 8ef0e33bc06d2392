"""Remedies lead somewhere: what they name exists, and the error is gone once they are followed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import quantkit
from quantkit.cli import invoke
from quantkit.cli.application import app
from quantkit.linting.lint import lint
from tests.support.networks import ROOT

# Every remedy in the source -----------------------------------------------------------------------------------------

COMMAND = re.compile(r"quantkit ([a-z]+(?:-[a-z]+)*)((?: (?!quantkit\b)[^\s,;:()`]+)*)")
"""`quantkit`, a verb, and the words behind it up to a comma or a bracket."""
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")
WORDS = frozenset({"downloads", "for", "reads", "wrote"})
"""What follows the name of the package in prose: `the same quantkit for all parts`."""


def text_of(node: ast.AST) -> str:
    """The text of a string in the source; values in it become `x`."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def remedies_in(tree: ast.Module) -> Iterator[str]:
    """Yield the texts of `remedy=…`, of names with REMEDY, and of functions that return a remedy."""
    for node in ast.walk(tree):
        values: list[ast.AST] = []
        if isinstance(node, ast.keyword) and node.arg and "remedy" in node.arg:
            values = [node.value]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and "remed" in target.id.lower() for target in targets):
                values = [node.value]
        elif isinstance(node, ast.FunctionDef) and ("remedy" in node.name or node.name == "describe_way_back"):
            values = [step.value for step in ast.walk(node) if isinstance(step, ast.Return) and step.value]
        for value in values:
            inside = {
                id(part) for joined in ast.walk(value) if isinstance(joined, ast.JoinedStr) for part in joined.values
            }
            yield from (text_of(part) for part in ast.walk(value) if id(part) not in inside and text_of(part))


@pytest.fixture(scope="module")
def remedies() -> list[str]:
    """The texts of all remedies in the package's source."""
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "quantkit").rglob("*.py"))
    telling = (source for source in sources if "remed" in source.lower() or "def describe_way_back" in source)
    return sorted({text for source in telling for text in remedies_in(ast.parse(source))})


def commands_in(
    group: click.Group = app, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the words that call it."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands_in(command, (*path, name))


COMMANDS = dict(commands_in())


def options_of(command: click.Command) -> set[str]:
    return {"--help", *(name for given in command.params for name in (*given.opts, *given.secondary_opts))}


def test_remedies_are_found(remedies: list[str]) -> None:
    assert len(remedies) > 300
    assert sum("quantkit " in text for text in remedies) > 30


def test_every_option_that_a_remedy_names_exists(remedies: list[str]) -> None:
    known = {name for command in COMMANDS.values() for name in options_of(command)}
    named = {option for text in remedies for option in OPTION.findall(text)}
    assert len(named) > 40
    assert named - known == set()


def test_every_command_that_a_remedy_names_exists_with_its_options(remedies: list[str]) -> None:
    wrong = []
    for text in remedies:
        for match in COMMAND.finditer(text):
            words = [match[1], *match[2].split()]
            if words[0] in WORDS:
                continue
            path = tuple(words[:2]) if tuple(words[:2]) in COMMANDS else (words[0],)
            command = COMMANDS.get(path)
            group = isinstance(command, click.Group)
            if command is None or group or set(OPTION.findall(match[2])) - options_of(command):
                wrong.append(f"{match[0]!r} in {text!r}")
    assert wrong == []


# Followed -----------------------------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(3)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small float network, another one, data for both, and onnxruntime's Q/DQ model of the first."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("net", 0), ("other", 1)):
        onnx.save(convolutional(np.random.default_rng(seed)), f"{name}.onnx")
    np.save("x.npy", RANDOM.normal(size=(8, 3, 8, 8)).astype(np.float32))
    return tmp_path


def convolutional(random: np.random.Generator) -> onnx.ModelProto:
    weights = {
        "w": random.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "b": random.normal(size=8).astype(np.float32),
        "v": (random.normal(size=(4, 8, 1, 1)) * np.geomspace(0.01, 1, 4).reshape(4, 1, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "first"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "v"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Images for onnxruntime's quantize_static."""

    def __init__(self) -> None:
        self.batches = iter([{"x": np.load("x.npy")}])

    def get_next(self) -> Any:
        return next(self.batches, None)


def foreign(
    path: str, kind: QuantType = QuantType.QInt8, per_channel: bool = False, qdq: bool = True, **extra: Any
) -> str:
    """A Q/DQ model of the small network by onnxruntime."""
    quantize_static(
        "net.onnx",
        path,
        Reader(),
        quant_format=QuantFormat.QDQ if qdq else QuantFormat.QOperator,
        activation_type=kind,
        per_channel=per_channel,
        extra_options=extra,
    )
    return path


def run(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command line; return the exit code, and its remedy if it fails."""
    code = invoke(shlex.split(line))
    said = capsys.readouterr().err
    _, _, remedy = said.rpartition("→ ")
    return code, " ".join(remedy.split()) if code else ""


def command_of(remedy: str, data: str = "x.npy") -> str:
    """The command at the end of a remedy, with data in the place of `…` and DATA."""
    _, _, line = remedy.rpartition("quantkit ")
    return line.replace("…", data).replace("DATA", data)


def statistics_of(name: str) -> None:
    assert invoke(["calibrate", f"{name}.onnx", "--data", "x.npy", "--quiet"]) == 0


CASES: dict[str, tuple[Callable[[], object], str, str]] = {
    "calibrate of a Q/DQ model": (
        lambda: foreign("q.onnx", ActivationSymmetric=True),
        "calibrate q.onnx --data x.npy",
        "calibrate q.float.onnx --data x.npy",
    ),
    "calibrate of a Q/DQ model with zero points": (
        lambda: foreign("q.onnx", QuantType.QUInt8),
        "calibrate q.onnx --data x.npy",
        "calibrate q.float.onnx --data x.npy",
    ),
    "quantize of a Q/DQ model": (
        lambda: foreign("q.onnx"), "quantize q.onnx --data x.npy", "quantize q.float.onnx --data x.npy"
    ),
    "statistics of another network": (
        lambda: (statistics_of("net"), statistics_of("other")),
        "quantize net.onnx --stats other.stats.safetensors",
        "quantize net.onnx",
    ),
    "a table of another network": (
        lambda: statistics_of("other"), "quantize net.onnx --table other.calib", "quantize net.onnx --table other.calib"
    ),
    "no scales at all": (lambda: None, "quantize net.onnx", "quantize net.onnx"),
    "a table for TensorRT 11": (
        lambda: None,
        "calibrate net.onnx --data x.npy --tensorrt-version 11",
        "quantize net.onnx --data x.npy --tensorrt-version 11 --force",
    ),
    "layers of a Q/DQ model": (
        lambda: foreign("q.onnx"), "layers q.onnx --data x.npy", ""
    ),
}  # fmt: skip
"""Name → what was there, the command that fails, and the command that works once its remedy was followed."""
LATER = {
    "layers of a Q/DQ model": lambda line: line.replace("FLOAT.onnx", "net.onnx") + " --data x.npy",
    "a table for TensorRT 11": lambda line: line.replace("MODEL", "net.onnx"),
}
"""What the reader fills in."""


@pytest.mark.parametrize("case", CASES)
def test_the_command_in_a_remedy_helps(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, fails, works = CASES[case]
    prepare()
    code, remedy = run(fails, capsys)
    assert code in (1, 2)
    line = LATER.get(case, lambda line: line)(command_of(remedy))
    if "calibrate" in line and not case.startswith("no scales"):
        line += " --force"
    assert run(line, capsys) == (0, ""), line
    if works:
        assert run(works, capsys) == (0, ""), works


OPTIONS: dict[str, tuple[Callable[[], object], str, str]] = {
    "a table that is there": (lambda: statistics_of("net"), "calibrate net.onnx --data x.npy --limit 4", "--force"),
    "nothing to resume": (lambda: None, "calibrate net.onnx --data x.npy --resume", "- --resume"),
    "too little memory": (lambda: None, "calibrate net.onnx --data x.npy --max-memory 1K", "--max-memory {}"),
    "few tensors in a table": (
        lambda: Path("few.calib").write_text("TRT-8601-EntropyCalibration2\nx: 3c010204\n"),
        "quantize net.onnx --table few.calib",
        "--min-coverage 0.1",
    ),
    "an engine of TensorRT 8 has no FP16 Q/DQ": (
        lambda: statistics_of("net"), "quantize net.onnx --fp16 --tensorrt-version 8.6.1", "- --fp16"
    ),
    "an output that is there": (
        lambda: (statistics_of("net"), Path("net.int8.onnx").write_text("mine")), "quantize net.onnx", "--force"
    ),
    "--output without --fix": (lambda: foreign("q.onnx"), "lint q.onnx --output p.onnx", "--fix"),
    "repairs without data": (lambda: statistics_of("net"), "quantize net.onnx --repair round", "--data x.npy"),
    "an unknown node": (lambda: statistics_of("net"), "quantize net.onnx --exclude nothing", "- --exclude nothing"),
}  # fmt: skip
"""Name → what was there, the command that fails, and what its remedy says: an option more, or less (`-`)."""


@pytest.mark.parametrize("case", OPTIONS)
def test_the_option_in_a_remedy_helps(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, fails, change = OPTIONS[case]
    prepare()
    code, remedy = run(fails, capsys)
    assert code in (1, 2)
    left_out = change.startswith("- ")
    option = change.removeprefix("- ").split()[0]
    if case != "an unknown node":
        assert option in remedy
    least = re.search(rf"{option} (\S+)", remedy)
    line = fails.replace(change[2:], "") if left_out else f"{fails} {change.format(least[1] if least else '')}"
    assert run(line, capsys)[0] in ((0, 1) if fails.startswith("lint") else (0,)), line


LINT: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "zero-point": ({}, {"ActivationSymmetric": True}, "ActivationSymmetric=True"),
    "uint8": ({"kind": QuantType.QUInt8, "ActivationSymmetric": True}, {"kind": QuantType.QInt8}, "QInt8"),
    "int32-bias": ({"ActivationSymmetric": True}, {"QuantizeBias": False}, "QuantizeBias=False"),
    "contrib-pair": ({"UseQDQContribOps": True}, {"UseQDQContribOps": False}, "UseQDQContribOps=False"),
    "integer-operator": ({"qdq": False}, {"qdq": True}, "QuantFormat.QDQ"),
    "weights-per-tensor": ({}, {"per_channel": True}, "per_channel=True"),
    "not-int8": ({"kind": QuantType.QInt16, "UseQDQContribOps": False}, {"kind": QuantType.QInt8}, "INT8"),
}
"""Rule → arguments of quantize_static that make the finding, those that its remedy names, and how it names them."""


@pytest.mark.parametrize("rule", LINT)
def test_the_remedies_of_lint_help(rule: str, here: Path) -> None:
    before, remedied, named = LINT[rule]
    findings = [found for found in lint(foreign("before.onnx", **before)).findings if found.rule == rule]
    assert findings
    assert all(named in found.remedy for found in findings)
    assert rule not in {found.rule for found in lint(foreign("after.onnx", **{**before, **remedied})).findings}


def test_fixing_leaves_nothing_that_can_be_fixed(here: Path) -> None:
    report = lint(foreign("q.onnx", ActivationSymmetric=True, UseQDQContribOps=True), fix_to="fixed.onnx")
    assert {found.rule for found in report.fixed} == {"contrib-pair", "int32-bias"}
    assert not report.errors
    again = quantkit.lint("fixed.onnx", fix_to="again.onnx")
    assert (again.fixed, again.written) == ((), None)

"""The shell completes commands, options and the values of options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from quantkit.cli.application import app
from quantkit.cli.arguments.completion import CompletedText
from tests.cli.test_help import commands


def completions(*words: str) -> list[str]:
    """Return what click proposes for the last word of a command line; a proposal of files is `<file>`."""
    complete = click.shell_completion.ShellComplete(app, {}, "quantkit", "_QUANTKIT_COMPLETE")
    found = complete.get_completions(list(words[:-1]), words[-1])
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["calibrate", "--backend", "on"], ["onnxruntime"]),
        (["quantize", "--policy", ""], ["tensorrt", "conv-only", "all"]),
        (["quantize", "--weights", ""], ["float", "int8", "fp8", "mixed"]),
        (["build", "--precision", "f"], ["fp32", "fp16"]),
        (["run", "--precision", "fp16,i"], ["fp16,int8"]),
        (["run", "--precision", "fp16,fp"], ["fp16,fp32"]),
        (["calibrate", "--rule", "mse,per"], ["mse,percentile:99.99"]),
        (["quantize", "--rule", "per"], ["percentile:99.99"]),
        (["quantize", "--rule", "percentile:99.9"], ["percentile:99.99"]),
        (["calibrate", "--preprocess", "image"], ["imagenet", "imagenet-caffe", "<file>"]),
        (["export", "triton", "--preprocess", "no"], ["none", "<file>"]),
        (["quantize", "--repair", "round,b"], ["round,bias"]),
        (["evaluate", "--metric", "top"], ["top1", "top5"]),
        (["table", "convert", "--algorithm", "Min"], ["MinMaxCalibration"]),
        (["calibrate", "--histogram", "i"], ["invariant"]),
        (["bench", "--graphs", ""], ["on", "off", "both"]),
        (["compile", "--for", "sm86,sm8"], ["sm86,sm80", "sm86,sm89"]),
        (["compile", "--gpus", "rtx4"], ["rtx4090"]),
        (["calibrate", "--data", "im"], ["<file>"]),
        (["evaluate", "model"], ["<file>"]),
        (["run", "--val-l"], ["--val-limit"]),
        (["cal"], ["calibrate"]),
        (["table", ""], ["show", "diff", "convert", "adopt", "from-qdq"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_values_are_proposed(words: list[str], expected: list[str]) -> None:
    assert completions(*words) == expected


@pytest.mark.parametrize(("name", "command"), list(commands(app, "quantkit")), ids=lambda value: str(value))
def test_a_placeholder_that_lists_values_has_them_all(name: str, command: Any) -> None:
    for parameter in command.params:
        words = (parameter.metavar or "").split("|")
        if len(words) > 1 and all(word.islower() for word in words) and not isinstance(parameter.type, click.Choice):
            assert isinstance(parameter.type, CompletedText), f"{name} {parameter.opts[0]}"
            with click.Context(command) as context:
                found = parameter.shell_complete(context, "")
            assert set(words) <= {item.value for item in found}


def test_forms_with_parameters_pass() -> None:
    """Proposals are no fence: what a verb accepts is the verb's matter."""
    for words in (["--rule", "percentile:12.5"], ["--preprocess", "mine.toml"], ["--data", "module:callable"]):
        with app.commands["quantize"].make_context("quantize", ["model.onnx", *words]) as context:
            assert words[1] in str(context.params)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_with_the_line_of_the_documentation(tmp_path: Path) -> None:
    """As a user sees it: the documented line, then the function that it defines, asked for the next word."""
    page = (Path(__file__).parents[2] / "docs" / "terminal.md").read_text(encoding="utf-8")
    line = next(text for text in page.splitlines() if text.startswith("eval"))
    script = f"""{line}
        COMP_WORDS=(quantkit calibrate --backend onnx); COMP_CWORD=3
        _quantkit_completion quantkit; echo "${{COMPREPLY[@]}}" """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-c", f"compopt() {{ :; }}\n{script}"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "onnxruntime\n", done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script(shell: str, tmp_path: Path) -> None:
    variables = {**os.environ, "_QUANTKIT_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-m", "quantkit"], env=variables, capture_output=True, text=True, check=True)
    assert f"_QUANTKIT_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell):
        (tmp_path / "script").write_text(done.stdout, encoding="utf-8")
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)

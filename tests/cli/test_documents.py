"""With --json or --markdown standard output is one document, whatever the user's own code writes there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantkit.cli import invoke

NOISE = """
import ctypes, logging, os, subprocess, sys, threading, time
import numpy as np

print("imported")

def noise():
    print("printed")
    sys.__stdout__.write("written\\n")
    os.write(1, b"by descriptor\\n")
    logging.basicConfig(stream=sys.stdout, level=0)
    logging.info("logged")
    libc = ctypes.CDLL(None)
    libc.puts(b"from C")
    libc.fflush(None)
    subprocess.run(["echo", "by another program"])
    def forever():
        while True:
            os.write(1, b"in the background\\n")
            time.sleep(0.001)
    threading.Thread(target=forever, daemon=True).start()

def batches():
    noise()
    yield {"x": np.linspace(-1, 1, 24, dtype="f4").reshape(4, 6)}

def printing():
    print("printed")
    yield {"x": np.linspace(-1, 1, 24, dtype="f4").reshape(4, 6)}

def failing():
    yield from batches()
    raise OSError(28, "no space left in my code")

def score(outputs, labels):
    print("scored")
    return (np.argmax(outputs, 1) == labels).astype(float)
"""


@pytest.fixture(name="here")
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    values = np.random.default_rng(0).standard_normal((8, 6)).astype("f4")
    np.savez(tmp_path / "x.npz", x=values, y=np.arange(8) % 5)
    (tmp_path / "noisy_plugin.py").write_text(NOISE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["calibrate", "m.onnx", "--data", "noisy_plugin:batches"], 0),
        (["calibrate", "m.onnx", "--data", "noisy_plugin:failing"], 1),
        (["evaluate", "m.onnx", "--data", "x.npz", "--metric", "noisy_plugin:score"], 0),
        (["calibrate", "m.onnx", "--data", "noisy_plugin:nothing"], 2),
    ],
)
def test_the_program_writes_one_document(arguments: list[str], code: int, here: Path) -> None:
    command = [sys.executable, "-m", "quantkit", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    document = json.loads(done.stdout)
    assert ("error" in document) == (code != 0)
    assert "imported" in done.stderr
    if "batches" in arguments[-1]:
        for text in ("printed", "written", "by descriptor", "logged", "from C", "by another program"):
            assert text in done.stderr


def test_a_command_line_in_this_process_writes_one_document(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["calibrate", "m.onnx", "--data", "noisy_plugin:printing"],
        ["evaluate", "m.onnx", "--data", "x.npz", "--metric", "noisy_plugin:score"],
    ):
        assert invoke([*arguments, "--json"]) == 0
        printed: Any = capsys.readouterr()
        json.loads(printed.out)
        assert "printed" in printed.err or "scored" in printed.err


def test_markdown_is_a_document_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["evaluate", "m.onnx", "--data", "x.npz", "--metric", "noisy_plugin:score", "--markdown"]
    assert invoke(call) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("8 samples")
    assert "scored" in printed.err
    assert invoke([*call[:1], "none.onnx", *call[2:]]) == 1
    assert capsys.readouterr().out == ""


def test_help_stays_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["calibrate", "--help", "--json"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_errors_list_the_calls_of_the_users_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "deep_plugin.py").write_text(
        "def inner(depth):\n    return 1 / 0 if depth == 0 else inner(depth - 1)\n"
        "def batches():\n    yield inner(20)\n"
        "class Silent(Exception):\n    def __str__(self): raise RuntimeError('no text')\n"
        "def silent():\n    raise Silent\n    yield\n"
        "def ragged():\n    yield {'x': [[1, 2], [3]]}\n",
        encoding="utf-8",
    )
    assert invoke(["calibrate", "m.onnx", "--data", "deep_plugin:batches"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("batch 1 of the stream: ZeroDivisionError: division by zero (deep_plugin.py, line 2):")
    assert lines[1] == "    deep_plugin.py, line 4, in batches: yield inner(20)"
    assert len(lines) == 8
    assert lines[-1] == "  → fix the code that makes the batches: deep_plugin:batches"
    assert invoke(["calibrate", "m.onnx", "--data", "deep_plugin:silent"]) == 1
    assert "Silent (deep_plugin.py, line 8)" in capsys.readouterr().err
    assert invoke(["calibrate", "m.onnx", "--data", "deep_plugin:ragged"]) == 1
    assert "batch 1 of the stream: a value of type dict cannot be read: ValueError" in capsys.readouterr().err


def test_memory_that_does_not_suffice_is_one_line(
    monkeypatch: pytest.MonkeyPatch, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("quantkit.data.sample_feed.stack_samples", exhausted)
    assert invoke(["calibrate", "m.onnx", "--data", "x.npz"]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[0] == "quantkit: memory does not suffice"
    assert "--batch-size" in printed.err
    assert not list(here.glob("m.calib*"))

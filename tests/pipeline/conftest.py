"""A small network with images, and the command line as a function."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "calibration_data"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the bundled network (`net/model.onnx`) and 60 of its images (`imgs/`)."""
    (tmp_path / "net").mkdir()
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copy(BUNDLED / name, tmp_path / "net" / name)
    for digit in range(10):
        (tmp_path / "imgs" / str(digit)).mkdir(parents=True)
        for image in sorted((BUNDLED / "images" / str(digit)).iterdir())[:6]:
            shutil.copy(image, tmp_path / "imgs" / str(digit) / image.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def quantkit_command(tmp_path: Path) -> Command:
    """`quantkit …` in a process of its own, in the working directory."""

    def run(*arguments: object, code: int | None = 0, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "quantkit", *map(str, arguments)],
            cwd=folder or tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", str(ROOT))])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def quantkit_json(quantkit_command: Command) -> Callable[..., Any]:
    """`quantkit … --json` as a document."""
    return lambda *arguments, **options: json.loads(quantkit_command(*arguments, "--json", **options).stdout)


def network(
    nodes: list[Any], inputs: dict[str, list[Any]], outputs: list[str], weights: dict[str, Any] | None = None
) -> onnx.ModelProto:
    """An ONNX model of float32 inputs."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(w), name) for name, w in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

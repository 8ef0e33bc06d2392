"""The zoo: its figures have no fault, and the script tells what works, what is refused and what does not load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = BENCHMARKS / "results" / "zoo.json"


def test_nothing_in_the_zoo_is_at_fault() -> None:
    document = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert document["summary"]["networks"] >= 150
    assert document["summary"]["faults"] == 0
    assert all(row["stages"]["load"] == "ok" for row in document["rows"])
    for stage, outcomes in document["summary"]["stages"].items():
        assert sum(outcomes.values()) == document["summary"]["networks"], stage


def save(path: Path, nodes: list[Any], inputs: list[Any], weights: dict[str, Any]) -> None:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(np.float32(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "net", inputs, [output], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.slow
def test_the_script_takes_a_folder_through_all_stages(tmp_path: Path) -> None:
    folder = tmp_path / "nets"
    folder.mkdir()
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])
    weights = {"w": np.random.default_rng(0).normal(size=(8, 4))}
    save(folder / "good.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [x], weights)
    save(folder / "plain.onnx", [helper.make_node("Relu", ["x"], ["y"])], [x], {})
    texts = helper.make_tensor_value_info("x", TensorProto.STRING, ["N"])
    save(folder / "texts.onnx", [helper.make_node("StringSplit", ["x"], ["y"])], [texts], {})
    (folder / "broken.onnx").write_bytes(b"no network")
    command = [sys.executable, str(BENCHMARKS / "zoo.py"), str(folder), "--json", str(tmp_path / "zoo.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    document = json.loads((tmp_path / "zoo.json").read_text(encoding="utf-8"))
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("nets/")}
    assert set(lines["nets/good"].split()[3:10]) == {"ok"}
    assert "1/1" in lines["nets/good"]
    assert "refused" in lines["nets/plain"]
    assert "refused" in lines["nets/texts"]
    assert "refused" in lines["nets/broken"]
    assert "made-up inputs, 0 with a fault" in done.stdout, done.stdout
    assert document["summary"]["networks"] == 4
    assert done.returncode == 0

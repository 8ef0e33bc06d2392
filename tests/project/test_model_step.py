"""A run makes its Q/DQ model as `quantize --data` does, and says the same about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import quantkit
from quantkit.cli.run import print_run
from quantkit.project.run import run, run_document
from quantkit.project.settings import EvaluateSettings, Settings
from tests.support.qdq import model_of


def test_a_run_chooses_as_quantize_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    text = "(float[N, 8] x) => (float[N, 4] y) { h = Gemm(x, w) r = Relu(h) y = Gemm(r, v) }"
    weights = {name: random.normal(size=size).astype(np.float32) for name, size in (("w", (8, 8)), ("v", (8, 4)))}
    onnx.save(model_of(text, 17, **weights).proto, "net.onnx")
    np.save("x.npy", random.normal(size=(128, 8)).astype(np.float32))
    settings = Settings(
        model="net.onnx", data="x.npy", preprocess="raw", compile=False, evaluate=EvaluateSettings(layers=False)
    )
    made, again = run(settings), run(settings)
    statistics = made.files["net.stats.safetensors"]
    other = quantkit.quantize("net.onnx", statistics=statistics, data="x.npy", preprocess="raw")
    assert made.held_out is not None
    assert made.held_out == again.held_out == other.held_out
    written = onnx.load(made.files["net.int8.onnx"])
    assert written.graph == other.proto.graph
    assert json.loads(json.dumps(run_document(made)))["held_out"]["held"] == 32
    page = made.files["report.html"].read_text(encoding="utf-8")
    assert all(f"the Q/DQ model: {line}" in page for line in made.held_out.lines)
    capsys.readouterr()
    print_run(made)
    assert " ".join(capsys.readouterr().out.split()).count("held out") == len(made.held_out.lines)

"""Clips before Q on a GPU, replayed: which TensorRT 8.6 computes wrongly is what the graph tells."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from quantkit.engines.build import find_clip_faults
from quantkit.graph import load_model
from quantkit.linting.fix import fix_model
from quantkit.linting.registry import lint_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DOCUMENT: dict[str, Any] = json.loads((BENCHMARKS / "results" / "clips.json").read_text(encoding="utf-8"))
NETWORKS: dict[str, float] = DOCUMENT["sqnr_db"]
WRONG, RIGHT = 4.0, 50.0


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("clips", BENCHMARKS / "clips.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_network_was_measured(script: Any) -> None:
    assert set(script.NETWORKS) == set(NETWORKS)
    assert all(figure < WRONG for figure in DOCUMENT["settings_db"].values())
    assert {"gpu", "tensorrt", "date"} == set(DOCUMENT["machine"])


@pytest.mark.parametrize("name", NETWORKS)
def test_what_lint_finds_is_what_the_engine_computes_wrongly(name: str, script: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(script.network(name), path)
    model = load_model(path)
    assert NETWORKS[name] < WRONG or NETWORKS[name] > RIGHT
    assert ("clip-apart" in {f.rule for f in lint_model(model)}) == (NETWORKS[name] < WRONG)
    mended, found = fix_model(model)
    assert ("clip-apart" in {f.rule for f in found}) == (NETWORKS[name] < WRONG)
    assert "clip-apart" not in {f.rule for f in lint_model(replace(model, proto=mended))}


def test_a_build_on_that_version_says_so(script: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(script.network("Conv"), path)
    (warning,) = find_clip_faults(load_model(path), "8.6.0")
    assert "quantkit lint --fix" in warning
    assert find_clip_faults(load_model(path), "10.3.0") == ()
    onnx.save(script.network("INT8 Conv"), path)
    assert find_clip_faults(load_model(path), "8.6.0") == ()

"""Networks from model to report on a GPU, replayed: pages and recommendations follow from the figures.

`pytest --regen` writes pages and recommendations again from the measured figures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from quantkit.project.recommendation import recommendation

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results" / "deployment").glob("*.json"))
PRECISIONS = {"fp32", "tf32", "fp16", "int8"}


@pytest.fixture(scope="module")
def deployment() -> Any:
    """The benchmark as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import deployment
    finally:
        sys.path.remove(str(BENCHMARKS))
    return deployment


@pytest.fixture(autouse=True, scope="module")
def regenerated(deployment: Any, request: pytest.FixtureRequest) -> None:
    """With `--regen`, the pages and recommendations as they follow from the figures today."""
    for path in RESULTS if request.config.getoption("--regen") else ():
        content = json.loads(path.read_text(encoding="utf-8"))
        content["recommendation"] = recommendation(*deployment.figures(content))
        path.write_text(deployment.document_text(content), encoding="utf-8")
        path.with_suffix(".html").write_text(deployment.page(content), encoding="utf-8")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_page_is_made_of_the_figures(path: Path, deployment: Any) -> None:
    assert path.with_suffix(".html").read_text(encoding="utf-8") == deployment.page(json.loads(path.read_text()))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_precision_ran_with_streams_and_graphs(path: Path, deployment: Any) -> None:
    content = json.loads(path.read_text())
    evaluation, bench = deployment.figures(content)
    assert bench.on_gpu
    assert {subject.precision for subject in bench.subjects} == PRECISIONS
    assert len(bench.subjects) == len(PRECISIONS) + 1, "INT8 of the table, and of Q/DQ"
    assert {(t.streams, t.graph) for t in bench.throughputs} == {(s, g) for s in (1, 2, 4) for g in (False, True)}
    assert {s.name for s in bench.subjects} <= {m.name for m in evaluation.models}
    assert content["recommendation"] == recommendation(evaluation, bench)
    assert "tmp" not in path.read_text()


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_engines_compute_what_onnxruntime_computes(path: Path, deployment: Any) -> None:
    """FP32 to rounding; INT8 is a loss that is told."""
    evaluation, _ = deployment.figures(json.loads(path.read_text()))
    scores = {model.name: model for model in evaluation.models}
    exact = scores[f"{path.stem}.fp32.engine"]
    assert min(output.sqnr_db for output in exact.outputs) > 80
    if evaluation.metric:
        assert evaluation.samples == 10_000
        assert abs(exact.difference.value) <= 0.02
        qdq, simulated = scores[f"{path.stem}.qdq.engine"], scores[f"{path.stem}.int8.onnx"]
        assert abs(qdq.difference.value - simulated.difference.value) <= 0.1

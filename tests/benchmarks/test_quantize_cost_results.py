"""What quantize costs, replayed: the law of its memory holds for every network, and it takes less than before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "quantize_cost.json"
RUNS: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))["runs"]
NOW = [run for run in RUNS if run["checkout"] == "now"]
TIMES = 3.0
BESIDE = {"yolov8n": 1200.0}
"""The law: times the model, and megabytes beside that: activations, what `round` holds, and tables of rules. yolov8n
has the largest activations, 100 times as many values an image as the others."""
SMALL = 500.0


def before(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs of the release before that stand beside a run."""
    same = [other for other in RUNS if all(other[key] == run[key] for key in ("network", "way", "repeat"))]
    return [other for other in same if other["checkout"] == "before"]


def test_trained_networks_and_heavy_ones_were_measured_in_pairs() -> None:
    assert not any(run["failure"] for run in RUNS)
    measured = {(run["network"], run["way"]) for run in NOW}
    trained = ("resnet20", "mobilenetv2", "vit", "yolov8n")
    assert measured >= {(name, way) for name in trained for way in ("statistics", "data")}
    heavy = ("products-200", "convolutions-200", "products-600")
    assert measured >= {(name, "statistics") for name in heavy}
    assert all(before(run) for run in NOW if run["network"] in trained or run["way"] == "statistics")


@pytest.mark.parametrize("run", NOW, ids=lambda run: f"{run['network']}, {run['way']}")
def test_the_peak_is_within_the_law_and_under_the_one_before(run: dict[str, Any]) -> None:
    assert run["above_idle_mb"] < TIMES * run["model_mb"] + BESIDE.get(run["network"], SMALL)
    if run["network"].startswith(("products", "convolutions")):
        assert run["times_model"] < TIMES
    assert all(run["above_idle_mb"] < other["above_idle_mb"] for other in before(run))

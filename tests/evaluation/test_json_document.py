"""An evaluation in JSON: what older versions wrote can still be read."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from quantkit.evaluation.compare import compare
from quantkit.evaluation.json_document import evaluation_json, parse_evaluation, parse_method
from quantkit.evaluation.result import Device, IntervalMethod

RESULTS = Path(__file__).parents[2] / "benchmarks/results/deployment"
FILES = sorted(RESULTS.glob("*.json"))
"""Evaluations that an older version wrote."""
OLD_PLACE = "onnxruntime 1.32.0, processor (16 cores)"


def older(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))["evaluation"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_evaluations_of_older_versions_are_read(path: Path) -> None:
    document = older(path)
    evaluation = parse_evaluation(document, path.name)
    for model in evaluation.models:
        assert model.speed is not None
        assert model.speed.device is (Device.CPU if model.speed.where == OLD_PLACE else Device.GPU)
    for model in evaluation.candidates:
        assert model.difference is None or model.difference.method is not IntervalMethod.UNKNOWN
    for new, old in zip(evaluation_json(evaluation)["models"], document["models"], strict=True):
        several = len(old["outputs"]) > 1  # older versions gave the figures of the first output, not of the worst
        kept = old.keys() - ({"sqnr_db", "cosine"} if several else set())
        assert {key: new[key] for key in kept} == {key: old[key] for key in kept}


def test_older_evaluations_are_compared_with_new_ones(tmp_path: Path) -> None:
    document = older(RESULTS / "resnet20.json")
    newer = deepcopy(document)
    for model in newer["models"]:
        model["speed"]["where"] = model["speed"]["where"].replace("processor", "CPU")
    for name, content in (("a.json", document), ("b.json", newer)):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    comparison = compare([tmp_path / "a.json", tmp_path / "b.json"])
    assert all(move.drop in (None, 0.0) for move in comparison.moves)
    first, second = (run.evaluation.models for run in comparison.runs)
    assert [m.speed and m.speed.device for m in first] == [m.speed and m.speed.device for m in second]


@pytest.mark.parametrize(
    ("text", "method", "replicates"),
    [
        ("Bonett-Price interval, McNemar's test (mid-p)", IntervalMethod.CHANGED_SAMPLES, 0),
        ("paired bootstrap, BCa, 5,000 replicates", IntervalMethod.BOOTSTRAP_MEAN, 5000),
        ("paired bootstrap of the whole set, percentiles, 1,000 replicates", IntervalMethod.BOOTSTRAP_SET, 1000),
        ("every sample has the same score", IntervalMethod.EQUAL_SCORES, 0),
        ("every sample differs alike: no interval", IntervalMethod.EQUAL_CHANGES, 0),
        ("only the value is known: no interval", IntervalMethod.VALUE_ONLY, 0),
        ("no draw of samples has a figure: no interval", IntervalMethod.NO_RESAMPLES, 0),
        ("a method of the future, 7 replicates", IntervalMethod.UNKNOWN, 0),
    ],
)
def test_methods_of_all_versions_are_read(text: str, method: IntervalMethod, replicates: int) -> None:
    assert parse_method(text) == (method, replicates)

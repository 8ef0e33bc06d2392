"""The one rule for the fastest precision inside a budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantkit.engines.choice import TimedEngine, fastest_within_budget, is_faster, precision_rank

RESULTS = Path(__file__).parents[2] / "benchmarks/results/gpu_acceptance.json"
FP32 = TimedEngine("a.fp32.engine", "fp32", 3.0, 0.0)
FP16 = TimedEngine("a.fp16.engine", "fp16", 1.02, 0.1)
INT8 = TimedEngine("a.int8.engine", "int8", 1.0, 0.6)


def test_simpler_precision_wins_if_it_is_as_fast() -> None:
    assert fastest_within_budget([INT8, FP16, FP32]) == FP16


def test_faster_engine_wins_inside_the_budget() -> None:
    fast = TimedEngine("b.int8.engine", "int8", 0.9, 0.6)
    assert fastest_within_budget([fast, FP16, FP32], 1.0) == fast
    assert fastest_within_budget([fast, FP16, FP32], 0.5) == FP16


def test_no_engine_is_inside_the_budget() -> None:
    assert fastest_within_budget([INT8], 0.5) is None
    assert fastest_within_budget([]) is None


def test_unknown_loss_counts_as_inside() -> None:
    unknown = TimedEngine("c.int8.engine", "int8", 0.5)
    assert fastest_within_budget([unknown, FP16], 0.0) == unknown


def test_unknown_precision_comes_last() -> None:
    assert sorted(["?", "best", "int8", "fp32"], key=precision_rank) == ["fp32", "int8", "best", "?"]


@pytest.mark.parametrize(("network", "batch"), [("vit", "1"), ("vit", "32"), ("vit", "256")])
def test_threshold_exceeds_the_measured_spread(network: str, batch: str) -> None:
    """ViT's INT8 engines hold no INT8 layer: they are its FP16 engine under another name."""
    engines = json.loads(RESULTS.read_text(encoding="utf-8"))[network]["figures"]["engines"]
    best = {name: min(engines[name]["latency_ms"][batch].values()) for name in engines}
    twins = [best["fp16"], best["int8 TensorRT's table"], best["int8 CPU's table"]]
    assert not is_faster(max(twins) / min(twins))


@pytest.mark.parametrize(("network", "batch"), [("resnet20", "1"), ("mobilenetv2", "1"), ("mobilenetv2", "32")])
def test_threshold_is_below_the_measured_gains(network: str, batch: str) -> None:
    engines = json.loads(RESULTS.read_text(encoding="utf-8"))[network]["figures"]["engines"]
    best = {name: min(engines[name]["latency_ms"][batch].values()) for name in engines}
    assert is_faster(best["fp16"] / best["int8 CPU's table"])

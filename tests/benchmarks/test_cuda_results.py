"""What was measured of counting on a GPU: the same counts, and close to what onnxruntime takes alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RESULT: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "benchmarks" / "results" / "cuda_counts.json").read_text(encoding="utf-8")
)
GOAL = 1.5
"""Times that plain onnxruntime may be faster, with the same outputs on the same GPU and nothing counted."""


@pytest.mark.parametrize("case", RESULT["equal"])
def test_the_gpu_counted_what_the_cpu_counts(case: str) -> None:
    found = RESULT["equal"][case]
    assert found["arrays that differ"] == []
    assert found["values counted"] > 10_000_000
    assert len(found["tensors without a scale"]) <= 1


@pytest.mark.parametrize("mode", ["tensorrt", "invariant"])
def test_counting_costs_less_than_half_of_running(mode: str) -> None:
    floor = RESULT["floor"]["batches of 64"]["input on the GPU"]["images_per_second"]
    assert floor < GOAL * RESULT["gpu"][f"ready batches, {mode}"]["images_per_second"]
    assert RESULT["gpu"][f"ready batches, {mode}"]["images"] == 4096

"""Engines beside onnxruntime, tensor by tensor, replayed: where the threshold between error and rounding lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantkit.pipeline.parity import PART, TensorParity, judged

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "parity.json"
NETWORKS: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))["networks"]


@pytest.mark.parametrize("network", NETWORKS)
def test_rounding_is_no_kernel_error(network: str) -> None:
    found = NETWORKS[network]
    tensors = tuple(TensorParity(**tensor) for tensor in found["tensors"])
    assert min(tensor.sqnr_db for tensor in tensors) == found["least_db"] > PART + 9
    assert tensors[-1].sqnr_db == found["output_db"]
    made = judged(tensors, tensors[-1:], ())
    assert made.parts == ""
    assert made.verdict == found["verdict"]

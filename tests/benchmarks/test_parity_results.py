"""Engines beside onnxruntime, tensor by tensor, replayed: where the threshold between error and rounding lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantkit.sensitivity.parity import DIVERGENCE, TensorParity, judge_parity

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "parity.json"
NETWORKS: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))["networks"]


BROKEN = "mobilenetv2_partly_float"


def tensors(network: str, which: str) -> tuple[TensorParity, ...]:
    return tuple(TensorParity(**tensor) for tensor in NETWORKS[network][which])


@pytest.mark.parametrize("network", NETWORKS)
def test_rounding_is_no_kernel_error(network: str) -> None:
    found, shown = NETWORKS[network], tensors(network, "tensors")
    assert min(tensor.sqnr_db for tensor in shown) == found["least_db"] > DIVERGENCE + 9
    assert shown[-1].sqnr_db == found["output_db"]
    assert judge_parity(shown, shown[-1:], ()).parts == ""


@pytest.mark.parametrize("network", NETWORKS)
def test_the_verdict_is_that_of_both_engines(network: str) -> None:
    found, fused = NETWORKS[network], tensors(network, "outputs")
    made = judge_parity(tensors(network, "tensors"), fused, ())
    assert made.parts == found["parts"]
    assert made.verdict.partition(":")[0] == found["verdict"].partition(":")[0]
    assert fused[-1].sqnr_db == found["fused_output_db"]


def test_an_error_hides_where_tensors_are_shown() -> None:
    assert NETWORKS[BROKEN]["output_db"] > DIVERGENCE > 0 > NETWORKS[BROKEN]["fused_output_db"]
    assert NETWORKS[BROKEN]["parts"] == "logits"

"""The estimates beside measured times, replayed: sources, sums, correlations, and what the terminal says of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from quantkit.compiling import roofline as estimates
from quantkit.compiling.gpus import GPUS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULT: dict[str, Any] = json.loads((BENCHMARKS / "results" / "roofline.json").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = RESULT["cases"]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import roofline

        yield roofline
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_every_engine_that_was_timed_has_its_estimate(script: ModuleType) -> None:
    places = [(one.network, one.variant, one.batch, one.file, one.place) for one in script.timed()]
    assert [(c["network"], c["variant"], c["batch"], c["file"], c["place"]) for c in CASES] == places
    assert all(c["measured"] == script.measured_at(c["file"], c["place"]) for c in CASES)


def test_estimates_are_the_sums_of_their_parts() -> None:
    for c in CASES:
        assert c["estimated"] == pytest.approx(c["compute"] + c["memory"] + c["launch"])
        assert c["launch"] == pytest.approx(c["kernels"] * estimates.LAUNCH / 1e3)
        assert c["fused"] <= c["estimated"] + 1e-12
        assert c["unknown"] == 0
    gpu = GPUS["h200"]
    assert RESULT["gpu"]["peaks"] == dict(gpu.peaks)
    assert (RESULT["gpu"]["bandwidth"], RESULT["launch_microseconds"]) == (gpu.bandwidth, estimates.LAUNCH)


def test_the_correlations_are_those_of_the_cases(script: ModuleType) -> None:
    """Up to scipy's last digits."""
    again = json.loads(json.dumps(script.summary(CASES)))
    for part, found in again["latency"].items():
        assert RESULT["summary"]["latency"][part] == pytest.approx(found)
    assert RESULT["summary"]["speedup"] == pytest.approx(again["speedup"])
    assert RESULT["speedups"] == script.speedups(CASES)


def test_what_the_terminal_says_of_estimates_was_measured() -> None:
    latency, speedup = RESULT["summary"]["latency"]["all"], RESULT["summary"]["speedup"]
    assert (latency["cases"], round(latency["spearman"], 2)) == (estimates.ENGINES, estimates.SPEARMAN)
    assert round(RESULT["summary"]["latency"]["batch 1"]["spearman"], 2) == estimates.SPEARMAN_AT_1
    assert (speedup["cases"], speedup["agree"]) == (estimates.PAIRS, estimates.RIGHT)


def test_ratios_are_not_to_be_trusted() -> None:
    """If a better estimate ever ranks them, page and terminal have to say so."""
    assert RESULT["summary"]["speedup"]["spearman"] < 0
    assert RESULT["summary"]["speedup_fused"]["spearman"] < 0
    assert all(one["estimated"] < 1 for one in RESULT["speedups"])

"""What TensorRT-RTX makes of six networks, replayed: page and figures agree, and say what docs/compile.md says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULT: dict[str, Any] = json.loads((BENCHMARKS / "results" / "compile.json").read_text(encoding="utf-8"))
NETWORKS = [(name, sm, found) for name, case in RESULT["cases"].items() for sm, found in case["networks"].items()]
each = pytest.mark.parametrize(("name", "architecture", "found"), NETWORKS, ids=lambda value: str(value)[:20])


def test_the_page_is_made_of_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import importlib.util

    spec = importlib.util.spec_from_file_location("benchmark_of_compile", BENCHMARKS / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.page(RESULT) == (BENCHMARKS / "results" / "compile.md").read_text(encoding="utf-8")
    assert set(RESULT["cases"]) == set(script.NETWORKS)
    assert all(set(case["networks"]) == set(script.ARCHITECTURES) for case in RESULT["cases"].values())


@each
def test_counts_fit_each_other(name: str, architecture: str, found: dict[str, Any]) -> None:
    assert set(found) == {"qdq", "qdq_fp16", "fp16"}
    for figures in found.values():
        assert sum(figures["kinds"].values()) == figures["kernels"] >= figures["products"]
        assert figures["int8_products"] + figures["float_operands"] <= figures["products"]
        assert figures["mib_detours"] <= 2 * figures["mib_moved"]
    assert found["fp16"]["int8_products"] == found["fp16"]["detours"] == found["qdq_fp16"]["float_operands"] == 0
    assert found["qdq"]["int8_products"] <= found["qdq_fp16"]["int8_products"]


@each
def test_most_products_are_int8_and_their_sums_leave_it(name: str, architecture: str, found: dict[str, Any]) -> None:
    """As the page says: INT8 in the kernels, and more bytes than FP16 all the same."""
    share = found["qdq"]["int8_products"] / found["qdq"]["products"]
    assert share > (0.6 if name == "vit" else 0.84)
    assert found["qdq"]["detours"] > 0
    assert found["qdq"]["mib_moved"] > found["fp16"]["mib_moved"]

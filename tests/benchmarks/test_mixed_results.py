"""What INT8, FP8 and mixes of both measured, replayed: what the page and the guide claim has to be in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "mixed.json"
DOCUMENT = json.loads(RESULTS.read_text(encoding="utf-8"))
NETWORKS: dict[str, Any] = DOCUMENT["networks"]


def test_the_page_shows_these_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from mixed import page

    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == page(DOCUMENT)


@pytest.mark.parametrize("name", ["resnet20", "vit"])
def test_int8_is_chosen_because_fp8_gains_nothing(name: str) -> None:
    found = NETWORKS[name]
    assert found["layers"] > 20, "INT8 alone kept the budget, and nothing was compared"
    assert found["samples"] >= 500
    assert found["chosen"] == "INT8"
    assert found["note"].startswith("INT8 is chosen")
    figures = {kind: row["sqnr_db"] for kind, row in found["variants"].items() if row["sqnr_db"] is not None}
    assert figures["FP8"] < figures["by hand"] < figures["INT8"]


@pytest.mark.parametrize("name", ["resnet20", "vit"])
@pytest.mark.parametrize("architecture", ["sm89", "sm120"])
def test_the_compiler_computes_a_mix_in_its_types(name: str, architecture: str) -> None:
    found = NETWORKS[name]
    types, network = found["variants"]["by hand"], found["compiled"]["by hand"][architecture]
    assert network["fp8_products"] == types["fp8_layers"] > 0
    missing = types["int8_layers"][0] - network["int8_products"]
    alone = found["variants"]["INT8"]["int8_layers"][0] - found["compiled"]["INT8"][architecture]["int8_products"]
    assert 0 <= missing <= alone, "a product that is INT8 in a network of INT8 is so in the mix"

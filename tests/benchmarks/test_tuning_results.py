"""What tune made of broken networks, replayed: what the page and the guide claim has to be in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "tuning.json"
DOCUMENT = json.loads(RESULTS.read_text(encoding="utf-8"))
CASES: dict[str, Any] = DOCUMENT["cases"]
BUDGET, EVALUATIONS, MOST = 0.5, 20, 0.1
HARMED = [name for name, case in CASES.items() if case["untuned"]["drop"] > BUDGET]
KEPT = [name for name, case in CASES.items() if case["kept"]]


def test_the_page_shows_these_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from tuning import rendered

    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == rendered(DOCUMENT)


@pytest.mark.parametrize("name", CASES)
def test_every_network_is_back_inside_the_budget_on_held_out_samples(name: str) -> None:
    case = CASES[name]
    assert case["samples"] == [5000, 5000]
    assert case["tuned"]["drop"] <= BUDGET
    assert case["kept"] <= MOST * case["layers"]
    assert case["evaluations"] <= EVALUATIONS


def test_a_network_broken_on_purpose_and_a_transformer_are_among_them() -> None:
    assert any(name.startswith("resnet20, a channel") for name in HARMED)
    assert any(name.startswith("resnet20, a scale") for name in HARMED)
    assert "vit, everything by minmax" in CASES
    assert any(name.startswith("vit") for name in HARMED)
    assert len([name for name in KEPT if name in HARMED]) >= 2


@pytest.mark.parametrize("name", KEPT)
def test_as_many_of_the_first_layers_are_worse(name: str) -> None:
    case = CASES[name]
    assert case["first_layers"]["drop"] > case["tuned"]["drop"]


def test_the_front_takes_what_it_took() -> None:
    from quantkit.engines.choice import TimedEngine, fastest_within_budget
    from quantkit.tuning.pareto_front import advise_on_front
    from quantkit.tuning.result import FrontPoint

    content = json.loads(RESULTS.with_name("front.json").read_text(encoding="utf-8"))
    points = tuple(FrontPoint(**point) for point in content["front"])
    assert {point.precision for point in points} == {"fp32", "fp16", "int8"}
    engines = [TimedEngine(p.name, p.precision, p.milliseconds, p.drop) for p in points]
    best = fastest_within_budget(engines, content["max_drop"])
    assert [engine is best for engine in engines] == [point.chosen for point in points]
    assert advise_on_front(points, content["max_drop"]) == (
        "INT8 is not worth it here: FP16 is within the budget and just as fast",
    )

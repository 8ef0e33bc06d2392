"""The page of a tuning: why each way was tried, which was taken, and the engines by change and by speed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from quantkit.report.html import tuning_page
from quantkit.tuning.result import Figure, FrontPoint, Tuning
from quantkit.tuning.trial import RankingBasis, Recipe, Trial, TrialStatus
from tests.report.test_html import SVG, sound
from tests.support.reports import EVALUATIONS, NUMBERS, SENSITIVITIES, TEXTS, candidate, evaluation, layer

FIGURES = st.builds(Figure, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
RECIPES = st.builds(Recipe, TEXTS, st.lists(TEXTS, max_size=4).map(tuple), st.lists(TEXTS, max_size=3).map(tuple))
TRIALS = st.builds(
    Trial, RECIPES, TEXTS, TEXTS, st.sampled_from(TrialStatus), NUMBERS, st.none() | FIGURES, st.floats(0, 1), TEXTS
)
POINTS = st.builds(FrontPoint, TEXTS, TEXTS, st.none() | NUMBERS, NUMBERS, st.booleans())

FIRST = Trial(Recipe("mse"), "rule", "all layers quantized with the first rule", TrialStatus.OVER, 21.5)
CHOSEN = Trial(
    Recipe("mse", ("bias",), ("conv1",)),
    "layers",
    "2 are enough",
    TrialStatus.MET,
    30.2,
    Figure(0.91, 0.2, 0.1, 0.3, 0.05),
    0.25,
)
ENGINES = (
    FrontPoint("net.fp16.engine", "fp16", 0.01, 0.5),
    FrontPoint("net.tuned.int8.engine", "int8", 0.21, 0.25, chosen=True),
    FrontPoint("net.fp32.engine", "fp32", None, 1.0),
)


def tuning(**changes: Any) -> Tuning:
    """A network that kept a layer in float."""
    given: dict[str, Any] = {
        "model": "net.onnx",
        "metric": "top1",
        "share": True,
        "max_drop": 0.5,
        "layers": 20,
        "reference": 0.9118,
        "trials": (FIRST, CHOSEN),
        "chosen": CHOSEN,
        "held": True,
        "report": evaluation(candidate()),
        "untuned": Figure(0.8, 11.0, 10.0, 12.0, 0.5),
        "tuned": Figure(0.9097, 0.21, 0.1, 0.32, 0.05),
        "samples": (5000, 5000),
        "evaluations": 6,
        "ranking": (layer("conv1"), layer("head", 0.1)),
        "rules": {},
        "front": (),
        "notes": ("tuned on 5,000 samples",),
        "provenance": {"quantkit": "0.1.0"},
        "ranked": RankingBasis(Recipe("mse", ("bias",)), 27.4, 64),
        "machine": "NVIDIA H200",
        "seconds": 61.0,
    }
    return Tuning(**(given | changes))


def test_every_trial_has_its_reason_and_outcome() -> None:
    text = sound(tuning_page(tuning())).text
    for said in (
        FIRST.why,
        FIRST.outcome,
        CHOSEN.why,
        "chosen",
        "mse, bias, 1 float",
        "Kept in float, with 25.0 % of the weights",
    ):
        assert said in text
    assert "loses 0.21 percentage points of top-1 on 5,000 held-out samples" in text
    assert "Layers with the largest loss" in text


def test_the_budget_is_judged_on_the_held_out_part() -> None:
    assert "within the budget of 0.5 percentage points" in sound(tuning_page(tuning())).text
    lost = replace(CHOSEN.figure, drop=0.7)  # type: ignore[type-var]
    assert "within the budget of 1 percentage point." in sound(tuning_page(tuning(max_drop=1.0))).text
    assert "over the budget of 0.5 percentage points" in sound(tuning_page(tuning(tuned=lost))).text


def test_engines_are_drawn_where_they_were_built() -> None:
    assert "Accuracy against speed" not in tuning_page(tuning())
    page = tuning_page(tuning(front=ENGINES))
    text = sound(page).text
    assert all(point.name in text for point in ENGINES)
    assert any("change of top-1, percentage points" in drawing for drawing in SVG.findall(page))
    one = sound(tuning_page(tuning(front=ENGINES[:1]))).text
    assert "net.fp16.engine" in one
    assert "timed alone on NVIDIA H200" in one
    assert "batches per second" not in one


def test_unranked_layers_have_no_section() -> None:
    assert "Layers with the largest loss" not in tuning_page(tuning(ranking=()))


def test_what_was_not_measured_is_left_empty() -> None:
    figure = Figure(0.9, 0.1, math.nan, math.nan, 0.0)
    page = tuning_page(tuning(trials=(replace(CHOSEN, proxy_db=math.nan, figure=figure),), ranking=()))
    assert "not a number" not in sound(page).text


def test_the_page_names_the_basis_of_the_layer_ranking() -> None:
    text = sound(tuning_page(tuning())).text
    assert "the SQNR of the outputs is 27.4 dB, measured on 64 samples" in text


@settings(max_examples=30)
@given(
    trials=st.lists(TRIALS, min_size=1, max_size=4).map(tuple),
    report=EVALUATIONS,
    front=st.lists(POINTS, max_size=4).map(tuple),
    ranking=SENSITIVITIES.map(lambda found: found.layers),
    tuned=FIGURES,
    share=st.booleans(),
    metric=TEXTS,
)
def test_any_names_and_figures_make_a_sound_page(trials: tuple[Trial, ...], **found: Any) -> None:
    made = tuning(trials=trials, chosen=trials[-1], **found)
    page = tuning_page(made)
    sound(page)
    assert page == tuning_page(made)

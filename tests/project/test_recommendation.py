"""One sentence: the fastest precision that keeps the budget, the simpler one where two are as fast."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.engines.bench_result import BenchResult, BenchSubject, Latency
from quantkit.evaluation.result import (
    Evaluation,
    IntervalMethod,
    MetricDifference,
    ModelKind,
    ModelScore,
    OutputDeviation,
)
from quantkit.project.recommendation import recommendation


def score(name: str, lost: float | None, kind: ModelKind = ModelKind.ENGINE) -> ModelScore:
    difference = (
        None
        if lost is None
        else MetricDifference(lost, lost - 0.1, lost + 0.1, 0.5, 1, 2, IntervalMethod.CHANGED_SAMPLES)
    )
    return ModelScore(name, kind, None, "", 1, {"top1": 0.9}, None, difference=difference)


def evaluation(losses: dict[str, float], max_drop: float | None = None) -> Evaluation:
    models = (
        score("m.onnx", None, ModelKind.FLOAT),
        *(score(f"m.{name}.engine", lost) for name, lost in losses.items()),
    )
    return Evaluation(models, 1000, "top1", True, (), (), {}, 1.0, max_drop)


def bench(times: dict[str, float]) -> BenchResult:
    subjects = tuple(BenchSubject(f"m.{name}.engine", "int8" if name == "qdq" else name, 1) for name in times)
    latencies = tuple(Latency(f"m.{name}.engine", 32, True, t, t, t, 9) for name, t in times.items())
    return BenchResult("a GPU", True, subjects, latencies)


TIMES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0}
LOSSES = {"fp32": 0.0, "fp16": 0.0, "int8": 0.3}


def test_the_fastest_within_the_budget() -> None:
    assert recommendation(evaluation(LOSSES), bench(TIMES)).startswith("Use INT8 (m.int8.engine): 1.000 ms at batch 32")


def test_over_the_budget_int8_is_not_worth_it() -> None:
    said = recommendation(evaluation(LOSSES, 0.2), bench(TIMES))
    assert said.startswith("Use FP16")
    assert said.endswith(
        "INT8 is not worth it here: it loses 0.30 percentage points, which exceeds the budget of 0.2 percentage points."
    )


@pytest.mark.parametrize("int8", [1.96, 2.0, 5.0])
def test_no_faster_is_not_worth_it(int8: float) -> None:
    said = recommendation(evaluation(LOSSES), bench(TIMES | {"int8": int8}))
    assert said.startswith("Use FP16")
    assert f"INT8 is not worth it here: {int8:.3f} ms compared with 2.000 ms." in said


def test_the_better_of_two_int8_engines() -> None:
    said = recommendation(evaluation(LOSSES | {"qdq": 0.1, "int8": 3.0}), bench(TIMES | {"qdq": 1.2}))
    assert said.startswith("Use INT8 (m.qdq.engine)")


def test_nothing_keeps_the_budget() -> None:
    said = recommendation(evaluation({"int8": 2.0}, 0.5), bench({"int8": 1.0}))
    assert said.startswith("Nothing is recommended: m.int8.engine loses least, 2.00 percentage points")


def test_without_a_gpu_speed_is_not_made_up() -> None:
    made = evaluation({})
    made = replace(
        made, models=(*made.models, score("m.int8.onnx", 0.1, ModelKind.QDQ), score("t", 0.7, ModelKind.TABLE))
    )
    said = recommendation(made, None)
    assert "m.int8.onnx loses 0.10 percentage points" in said
    assert " ms" not in said
    assert "exceeds the budget of 0.05 percentage points" in recommendation(replace(made, max_drop=0.05), None)
    assert recommendation(evaluation({}), None).startswith("Nothing is recommended")


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (-0.5, "gains 0.50 percentage points"),
        (-0.01, "gains 0.01 percentage points"),
        (-0.001, "shows no loss"),
        (0.0, "shows no loss"),
        (0.1, "loses 0.10 percentage points"),
    ],
)
def test_a_gain_is_called_one(lost: float, said: str) -> None:
    made = evaluation({"int8": lost})
    assert f"m.int8.engine {said}, which is within" in recommendation(made, None)
    assert f"it {said}." in recommendation(evaluation({"fp32": 0.0, "int8": lost}), bench(TIMES))
    error = replace(made, metric="rmse", share=False)
    amount = f"{'gains' if lost < 0 else 'loses'} {abs(lost):.3g} of rmse" if lost else "shows no loss"
    assert f"m.int8.engine {amount}" in recommendation(error, None)


def test_few_samples_are_no_proof() -> None:
    wide = replace(
        score("m.int8.onnx", 0.0, ModelKind.QDQ),
        difference=MetricDifference(0.0, -3.0, 3.0, 1.0, 0, 0, IntervalMethod.CHANGED_SAMPLES),
    )
    made = evaluation({})
    made = replace(made, models=(*made.models[:1], wide), samples=200)
    said = recommendation(made, None)
    assert said.startswith("m.int8.onnx shows no loss on 200 samples, which is too few to be sure")
    assert "which is within the budget" not in said
    engine = replace(wide, name="m.int8.engine", kind=ModelKind.ENGINE)
    timed = recommendation(replace(made, models=(made.models[0], engine)), bench({"fp32": 4.0, "int8": 1.0}))
    assert "it shows no loss on 200 samples, which is too few to be sure" in timed


def unlabelled(model: ModelScore, samples: int = 10_000, **fields: Any) -> Evaluation:
    made = replace(evaluation({}), models=(score("m.onnx", None, ModelKind.FLOAT), model), metric=None)
    return replace(made, samples=samples, **fields)


def noisy(*sqnr: float) -> ModelScore:
    outputs = tuple(OutputDeviation(f"out{i}", value, 1.0, None, 1.0) for i, value in enumerate(sqnr))
    return replace(score("m.int8.onnx", None, ModelKind.QDQ), outputs=outputs)


def test_without_labels_nothing_is_said_to_be_kept() -> None:
    made = unlabelled(noisy(21.5))
    said = recommendation(made, None)
    assert said.startswith(
        "Cannot tell whether INT8 is good enough: there are no labels, or no metric for them. As measured, "
    )
    assert "an SQNR of 21.5 dB at out0" in said
    timed = replace(made, models=(made.models[0], replace(made.models[1], name="m.int8.engine")))
    said = recommendation(timed, bench({"fp32": 4.0, "int8": 1.0}))
    assert said.startswith(
        "Cannot tell whether INT8 is good enough: there are no labels, or no metric for them. The fastest"
    )


def agreeing(changed: int, samples: int, *sqnr: float) -> ModelScore:
    return replace(noisy(*(sqnr or (40.0,))), agreement=1.0 - changed / samples, changed_samples=changed)


def test_without_labels_changed_predictions_bound_the_loss() -> None:
    said = recommendation(unlabelled(agreeing(30, 10_000)), None)
    assert "loses up to 0.30 percentage points (0.30 % of the predictions changed), which is within the bud" in said
    said = recommendation(unlabelled(agreeing(500, 10_000)), None)
    assert "loses up to 5.00 percentage points (5.00 % of the predictions changed), which exceeds the bud" in said


@pytest.mark.parametrize("samples", [1, 6, 200, 550])
def test_few_samples_without_labels_keep_no_budget(samples: int) -> None:
    said = recommendation(unlabelled(agreeing(0, samples), samples), None)
    assert "too few to be sure" in said
    assert "within the budget" not in said


@pytest.mark.parametrize(
    "made",
    [
        unlabelled(agreeing(0, 10_000), scores="out0", scores_assumed=True),
        unlabelled(agreeing(0, 10_000, math.inf, 6.0)),
        unlabelled(agreeing(0, 10_000), uncompared=("boxes",)),
    ],
)
def test_predictions_alone_decide_nothing_where_they_may_be_none_or_other_outputs_stand_beside(
    made: Evaluation,
) -> None:
    assert recommendation(made, None).startswith("Cannot tell whether INT8 is good enough: there are no labels")


@pytest.mark.parametrize("timed", [None, bench({"fp32": 4.0, "int8": 1.0})])
@pytest.mark.parametrize("lost", [0.0, 0.3, 2.0])
def test_figures_in_doubt_recommend_nothing(timed: BenchResult | None, lost: float) -> None:
    made = evaluation({"fp32": 0.0, "int8": lost}) if timed else unlabelled(score("m.int8.onnx", lost, ModelKind.QDQ))
    made = replace(made, metric="top1", samples=10_000, doubts=("the preprocessing was guessed",))
    said = recommendation(made, timed)
    assert said.startswith("Cannot tell whether INT8 is good enough: the preprocessing was guessed.")
    assert "within the budget" not in said
    assert "Use " not in said


@given(st.integers(1, 5000), st.floats(0, 3), st.floats(0, 3), st.one_of(st.just(math.nan), st.floats(0, 3)))
def test_within_the_budget_means_that_the_interval_is(samples: int, lost: float, below: float, above: float) -> None:
    found = MetricDifference(lost, lost - below, lost + above, 0.5, 1, 2, IntervalMethod.CHANGED_SAMPLES)
    made = evaluation({})
    model = replace(score("m.int8.onnx", 0.0, ModelKind.QDQ), difference=found)
    said = recommendation(replace(made, models=(*made.models[:1], model), samples=samples), None)
    if "is within the budget" in said:
        assert lost + above <= 0.5
        assert below + above > 0 or samples > 550


def test_equal_scores_of_few_samples_are_no_proof() -> None:
    equal = MetricDifference(0.0, 0.0, 0.0, 1.0, 0, 0, IntervalMethod.EQUAL_SCORES)
    model = replace(score("m.int8.onnx", 0.0, ModelKind.QDQ), difference=equal)
    made = replace(evaluation({}), models=(score("m.onnx", None, ModelKind.FLOAT), model))
    assert "on 6 samples, which is too few to be sure" in recommendation(replace(made, samples=6), None)
    assert "is within the budget" in recommendation(replace(made, samples=600), None)


def test_an_output_that_the_metric_does_not_judge_is_named() -> None:
    made = evaluation({})
    model = replace(score("m.int8.onnx", 0.1, ModelKind.QDQ), outputs=noisy(math.inf, 6.0).outputs)
    said = recommendation(replace(made, models=(*made.models[:1], model)), None)
    assert "; of all outputs, it has an SQNR of 6.0 dB at out1, its worst output." in said


@pytest.mark.parametrize("timed", [None, bench(TIMES)])
def test_no_budget_in_points_holds_for_a_metric_of_another_unit(timed: BenchResult | None) -> None:
    made = replace(evaluation({"int8": 7.25}), metric="rmse", share=False)
    said = recommendation(made, timed)
    assert "points" not in said
    assert "7.25 of rmse" in said
    assert "within the budget" not in said
    assert recommendation(replace(made, max_drop=0.5), bench({"int8": 1.0})).startswith("Nothing is recommended")

"""The verdict says what the figures say, and no more."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.evaluation.result import Confidence, MetricDifference, ModelKind, ModelScore, OutputDeviation, Speed
from quantkit.evaluation.verdict import model_verdict

METHOD = "Bonett-Price interval, McNemar's test (mid-p)"
FLOAT = ModelScore("model", ModelKind.FLOAT, None, "", 0, {"top1": 0.9118}, None)
GPU = "NVIDIA H200"
BASE = ModelScore("int8", ModelKind.QDQ, None, "", 0, {"top1": 0.9106}, None, int8_layers=(20, 22), agreement=0.995)


def lost(value: float, low: float, high: float) -> ModelScore:
    return replace(BASE, difference=MetricDifference(value, low, high, 0.2, 1, 2, METHOD))


def told(candidate: ModelScore, metric: str | None = "top1", share: bool = True, max_drop: float | None = None) -> str:
    return model_verdict(FLOAT, candidate, metric, share, 10_000, max_drop)


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (
            0.12,
            -0.05,
            0.29,
            "int8 loses 0.12 points of top-1 (95 %: −0.05 … 0.29): no loss is shown in 10,000 samples.",
        ),
        (0.52, 0.31, 0.73, "int8 loses 0.52 points of top-1 (95 %: 0.31 … 0.73): a loss is shown in 10,000 samples."),
        (-0.1, -0.3, 0.1, "int8 gains 0.10 points of top-1 (95 %: −0.10 … 0.30): no loss is shown in 10,000 samples."),
        (-0.4, -0.6, -0.2, "int8 gains 0.40 points of top-1 (95 %: 0.20 … 0.60): a gain is shown in 10,000 samples."),
        (0.0, -0.001, 0.04, "int8 loses 0.00 points of top-1 (95 %: 0.00 … 0.04): no loss is shown in 10,000 samples."),
    ],
)
def test_the_loss_in_plain_words(value: float, low: float, high: float, expected: str) -> None:
    assert told(lost(value, low, high)) == expected


def test_a_metric_with_a_unit_of_its_own_has_no_points() -> None:
    text = told(lost(0.01234, 0.001, 0.03), "rmse", share=False, max_drop=0.02)
    assert "loses 0.0123 of rmse (95 %: 0.001 … 0.03): a loss is shown" in text
    assert "within the budget of 0.02 but perhaps by chance" in text
    assert "point" not in text


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.1, -0.1, 0.3, "within the budget of 0.5 points for sure"),
        (0.4, 0.2, 0.6, "within the budget of 0.5 points but perhaps by chance"),
        (0.6, 0.4, 0.8, "over the budget of 0.5 points but perhaps by chance"),
        (0.9, 0.7, 1.1, "over the budget of 0.5 points for sure"),
        (0.5, 0.5, 0.5, "within the budget of 0.5 points for sure"),
        (0.3, math.nan, math.nan, "within the budget of 0.5 points, how surely is not known"),
    ],
)
def test_the_budget_is_held_against_the_interval(value: float, low: float, high: float, expected: str) -> None:
    assert expected in told(lost(value, low, high), max_drop=0.5)
    assert "budget" not in told(lost(value, low, high))


@given(st.floats(-9, 9), st.floats(0, 3), st.floats(0, 3), st.floats(-1, 3))
def test_for_sure_is_never_said_of_an_interval_that_holds_the_budget(
    value: float, below: float, above: float, limit: float
) -> None:
    text = told(lost(value, value - below, value + above), max_drop=limit)
    assert ("within the budget" in text) == (value <= limit)
    if value - below <= limit < value + above:
        assert "for sure" not in text
    assert ("a loss is shown" in text) == (value - below > 0)


def test_no_interval_is_told_where_none_is_known() -> None:
    text = told(replace(BASE, difference=MetricDifference(1.2, math.nan, math.nan, math.nan, 0, 0, "no interval: why")))
    assert text == "int8 loses 1.20 points of top-1 in 10,000 samples (no interval: why)."


def test_what_stands_out_is_told_and_what_does_not_is_not() -> None:
    loss = lost(0.0, -0.2, 0.2)
    assert "answers" not in told(replace(loss, agreement=0.985, confidence=Confidence(0.9, 0.895, -0.5)))
    text = told(replace(loss, agreement=0.963, confidence=Confidence(0.9, 0.87, -3.0)))
    assert "; 3.70 % of its answers are others than the reference's; it is 3.0 points less sure of its answers." in text
    assert "2.0 points surer" in told(replace(loss, confidence=Confidence(0.9, 0.92, 2.0)))


# Without labels ---------------------------------------------------------------------------------------------------


def test_without_labels_nobody_knows_who_is_right() -> None:
    text = told(replace(BASE, agreement=0.986), None)
    assert text == (
        "int8 gives the reference's answer for 98.60 % of 10,000 samples; "
        "without labels nothing tells which of the two is right."
    )
    assert told(replace(BASE, agreement=1.0), None) == "int8 gives the reference's answer for all of 10,000 samples."
    assert "99.99 %" in told(replace(BASE, agreement=0.99999), None)
    assert "loses" not in told(replace(BASE, agreement=0.5), None)


def test_outputs_that_are_no_classes_are_told_by_the_worst() -> None:
    outputs = (OutputDeviation("boxes", 31.24, 0.99, None, 2.0), OutputDeviation("masks", 35.0, 0.99, None, 2.0))
    text = told(replace(BASE, agreement=None, outputs=outputs), None)
    assert "an SQNR of 31.2 dB at boxes, its worst output" in text
    same = (OutputDeviation("boxes", math.inf, 1.0, None, 0.0),)
    assert "the reference's outputs for all" in told(replace(BASE, agreement=None, outputs=same), None)
    assert "neither labels nor outputs" in told(replace(BASE, agreement=None), None)


# Worth it ---------------------------------------------------------------------------------------------------------


def raced(first: Speed | None, second: Speed | None, **changes: object) -> str:
    candidate = replace(lost(0.1, 0.0, 0.2), speed=second, **changes)  # type: ignore[arg-type]
    return model_verdict(replace(FLOAT, speed=first), candidate, "top1", True, 10_000, None)


def test_int8_that_is_no_faster_on_the_gpu_is_not_worth_it() -> None:
    fast, slow = Speed(8_000, 1.0, 8, GPU), Speed(6_000, 1.31, 8, GPU)
    text = raced(fast, slow)
    assert text.endswith("INT8 is not worth it here: 1.31 ms a batch of 8, the reference 1 ms on NVIDIA H200.")
    assert "not worth" in raced(fast, fast)
    assert raced(slow, fast).endswith("It is 1.31 times as fast as the reference on NVIDIA H200.")
    assert "not worth it here: 6,000 samples a second" in raced(replace(fast, batch=32), slow)


def test_a_processors_speed_decides_nothing() -> None:
    fast, slow = (Speed(s, None, 1, "onnxruntime, processor") for s in (100.0, 50.0))
    for first, second in ((fast, slow), (slow, fast), (Speed(1, 1, 1, GPU), slow), (fast, Speed(1, 1, 1, GPU))):
        text = raced(first, second)
        assert text == told(lost(0.1, 0.0, 0.2))
    assert "cannot be compared" in raced(Speed(1, 1, 1, GPU), Speed(2, 1, 1, "NVIDIA L4"))
    for first, second in ((None, slow), (fast, None), (None, None)):
        assert raced(first, second) == told(lost(0.1, 0.0, 0.2))


def test_without_an_int8_layer_int8_is_not_worth_it_wherever_it_ran() -> None:
    processor = Speed(100.0, None, 1, "onnxruntime, processor")
    text = raced(processor, processor, int8_layers=(0, 22))
    assert text.endswith("INT8 is not worth it here: none of its 22 layers is INT8.")
    assert "worth" not in raced(None, None, int8_layers=(1, 22))
    assert "worth" not in raced(None, None, int8_layers=None)
    assert "worth" not in raced(None, None, int8_layers=(0, 22), kind=ModelKind.FLOAT)


def test_an_engine_that_is_not_asked_for_int8_is_not_judged_by_it() -> None:
    slow, fast = Speed(100.0, 1.0, 32, "a GPU"), Speed(100.0, 1.0, 32, "a GPU")
    assert "worth" not in raced(slow, fast, int8_layers=None, kind=ModelKind.ENGINE)
    assert "INT8 is not worth it here" in raced(slow, fast, int8_layers=(3, 22), kind=ModelKind.ENGINE)

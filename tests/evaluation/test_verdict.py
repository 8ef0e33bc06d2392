"""The verdict says what the values show, and no more."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.evaluation.result import (
    Confidence,
    Device,
    IntervalMethod,
    MetricDifference,
    ModelKind,
    ModelScore,
    OutputDeviation,
    Speed,
)
from quantkit.evaluation.verdict import model_verdict

METHOD = IntervalMethod.CHANGED_SAMPLES
FLOAT = ModelScore("model", ModelKind.FLOAT, None, "", 0, {"top1": 0.9118}, None)
GPU = "NVIDIA H200"
BASE = ModelScore("int8", ModelKind.QDQ, None, "", 0, {"top1": 0.9106}, None, int8_layers=(20, 22), agreement=0.995)


def lost(value: float, low: float, high: float) -> ModelScore:
    return replace(BASE, difference=MetricDifference(value, low, high, 0.2, 1, 2, METHOD))


def verdict(
    candidate: ModelScore, metric: str | None = "top1", share: bool = True, max_drop: float | None = None
) -> str:
    return model_verdict(FLOAT, candidate, metric, share, 10_000, max_drop)


@pytest.mark.parametrize(
    ("value", "low", "high", "loss", "interval", "shown"),
    [
        (0.12, -0.05, 0.29, "loses 0.12", "−0.05 … 0.29", "no significant loss"),
        (0.52, 0.31, 0.73, "loses 0.52", "0.31 … 0.73", "a significant loss"),
        (-0.1, -0.3, 0.1, "gains 0.10", "−0.10 … 0.30", "no significant loss"),
        (-0.4, -0.6, -0.2, "gains 0.40", "0.20 … 0.60", "a significant gain"),
        (0.0, -0.001, 0.04, "loses 0.00", "0.00 … 0.04", "no significant loss"),
    ],
)
def test_the_loss_in_plain_words(value: float, low: float, high: float, loss: str, interval: str, shown: str) -> None:
    assert verdict(lost(value, low, high)) == (
        f"int8 {loss} percentage points of top-1 (95 % interval: {interval}): {shown} on 10,000 samples."
    )


def test_a_metric_with_a_unit_of_its_own_has_no_points() -> None:
    text = verdict(lost(0.01234, 0.001, 0.03), "rmse", share=False, max_drop=0.02)
    assert "loses 0.0123 of rmse (95 % interval: 0.001 … 0.03): a significant loss" in text
    assert "within the budget of 0.02, but not conclusively" in text
    assert "point" not in text


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.1, -0.1, 0.3, "conclusively within the 0.5-point budget"),
        (0.4, 0.2, 0.6, ", within the 0.5-point budget, but not conclusively"),
        (0.6, 0.4, 0.8, ", over the 0.5-point budget, but not conclusively"),
        (0.9, 0.7, 1.1, "conclusively over the 0.5-point budget"),
        (0.5, 0.5, 0.5, "conclusively within the 0.5-point budget"),
        (0.3, math.nan, math.nan, "within the 0.5-point budget, but there is no interval to confirm it"),
    ],
)
def test_the_budget_is_held_against_the_interval(value: float, low: float, high: float, expected: str) -> None:
    assert expected in verdict(lost(value, low, high), max_drop=0.5)
    assert "budget" not in verdict(lost(value, low, high))


@given(st.floats(-9, 9), st.floats(0, 3), st.floats(0, 3), st.floats(-1, 3))
def test_an_interval_around_the_budget_is_never_conclusive(
    value: float, below: float, above: float, limit: float
) -> None:
    text = verdict(lost(value, value - below, value + above), max_drop=limit)
    assert ("within the" in text) == (value <= limit)
    if value - below <= limit < value + above:
        assert "but not conclusively" in text
    assert ("a significant loss" in text) == (value - below > 0)


def test_the_reason_for_a_missing_interval_is_given() -> None:
    text = verdict(
        replace(BASE, difference=MetricDifference(1.2, math.nan, math.nan, math.nan, 0, 0, IntervalMethod.VALUE_ONLY))
    )
    assert (
        text == "int8 loses 1.20 percentage points of top-1 on 10,000 samples (only the value is known: no interval)."
    )


def test_only_remarkable_changes_are_mentioned() -> None:
    loss = lost(0.0, -0.2, 0.2)
    assert "predictions" not in verdict(replace(loss, agreement=0.985, confidence=Confidence(0.9, 0.895, -0.5)))
    text = verdict(replace(loss, agreement=0.963, confidence=Confidence(0.9, 0.87, -3.0)))
    assert (
        "; its predictions differ from the reference's on 3.70 % of the samples; "
        "it is 3.0 percentage points less confident in its predictions."
    ) in text
    assert "2.0 percentage points more confident" in verdict(replace(loss, confidence=Confidence(0.9, 0.92, 2.0)))


# Without labels ---------------------------------------------------------------------------------------------------


def test_without_labels_it_is_unknown_which_is_right() -> None:
    text = verdict(replace(BASE, agreement=0.986), None)
    assert text == (
        "int8 agrees with the reference on 98.60 % of 10,000 samples; "
        "without labels it is unknown which of the two is right."
    )
    assert verdict(replace(BASE, agreement=1.0), None) == "int8 agrees with the reference on all 10,000 samples."
    assert "99.99 %" in verdict(replace(BASE, agreement=0.99999), None)
    assert "loses" not in verdict(replace(BASE, agreement=0.5), None)


def test_outputs_that_are_not_classes_are_described_by_the_worst() -> None:
    outputs = (OutputDeviation("boxes", 31.24, 0.99, None, 2.0), OutputDeviation("masks", 35.0, 0.99, None, 2.0))
    text = verdict(replace(BASE, agreement=None, outputs=outputs), None)
    assert "an SQNR of 31.2 dB at boxes, its worst output" in text
    same = (OutputDeviation("boxes", math.inf, 1.0, None, 0.0),)
    assert "the reference's outputs on all" in verdict(replace(BASE, agreement=None, outputs=same), None)
    assert "neither labels nor outputs" in verdict(replace(BASE, agreement=None), None)


# Worth it ---------------------------------------------------------------------------------------------------------


def raced(first: Speed | None, second: Speed | None, **changes: object) -> str:
    candidate = replace(lost(0.1, 0.0, 0.2), speed=second, **changes)  # type: ignore[arg-type]
    return model_verdict(replace(FLOAT, speed=first), candidate, "top1", True, 10_000, None)


def test_int8_that_is_no_faster_on_the_gpu_is_not_worth_it() -> None:
    fast, slow = Speed(8_000, 1.0, 8, GPU, Device.GPU), Speed(6_000, 1.31, 8, GPU, Device.GPU)
    text = raced(fast, slow)
    assert text.endswith("INT8 is not worth it here: 1.31 ms per batch of 8, the reference 1 ms, on NVIDIA H200.")
    assert "not worth" in raced(fast, fast)
    assert raced(slow, fast).endswith("It is 1.31 times as fast as the reference on NVIDIA H200.")
    assert "not worth it here: 6,000 samples per second" in raced(replace(fast, batch=32), slow)


def test_cpu_speed_decides_nothing() -> None:
    fast, slow = (Speed(s, None, 1, "onnxruntime, CPU", Device.CPU) for s in (100.0, 50.0))
    for first, second in (
        (fast, slow),
        (slow, fast),
        (Speed(1, 1, 1, GPU, Device.GPU), slow),
        (fast, Speed(1, 1, 1, GPU, Device.GPU)),
    ):
        text = raced(first, second)
        assert text == verdict(lost(0.1, 0.0, 0.2))
    assert "cannot be compared" in raced(Speed(1, 1, 1, GPU, Device.GPU), Speed(2, 1, 1, "NVIDIA L4", Device.GPU))
    for first, second in ((None, slow), (fast, None), (None, None)):
        assert raced(first, second) == verdict(lost(0.1, 0.0, 0.2))


def test_int8_without_int8_layers_is_never_worth_it() -> None:
    cpu = Speed(100.0, None, 1, "onnxruntime, CPU", Device.CPU)
    text = raced(cpu, cpu, int8_layers=(0, 22))
    assert text.endswith("INT8 is not worth it here: none of its 22 layers is INT8.")
    assert "worth" not in raced(None, None, int8_layers=(1, 22))
    assert "worth" not in raced(None, None, int8_layers=None)
    assert "worth" not in raced(None, None, int8_layers=(0, 22), kind=ModelKind.FLOAT)


def test_an_engine_of_another_precision_is_not_judged_as_int8() -> None:
    slow, fast = Speed(100.0, 1.0, 32, "a GPU", Device.GPU), Speed(100.0, 1.0, 32, "a GPU", Device.GPU)
    assert "worth" not in raced(slow, fast, int8_layers=None, kind=ModelKind.ENGINE)
    assert "INT8 is not worth it here" in raced(slow, fast, int8_layers=(3, 22), kind=ModelKind.ENGINE)

"""The verdict says what the values show, and no more."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.evaluation.result import (
    Confidence,
    Device,
    Evaluation,
    IntervalMethod,
    MetricDifference,
    ModelKind,
    ModelScore,
    OutputDeviation,
    OutputMatch,
    Speed,
    score_row,
)
from quantkit.evaluation.verdict import model_verdict

METHOD = IntervalMethod.CHANGED_SAMPLES
FLOAT = ModelScore("model", ModelKind.FLOAT, None, "", 0, {"top1": 0.9118}, None)
GPU = "NVIDIA H200"
BASE = ModelScore("int8", ModelKind.QDQ, None, "", 0, {"top1": 0.9106}, None, int8_layers=(20, 22), agreement=0.995)


def lost(value: float, low: float, high: float) -> ModelScore:
    return replace(BASE, difference=MetricDifference(value, low, high, 0.2, 1, 2, METHOD))


def judged(candidate: ModelScore, metric: str | None = "top1", share: bool = True, **fields: Any) -> Evaluation:
    made = Evaluation((FLOAT, candidate), 10_000, metric, share, (), (), {}, 1.0)
    return replace(made, **fields)


def verdict(candidate: ModelScore, metric: str | None = "top1", share: bool = True, **fields: Any) -> str:
    return model_verdict(judged(candidate, metric, share, **fields), candidate)


@pytest.mark.parametrize(
    ("value", "low", "high", "loss", "interval", "shown"),
    [
        (0.12, -0.05, 0.29, "loses 0.12", "−0.05 … 0.29", "no significant loss"),
        (0.52, 0.31, 0.73, "loses 0.52", "0.31 … 0.73", "a significant loss"),
        (-0.1, -0.3, 0.1, "gains 0.10", "−0.30 … 0.10", "no significant loss"),
        (-0.4, -0.6, -0.2, "gains 0.40", "−0.60 … −0.20", "a significant gain"),
    ],
)
def test_the_loss_in_plain_words(value: float, low: float, high: float, loss: str, interval: str, shown: str) -> None:
    assert verdict(lost(value, low, high)) == (
        f"int8 {loss} percentage points of top-1 (95 % interval of the drop: {interval}): {shown} on 10,000 samples."
    )


@pytest.mark.parametrize("value", [0.0, 0.004, -0.004])
def test_a_difference_that_is_shown_as_0_is_neither_a_loss_nor_a_gain(value: float) -> None:
    assert verdict(lost(value, -0.1, 0.1)) == (
        "int8 keeps the top-1 of the reference (95 % interval of the drop: −0.10 … 0.10): no significant loss on "
        "10,000 samples."
    )


@given(st.floats(-100, 100), st.floats(-100, 100), st.floats(-100, 100))
def test_table_and_sentence_have_the_same_numbers(value: float, one: float, two: float) -> None:
    candidate = lost(value, min(one, two), max(one, two))
    _, _, drop, interval, *_ = score_row(candidate, judged(candidate))
    said = verdict(candidate)
    assert f"(95 % interval of the drop: {interval.replace('+', '')})" in said
    assert drop.lstrip("+−") in said or "keeps" in said
    assert "-" not in drop + interval


def test_samples_that_cannot_show_a_loss_are_said_to_be_too_few() -> None:
    text = verdict(lost(0.0, -37.5, 37.5), samples=6)
    assert text.endswith("no significant loss on 6 samples, too few to exclude a loss of 37.50 percentage points.")
    assert "too few" not in verdict(lost(0.0, -0.4, 0.4))
    assert "on 1 sample," in verdict(lost(0.0, -90.0, 90.0), samples=1)


def test_figures_in_doubt_are_conclusive_for_no_budget() -> None:
    text = verdict(lost(0.0, -0.1, 0.1), max_drop=0.5, doubts=("the preprocessing was guessed",))
    assert ", within the 0.5-point budget, but the figures are in doubt." in text
    assert judged(BASE, doubts=("it was guessed",)).statements[-1] == "In doubt: it was guessed."


def test_a_metric_with_a_unit_of_its_own_has_no_points() -> None:
    text = verdict(lost(0.01234, 0.001, 0.03), "rmse", share=False, max_drop=0.02)
    assert "loses 0.0123 of rmse (95 % interval of the drop: 0.001 … 0.03): a significant loss" in text
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


def boxes(sqnr: float, name: str = "boxes") -> OutputDeviation:
    return OutputDeviation(name, sqnr, 0.99, None, 2.0)


def unlabelled(changed: int, samples: int, *outputs: OutputDeviation, **fields: Any) -> str:
    candidate = replace(BASE, agreement=1.0 - changed / samples, changed_samples=changed, outputs=outputs)
    return verdict(candidate, None, samples=samples, **fields)


@pytest.mark.parametrize(
    ("changed", "samples", "on"),
    [
        (0, 40, "all 40 samples"),
        (40, 40, "none of 40 samples"),
        (1, 40, "39 of 40 samples (97.50 %)"),
        (1, 100_000, "99,999 of 100,000 samples (>99.99 %)"),
        (99_999, 100_000, "1 of 100,000 samples (<0.01 %)"),
        (0, 1, "1 of 1 sample"),
        (1, 1, "0 of 1 sample"),
    ],
)
def test_agreement_is_counted_and_never_rounded_to_all_or_none(changed: int, samples: int, on: str) -> None:
    text = unlabelled(changed, samples, boxes(30.0))
    assert text.startswith(f"int8 predicts the reference's class on {on}; it has an SQNR of 30.0 dB at boxes; ")
    assert text.endswith("without labels it is unknown which of the two is right.")
    assert "loses" not in text


def test_the_worst_output_stands_in_the_verdict_whatever_the_others_are() -> None:
    text = unlabelled(0, 40, boxes(math.inf, "scores"), boxes(6.04, "maps"))
    assert "it has an SQNR of 6.0 dB at maps, its worst output" in text
    assert "an SQNR of 31.2 dB at boxes, its worst output, on 10,000 samples" in verdict(
        replace(BASE, agreement=None, outputs=(boxes(31.24), boxes(35.0, "masks"))), None
    )
    labelled = replace(lost(0.0, -0.1, 0.1), outputs=(boxes(40.0, "scores"), boxes(-math.inf, "maps")))
    assert "; it has an SQNR of −inf dB at maps, its worst output" in verdict(labelled)


def test_an_output_that_may_be_coordinates_is_judged_by_its_noise_first() -> None:
    text = unlabelled(12, 32, boxes(22.1, "points"), scores="points", scores_assumed=True)
    assert text.startswith("int8 has an SQNR of 22.1 dB at points on 32 samples; if points holds class scores, it ")
    assert "class on 20 of 32 samples (62.50 %)" in text


def test_equal_outputs_are_equal_and_leave_nothing_open() -> None:
    text = verdict(replace(BASE, agreement=None, outputs=(boxes(math.inf),)), None)
    assert text == "int8 has exactly the reference's boxes on 10,000 samples."
    assert "neither labels nor outputs" in verdict(replace(BASE, agreement=None), None)
    missing = verdict(replace(BASE, agreement=None, outputs=(boxes(math.inf),)), None, uncompared=("kept",))
    assert missing.endswith("; kept could not be compared.")


def test_indices_are_counted_by_sample_and_by_value() -> None:
    matches = (OutputMatch("mask", 640, 640, 64, 64), OutputMatch("idx", 320, 160, 64, 3))
    text = verdict(replace(BASE, agreement=None, outputs=(boxes(math.inf),), matches=matches), None, samples=64)
    assert "it has the reference's idx on 3 of 64 samples (4.69 %), in 50.00 % of its values" in text
    assert text.endswith("which of the two is right.")


# Worth it ---------------------------------------------------------------------------------------------------------


def raced(first: Speed | None, second: Speed | None, **changes: object) -> str:
    candidate = replace(lost(0.1, 0.0, 0.2), speed=second, **changes)  # type: ignore[arg-type]
    return model_verdict(replace(judged(candidate), models=(replace(FLOAT, speed=first), candidate)), candidate)


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

"""Outputs and predictions of two models, against scipy and plain float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import special, stats

from quantkit.errors import DataError
from quantkit.evaluation.outputs import output_errors as outputs
from quantkit.evaluation.outputs.output_errors import OutputComparison
from quantkit.evaluation.outputs.predictions import PredictionComparison, agreement, are_probabilities, confidence
from quantkit.evaluation.result import OutputDeviation

RANDOM = np.random.default_rng(4)
LOGITS = (RANDOM.normal(size=(30, 8)) * 5).astype(np.float32)
OTHERS = LOGITS + RANDOM.normal(size=LOGITS.shape).astype(np.float32)
floats = st.floats(-50, 50, width=32)


def compared(first: Any, second: Any, scores: bool = True, batch: int = 7) -> OutputDeviation:
    comparison = OutputComparison("logits", scores)
    for at in range(0, len(first), batch):
        comparison.add(first[at : at + batch], second[at : at + batch])
    return comparison.result()


@given(arrays(np.float32, (9, 4), elements=floats), arrays(np.float32, (9, 4), elements=floats), st.integers(1, 9))
def test_a_stream_gives_the_figures_of_the_whole(first: NDArray[Any], second: NDArray[Any], batch: int) -> None:
    assume(not are_probabilities(first[:batch]))
    found = compared(first, second, batch=batch)
    a, b = first.astype(np.float64), second.astype(np.float64)
    error = np.sum((a - b) ** 2)
    if error and np.sum(a * a):
        assert found.sqnr_db == pytest.approx(10 * np.log10(np.sum(a * a) / error), abs=1e-9)
    if error and np.sum(a * a) and np.sum(b * b):
        assert found.cosine == pytest.approx(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)), abs=1e-12)
    assert found.largest == np.abs(a - b).max()
    expected = [stats.entropy(special.softmax(p), special.softmax(q)) for p, q in zip(a, b, strict=True)]
    assert found.kl == pytest.approx(np.mean(expected), rel=1e-9, abs=1e-12)


def test_scores_that_overflow_a_naive_softmax_do_not() -> None:
    first = np.array([[2000.0, 0.0], [-3000.0, -2999.0]])
    found = compared(first, first[:, ::-1])
    q = special.expit(1.0)
    assert found.kl == pytest.approx((2000.0 + (q - (1 - q))) / 2)


def test_identical_outputs_are_infinitely_good_and_zero_outputs_infinitely_bad() -> None:
    assert compared(LOGITS, LOGITS) == OutputDeviation("logits", math.inf, 1.0, 0.0, 0.0)
    zero = np.zeros_like(LOGITS)
    assert compared(zero, zero).sqnr_db == math.inf
    found = compared(zero, LOGITS, scores=False)
    assert (found.sqnr_db, found.cosine, found.kl) == (-math.inf, 0.0, None)


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.uint8, np.bool_])
def test_every_number_type_and_shape_has_figures(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "CHUNK", 11)
    drawn = np.random.default_rng(4).integers(0, 200, (10, 3, 2, 2))
    first = drawn > 100 if dtype is np.bool_ else drawn.astype(dtype)
    second = first[::-1]
    found = compared(first, second, scores=False)
    a, b = first.astype(np.float64), second.astype(np.float64)
    assert found.sqnr_db == pytest.approx(10 * np.log10(np.sum(a * a) / np.sum((a - b) ** 2)))
    assert found.largest == np.abs(a - b).max()


def test_what_both_mask_out_does_not_count() -> None:
    first, second = LOGITS.copy(), OTHERS.copy()
    first[:, 2] = second[:, 2] = -np.inf
    rest = [0, 1, 3, 4, 5, 6, 7]
    found, expected = compared(first, second), compared(first[:, rest], second[:, rest])
    assert found.sqnr_db == pytest.approx(expected.sqnr_db)
    assert found.kl == pytest.approx(expected.kl)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_in_one_alone_is_refused(value: float) -> None:
    second = OTHERS.copy()
    second[17, 3] = value
    with pytest.raises(DataError, match="logits of the candidate holds NaN or Inf, in the batch from sample 14"):
        compared(LOGITS, second)
    with pytest.raises(DataError, match="logits of the reference holds NaN or Inf"):
        compared(second, LOGITS)


def test_outputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"output logits is \[7, 8\] for the reference, \[7, 7\] for the candidate"):
        compared(LOGITS, LOGITS[:, :7])
    with pytest.raises(DataError, match=r"logits \[7, 8, 2\] holds no class scores"):
        compared(LOGITS[:, :, None].repeat(2, 2), LOGITS[:, :, None].repeat(2, 2))
    with pytest.raises(DataError, match="no samples"):
        OutputComparison("logits", scores=False).result()


# Networks that end in a Softmax -----------------------------------------------------------------------------------


def test_probabilities_are_not_put_through_softmax_again() -> None:
    p, q = special.softmax(LOGITS.astype(np.float64), axis=1), special.softmax(OTHERS.astype(np.float64), axis=1)
    assert compared(p, q).kl == pytest.approx(compared(LOGITS, OTHERS).kl, rel=1e-3)
    rounded = np.rint(q * 127) / 127  # an INT8 Softmax: sums are not 1, small ones are 0
    found = compared(p, rounded)
    assert found.kl is not None
    assert math.isfinite(found.kl)
    assert 0 < found.kl < 5


# Answers ----------------------------------------------------------------------------------------------------------


def answered(first: Any, second: Any, batch: int = 7) -> PredictionComparison:
    comparison = PredictionComparison()
    for at in range(0, len(first), batch):
        comparison.add(first[at : at + batch], second[at : at + batch])
    return comparison


@given(st.integers(1, 30))
def test_answers_are_argmax_and_the_largest_softmax(batch: int) -> None:
    first, second = answered(LOGITS, OTHERS, batch).result()
    for found, scores in ((first, LOGITS), (second, OTHERS)):
        assert np.array_equal(found.classes, scores.argmax(axis=1))
        assert np.allclose(found.confidence, special.softmax(scores.astype(np.float64), axis=1).max(axis=1))
    assert agreement(first, second) == np.mean(LOGITS.argmax(1) == OTHERS.argmax(1))
    shift = confidence(first, second)
    assert shift.shift == pytest.approx(100 * (shift.candidate - shift.reference))
    assert shift.reference == pytest.approx(first.confidence.mean())


def test_the_reference_says_for_both_whether_they_are_probabilities() -> None:
    p = special.softmax(LOGITS.astype(np.float64), axis=1)
    rounded = np.rint(p * 127) / 127
    first, second = answered(p, rounded).result()
    assert np.allclose(first.confidence, p.max(axis=1), atol=1e-6)
    assert np.allclose(second.confidence, p.max(axis=1), atol=0.02)  # a softmax of them would say 0.12 … 0.28


def test_ties_agree_and_trailing_ones_are_class_scores() -> None:
    tied = np.ones((4, 3), np.float32)
    first, second = answered(tied[:, :, None, None], tied[:, :, None, None]).result()
    assert agreement(first, second) == 1.0
    assert (first.classes == 0).all()
    assert np.allclose(first.confidence, 1 / 3)


def test_answers_that_cannot_be_compared_are_refused() -> None:
    second = OTHERS.copy()
    second[17, 3] = np.nan
    with pytest.raises(DataError, match="sample 17: a class score of the candidate is NaN or Inf"):
        answered(LOGITS, second)
    comparison = PredictionComparison()
    with pytest.raises(DataError, match=r"c\.png: a class score of the reference"):
        comparison.add(second[15:18], LOGITS[15:18], ["a.png", "b.png", "c.png"])
    with pytest.raises(DataError, match=r"class scores are \[30, 8\] in the reference, \[30, 7\] in the candidate"):
        comparison.add(LOGITS, LOGITS[:, :7])
    with pytest.raises(DataError, match="no samples"):
        comparison.result()

"""A reference that is measured wrongly is recognised, and a good one is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quantkit.evaluation.outputs.predictions import Predictions
from quantkit.evaluation.plausibility import (
    binomial_tail,
    implausible_accuracy,
    matched_classes,
    overconfidence,
)
from quantkit.values import Array

RANDOM = np.random.default_rng(8)


def predicted(classes: Array, confidence: float = 0.9) -> Predictions:
    return Predictions(classes.astype(np.int32), np.full(len(classes), confidence))


def found(labels: Array, accuracy: float, classes: int = 10) -> Predictions:
    """Predictions of which this share is right, and the others are drawn."""
    wrong = RANDOM.integers(0, classes, len(labels))
    return predicted(np.where(np.arange(len(labels)) < accuracy * len(labels), labels, wrong))


@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.01, 0.99))
def test_the_tail_is_scipys(successes: int, trials: int, p: float) -> None:
    expected = stats.binom.cdf(successes, trials, p)
    assert binomial_tail(min(successes, trials), trials, p) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("samples", "classes"), [(10_000, 10), (200, 10), (100, 2), (500, 100)])
def test_guessing_is_recognised(samples: int, classes: int) -> None:
    labels = np.sort(RANDOM.integers(0, classes, samples))
    text = implausible_accuracy("m.onnx", labels, predicted(RANDOM.integers(0, classes, samples)), classes)
    assert text is not None
    assert "guessing" in text
    assert "--preprocess" in text


def test_one_class_for_every_sample_is_guessing_however_often_it_is_right() -> None:
    labels = (np.arange(1000) < 300).astype(np.intp)
    assert implausible_accuracy("m", labels, predicted(np.zeros(1000)), 2) is not None


@pytest.mark.parametrize(("samples", "right"), [(1, 0), (1, 1), (2, 1), (4, 2), (6, 3), (6, 6), (1000, 510), (50, 40)])
def test_too_few_samples_or_a_good_network_raise_nothing(samples: int, right: int) -> None:
    labels = np.arange(samples) % 10
    wrong = (labels + 1 + np.arange(samples) // 10 % 9) % 10
    assert implausible_accuracy("m", labels, predicted(np.where(np.arange(samples) < right, labels, wrong)), 10) is None


def test_classes_in_another_order_are_recognised() -> None:
    labels = RANDOM.integers(0, 10, 2000)
    order = np.array([0, 1, 9, 2, 3, 4, 5, 6, 7, 8])
    text = implausible_accuracy("m", order[labels], found(labels, 0.9), 10)
    assert text is not None
    assert "another order" in text
    assert "--classes" in text
    assert implausible_accuracy("m", labels, found(labels, 0.5), 10) is None


def test_a_permutation_is_undone() -> None:
    order = RANDOM.permutation(30)
    table = np.zeros((30, 30), np.int64)
    table[np.arange(30), order] = RANDOM.integers(1, 9, 30)
    assert matched_classes(table) == table.sum()
    assert matched_classes(np.zeros((3, 3), np.int64)) == 0


@pytest.mark.parametrize(("confidence", "warned"), [(0.95, True), (0.8, True), (0.68, False), (0.3, False)])
def test_predictions_far_more_sure_than_right_are_named(confidence: float, warned: bool) -> None:
    labels = RANDOM.integers(0, 10, 1000)
    half = predicted(np.where(np.arange(1000) < 500, labels, (labels + 1) % 10), confidence)
    assert (overconfidence("m", labels, half) is not None) == warned
    assert overconfidence("m", labels[:50], predicted((labels[:50] + 1) % 10, 1.0)) is None

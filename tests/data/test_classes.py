"""Classes and changed samples, against statsmodels and by laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from quantkit.evaluation.class_drops import class_drops, confusions, holm, most_changed, most_changed_scores
from quantkit.evaluation.outputs.predictions import Predictions
from quantkit.evaluation.result import Confusion

NAMES = ("cat", "dog", "owl", "fox", "none of these")
RANDOM = np.random.default_rng(9)
SIZE = 2_000
LABELS = RANDOM.integers(0, 4, SIZE)
FIRST = np.where(RANDOM.random(SIZE) < 0.9, LABELS, (LABELS + 1) % 4)
SECOND = np.where((LABELS == 2) & (RANDOM.random(SIZE) < 0.2), 0, FIRST)  # owls become cats
SAMPLES = [f"{i}.png" for i in range(SIZE)]


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_holm_is_statsmodels(count: int) -> None:
    values = np.random.default_rng(count).choice([0.0, 1e-9, 0.001, 0.004, 0.01, 0.03, 0.2, 0.9, 1.0], count).tolist()
    assert holm(values) == pytest.approx(list(multipletests(values, method="holm")[1]), abs=1e-15)


def test_the_class_that_was_broken_comes_first_and_alone_is_significant() -> None:
    drops = class_drops(LABELS, FIRST == LABELS, SECOND == LABELS, NAMES)
    assert drops[0].name == "owl"
    assert {drop.name for drop in drops} == set(NAMES[:4])  # a class without samples has no drop
    assert [drop.p < 0.05 for drop in drops] == [True, False, False, False]
    owls = LABELS == 2
    assert drops[0].count == owls.sum()
    assert drops[0].reference == np.mean(FIRST[owls] == 2)
    assert drops[0].drop == pytest.approx(100 * (np.mean(FIRST[owls] == 2) - np.mean(SECOND[owls] == 2)))
    lost = int(np.sum(owls & (FIRST == 2) & (SECOND != 2)))
    assert drops[0].p == pytest.approx(4 * reference_mcnemar([[0, lost], [0, 0]], exact=True).pvalue / 2)


def test_chance_alone_seldom_accuses_one_of_a_hundred_classes() -> None:
    random = np.random.default_rng(3)
    accused = 0
    for _ in range(60):
        labels = np.repeat(np.arange(100), 50)
        first, second = random.random(5_000) < 0.8, random.random(5_000) < 0.8
        accused += any(drop.p < 0.05 for drop in class_drops(labels, first, second, ()))
    assert accused <= 6  # 3 are to be expected at most; without adjustment it would be nearly all 60


def test_classes_without_names_are_numbers() -> None:
    assert {drop.name for drop in class_drops(LABELS, FIRST == LABELS, SECOND == LABELS, NAMES[:2])} == {
        "cat", "dog", "2", "3",
    }  # fmt: skip


def test_confusions_count_every_change_once() -> None:
    found = confusions(LABELS, FIRST, SECOND, NAMES)
    assert sum(c.count for c in found) == np.sum(FIRST != SECOND)
    assert [c.count for c in found] == sorted((c.count for c in found), reverse=True)
    owls = int(np.sum((LABELS == 2) & (FIRST == 2) & (SECOND == 0)))
    assert found[0] == Confusion("owl", "owl", "cat", owls)
    assert all(c.label == "" for c in confusions(None, FIRST, SECOND, NAMES))
    assert confusions(LABELS, FIRST, FIRST, NAMES) == ()


def test_the_surest_lost_samples_come_first() -> None:
    labels = np.array([0, 0, 1, 2, 2, 3])
    first = Predictions(np.array([0, 0, 1, 3, 2, 3], np.int32), np.array([0.9, 0.6, 0.99, 0.97, 0.8, 0.5]))
    second = Predictions(np.array([1, 3, 1, 2, 0, 3], np.int32), np.array([0.7, 0.65, 0.99, 0.96, 0.75, 0.5]))
    found = most_changed(SAMPLES, labels, (first, second), NAMES, 10)
    assert [c.sample for c in found] == ["4.png", "0.png", "1.png", "3.png"]  # the last one was put right
    assert (found[0].label, found[0].reference, found[0].candidate) == ("owl", "owl", "cat")
    assert (found[0].reference_confidence, found[0].candidate_confidence) == (0.8, 0.75)
    assert most_changed(SAMPLES, labels, (first, second), NAMES, 2) == found[:2]
    unlabelled = most_changed(SAMPLES, None, (first, second), NAMES, 10)
    assert [c.sample for c in unlabelled] == ["3.png", "4.png", "0.png", "1.png"]
    assert {c.label for c in unlabelled} == {""}


def test_equally_sure_samples_keep_their_order() -> None:
    first = Predictions(np.zeros(5, np.int32), np.full(5, 0.5))
    second = Predictions(np.ones(5, np.int32), np.full(5, 0.5))
    assert [c.sample for c in most_changed(SAMPLES, None, (first, second), NAMES, 5)] == SAMPLES[:5]


@pytest.mark.parametrize(("higher", "order"), [(True, [3, 0, 2, 1]), (False, [2, 1, 3, 0])])
def test_scores_of_any_kind_are_ranked_by_what_was_lost(higher: bool, order: list[int]) -> None:
    first, second = np.array([0.5, 0.5, 0.5, 0.5, 0.5]), np.array([0.4, 0.6, 0.9, 0.1, 0.5])
    found = most_changed_scores(SAMPLES, first, second, higher, 10)
    assert [c.sample for c in found] == [f"{i}.png" for i in order]
    assert (found[0].reference, math.isnan(found[0].reference_confidence)) == ("0.5", True)

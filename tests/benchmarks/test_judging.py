"""Judges of the benchmarks' networks: perfect predictions are right, and what is compared is what the networks say."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def judging(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from architectures import judging

    return judging


def test_an_objects_cell_is_the_nearest_of_its_level(judging: ModuleType) -> None:
    boxes = np.array([[[0, 0, 16, 16], [16, 32, 48, 64], [0, 0, 0, 0]]], np.float32)
    classes = np.array([[3, 7, -1]])
    (small, large) = judging.object_cells(boxes, classes, 96)
    assert tuple(small) == (0, 1 * 24 + 1, 3)  # middle (8, 8): of the cells at 6 and 10 the first, in rows of 24
    assert tuple(large) == (0, 24 * 24 + 5 * 12 + 3, 7)  # middle (32, 48): cells of 8 pixels at 28 and 44


def test_perfect_answers_are_right_and_agree(judging: ModuleType) -> None:
    targets = np.array([2, 0, 1])
    logits = np.eye(3, dtype=np.float32)[targets]
    judge = judging.Judge("classes", np.zeros(0), np.zeros(0), targets)
    assert judge.right({"logits": logits}) == 100
    figures = judge.figures({"logits": logits}, {"logits": logits * 0.9})
    assert (figures["drop"], figures["agreement"], figures["sqnr_db"]) == (0, 100, 20.0)
    turned = judge.figures({"logits": logits}, {"logits": np.roll(logits, 1, axis=1)})
    assert (turned["drop"], turned["agreement"]) == (100, 0)


def test_a_detector_is_judged_where_objects_are(judging: ModuleType) -> None:
    scores = np.zeros((1, 4, 2), np.float32)
    scores[0, 2, 1] = 0.9
    judge = judging.Judge("boxes", np.zeros(0), np.zeros(0), np.array([[0, 2, 1]]))
    assert judge.right({"scores": scores}) == 100
    assert judge.agreement({"scores": scores}, {"scores": scores}) == 100
    assert judge.agreement({"scores": scores}, {"scores": scores * 0}) == 0

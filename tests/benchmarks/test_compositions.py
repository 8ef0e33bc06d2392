"""Compositions: masks, boxes and images tell of the same objects, and a seed makes the same again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
OBJECTS = np.arange(4 * 32 * 32 * 3, dtype=np.uint8).reshape(4, 32, 32, 3)
LABELS = np.array([3, 0, 9, 5])


@pytest.fixture
def compositions(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from architectures import compositions

    return compositions


@pytest.mark.parametrize("side", [64, 96])
def test_masks_and_boxes_tell_of_the_same_objects(side: int, compositions: Any) -> None:
    made = compositions.compose(OBJECTS, LABELS, 20, side, 1)
    rebuilt = np.zeros_like(made.masks)
    for k, place in zip(*np.nonzero(made.classes >= 0), strict=True):
        left, top, right, bottom = made.boxes[k, place].astype(int)
        rebuilt[k, top:bottom, left:right] = 1 + made.classes[k, place]
        assert right - left == bottom - top
        assert right - left in (16, 32, 64)
    assert np.array_equal(rebuilt, made.masks)
    assert (made.masks.reshape(20, -1).max(axis=1) > 0).all(), "an image without an object"


def test_a_seed_makes_the_same_compositions(compositions: Any) -> None:
    first, again, other = (compositions.compose(OBJECTS, LABELS, 3, 64, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    assert compositions.network_input(first.images).shape == (3, 3, 64, 64)

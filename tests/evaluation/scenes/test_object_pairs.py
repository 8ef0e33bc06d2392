"""Objects of two models: paired by their definition, and unchanged by the order of images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantkit.evaluation.scenes.object_pairs import LEAST, OVERLAP, THRESHOLD, box_overlaps, pair_objects
from quantkit.evaluation.scenes.object_summary import SceneNames, changed_scenes, object_matches
from quantkit.metrics.objects.found import FoundObjects

Rows = list[tuple[float, float, float, int]]
NAMES = SceneNames([f"{at}.jpg" for at in range(40)], ("cat", "dog"), lambda _: None)


def found_at(rows: Rows) -> FoundObjects:
    """Squares of 10 pixels by x, y, score and class."""
    table = np.array(sorted(rows, key=lambda row: -row[2]), np.float64).reshape(-1, 4)
    boxes = np.concatenate([table[:, :2], table[:, :2] + 10], axis=1)
    return FoundObjects(boxes, table[:, 2], table[:, 3].astype(np.intp), size=(50, 50))


objects = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.floats(0.01, 0.99), st.integers(0, 1)), max_size=8
)


@given(objects, objects)
def test_pairs_keep_their_rules(first: Rows, second: Rows) -> None:
    pair = pair_objects(found_at(first), found_at(second))
    partners = pair.partners[pair.partners >= 0]
    assert len(set(partners.tolist())) == len(partners)
    for at, other in enumerate(pair.partners):
        if other >= 0:
            assert pair.reference.classes[at] == pair.candidate.classes[other]
            overlap = box_overlaps(pair.reference.boxes[[at]], pair.candidate.boxes[[other]])[0, 0]
            assert overlap >= OVERLAP
            assert pair.overlaps[at] == pytest.approx(overlap)
    counted = int((pair.reference.scores >= THRESHOLD).sum())
    assert pair.lost.size + pair.kept.size == counted
    assert (pair.reference.scores >= LEAST).all()
    matches = object_matches([pair])
    assert (matches.objects, matches.found, matches.new) == (counted, pair.kept.size, pair.new.size)


@given(objects)
def test_a_model_finds_its_own_objects(rows: Rows) -> None:
    found = found_at(rows)
    pair = pair_objects(found, found)
    assert not pair.lost.size
    assert not pair.new.size
    assert np.allclose(pair.overlaps, 1.0)
    assert not changed_scenes([pair], None, NAMES, 5)
    matches = object_matches([pair, pair])
    if matches.objects:
        assert (matches.share, matches.high) == (1.0, 1.0)
        assert matches.low**matches.objects == pytest.approx(0.025)


@settings(max_examples=20)
@given(st.lists(st.tuples(objects, objects), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(images: list[tuple[list, list]], random: object) -> None:  # type: ignore[type-arg]
    pairs = [pair_objects(found_at(first), found_at(second)) for first, second in images]
    forward, backward = object_matches(pairs), object_matches(pairs[::-1])
    for name in ("objects", "found", "new", "share", "mean_iou", "shift"):
        assert getattr(forward, name) == pytest.approx(getattr(backward, name), nan_ok=True)


def test_what_changed_is_told_apart() -> None:
    before = found_at([(0, 0, 0.9, 0), (20, 0, 0.6, 1), (0, 30, 0.3, 0), (30, 30, 0.2, 0)])
    after = found_at([(1, 0, 0.8, 0), (20, 0, 0.55, 0), (0, 30, 0.2, 0), (40, 40, 0.4, 1)])
    matches = object_matches([pair_objects(before, after)])
    assert (matches.objects, matches.found, matches.new) == (3, 2, 2)
    assert matches.share == pytest.approx(2 / 3)
    assert matches.mean_iou == pytest.approx((90 / 110 + 1) / 2)
    assert matches.shift == pytest.approx(-10.0)
    assert math.isnan(matches.low)  # a single image
    (scene,) = changed_scenes([pair_objects(before, after)], None, NAMES, 5)
    assert (scene.sample, scene.size, scene.lost, scene.new, scene.labels) == ("0.jpg", (50, 50), 1, 2, ())
    assert [(o.name, o.score, o.partner) for o in scene.reference] == [
        ("cat", 0.9, 0),
        ("dog", 0.6, None),
        ("cat", 0.3, 3),
    ]
    assert [(o.name, o.score, o.partner) for o in scene.candidate] == [
        ("cat", 0.8, 0), ("cat", 0.55, None), ("dog", 0.4, None), ("cat", 0.2, 2),
    ]  # fmt: skip


def test_images_are_sorted_by_what_is_lost() -> None:
    def pair(score: float, shift: float) -> object:
        rows = [(0.0, 0.0, score, 0), (20.0, 20.0, 0.5, 0)]
        return pair_objects(found_at(rows), found_at([(20.0, 20.0, 0.5 + shift, 0)]))

    pairs = [pair(0.3, 0.0), pair(0.9, 0.0), pair(0.9, 0.1), pair(0.1, 0.0)]
    assert [scene.sample for scene in changed_scenes(pairs, None, NAMES, 3)] == ["2.jpg", "1.jpg", "0.jpg"]  # type: ignore[arg-type]

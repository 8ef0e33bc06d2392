"""Labels that say the same have the same digest, whatever the batches; others have another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.metrics.boxes import ClassMap, ImageGeometry, Objects, Outline, Scene
from quantkit.metrics.label_digest import LabelDigest

GEOMETRY = ImageGeometry((8, 8), (1.0, 1.0), (0.0, 0.0), (8, 8))
OBJECTS = Objects(
    np.array([1]), np.array([[0.0, 0, 4, 4]]), np.array([False]), np.array([16.0]), (Outline((np.eye(3, 2),)),),
    np.zeros((1, 2, 3)),
)  # fmt: skip
VALUES = st.one_of(st.integers(-9, 9), st.floats(allow_nan=False), st.text(max_size=3), st.none(), st.booleans())


def digest(*batches: list[Any]) -> str | None:
    made = LabelDigest()
    for batch in batches:
        made.add(batch)
    return made.text


@given(st.lists(st.lists(VALUES, max_size=3), min_size=1, max_size=4), st.data())
def test_batches_do_not_matter_and_every_value_does(labels: list[Any], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(labels)))
    assert digest(labels) == digest(labels[:cut], labels[cut:])
    assert digest(labels) != digest([*labels, []])
    assert digest(labels) != digest([[*labels[0], "x"], *labels[1:]])


@pytest.mark.parametrize(
    "change",
    [
        {"classes": np.array([0])},
        {"boxes": np.array([[0.0, 0, 4, 5]])},
        {"crowd": np.array([True])},
        {"areas": None},
        {"outlines": (Outline((2 * np.eye(3, 2),)),)},
        {"keypoints": np.ones((1, 2, 3))},
    ],
)
def test_every_part_of_an_object_counts(change: dict[str, Any]) -> None:
    assert digest([Scene(OBJECTS, GEOMETRY)]) != digest([Scene(replace(OBJECTS, **change), GEOMETRY)])


def test_how_an_image_became_the_input_does_not_count() -> None:
    other = replace(GEOMETRY, scale=(2.0, 2.0), canvas=(16, 16))
    pixels = np.zeros((8, 8), np.uint8)
    assert digest([Scene(OBJECTS, GEOMETRY)]) == digest([Scene(OBJECTS, other)])
    assert digest([ClassMap(pixels, GEOMETRY)]) == digest([ClassMap(pixels, other)])
    assert digest([ClassMap(pixels, GEOMETRY)]) != digest([ClassMap(pixels + 1, GEOMETRY)])


def test_labels_of_unknown_types_have_no_digest() -> None:
    assert digest([{"a": np.ones(2)}]) == digest([{"a": np.ones(2)}]) is not None
    assert digest([object()]) is digest([np.array([None])]) is digest([]) is None

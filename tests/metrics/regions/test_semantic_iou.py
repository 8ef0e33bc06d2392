"""Semantic segmentation: mean IoU against its definition, and maps against the image they were made from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantkit.errors import DataError, UsageError
from quantkit.metrics.boxes import IGNORED, ClassMap, ImageGeometry, image_geometry
from quantkit.metrics.heads.facts import example_facts
from quantkit.metrics.heads.head import HeadQuestion
from quantkit.metrics.metric import MetricResult
from quantkit.metrics.regions.map_head import describe_map_head, find_map_head, require_map_head
from quantkit.metrics.semantic_iou import ACCURACY, SemanticIou
from quantkit.metrics.task import NetworkFacts, Task
from quantkit.preprocess import Preprocess

SIDE = 12
PLAIN = ImageGeometry((SIDE, SIDE), (1.0, 1.0), (0.0, 0.0), (SIDE, SIDE))
CLASSES = 4
Maps = NDArray[Any]


def maps_of(seed: int, images: int = 9) -> tuple[Maps, Maps]:
    """Labels with ignored pixels, and predictions that are right at about half of the pixels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, (images, SIDE, SIDE))
    found = np.where(random.random(labels.shape) < 0.5, labels, random.integers(0, CLASSES, labels.shape))
    labels[random.random(labels.shape) < 0.1] = IGNORED
    return labels.astype(np.uint8), found.astype(np.int64)


def scored(labels: Maps, output: Maps, batch: int = 4, geometry: ImageGeometry = PLAIN) -> MetricResult:
    metric = SemanticIou()
    for at in range(0, len(labels), batch):
        part = [ClassMap(label, geometry) for label in labels[at : at + batch]]
        metric.add({"out": output[at : at + batch]}, part, [f"{at + i}.png" for i in range(len(part))])
    return metric.result()


def by_definition(labels: Maps, found: Maps) -> tuple[float, float]:
    """Mean IoU and pixel accuracy from sets of pixels."""
    counts = labels != IGNORED
    ious = []
    for number in range(CLASSES):
        first, second = (labels == number) & counts, (found == number) & counts
        if (first | second).any():
            ious.append((first & second).sum() / (first | second).sum())
    return float(np.mean(ious)), float((labels == found)[counts].mean())


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
@settings(max_examples=20)
def test_the_mean_iou_is_its_definition(seed: int, batch: int) -> None:
    labels, found = maps_of(seed)
    expected = by_definition(labels, found)
    result = scored(labels, found, batch)
    assert (result.value, result.further[ACCURACY]) == pytest.approx(expected, abs=1e-12)
    logits = np.eye(CLASSES, dtype=np.float32)[found].transpose(0, 3, 1, 2)
    assert scored(labels, logits, batch).value == pytest.approx(result.value, abs=1e-12)
    order = np.random.default_rng(seed).permutation(len(labels))
    assert scored(labels[order], found[order]).value == pytest.approx(result.value, abs=1e-12)


def test_a_draw_is_the_images_drawn() -> None:
    labels, found = maps_of(3)
    result = scored(labels, found)
    chosen = np.array([0, 0, 4, 7, 7, 7, 2, 1, 8])
    assert result.resample is not None
    assert result.replicate is not None
    assert result.resample(chosen) == pytest.approx(scored(labels[chosen], found[chosen]).value, abs=1e-12)
    ones = np.ones((1, len(labels)))
    assert result.replicate(ones)[0, 0] == pytest.approx(result.value)
    assert np.allclose(result.replicate(5 * ones), result.replicate(ones))


def test_perfect_and_hopeless_segmenters() -> None:
    labels, _ = maps_of(0)
    right = np.where(labels == IGNORED, 1, labels).astype(np.int64)
    assert scored(labels, right).value == 1.0
    assert scored(labels, (right + 1) % CLASSES).value == 0.0


@pytest.mark.parametrize("resize", ["exact", "letterbox", "shortest"])
@pytest.mark.parametrize("shrink", [1, 4])
@pytest.mark.parametrize("form", ["logits", "indices", "sigmoid"])
def test_a_map_is_where_it_was_in_the_image(resize: Any, shrink: int, form: str) -> None:
    """A half plane of the input is the same half plane of the image; what a crop left out does not count."""
    way = image_geometry(Preprocess(resize=resize, size=(32, 64)), (100, 60))
    x = (np.arange(64 // shrink) + 0.5) * shrink
    level = np.broadcast_to(x - 40.0, (32 // shrink, 64 // shrink)).astype(np.float32)
    one = np.stack([-level, level]) if form == "logits" else (level > 0).astype(np.int64)
    output = level[None, None] if form == "sigmoid" else one[None]
    head = require_map_head(HeadQuestion(example_facts({"out": output})), None)
    (found,) = head.predict({"out": output}, [way], ["a"])
    place_x = (np.arange(100) + 0.5) * way.scale[0] + way.offset[0]
    place_y = (np.arange(60) + 0.5) * way.scale[1] + way.offset[1]
    outside = ((place_y < 0) | (place_y > 32))[:, None] | ((place_x < 0) | (place_x > 64))[None, :]
    clear = np.abs(place_x - 40.0) > (shrink if form == "indices" else 0.01)
    assert found.shape == (60, 100)
    assert ((found == IGNORED) == outside).all()
    assert outside.any() == (resize == "shortest")
    wanted = np.broadcast_to(place_x > 40.0, found.shape)
    assert np.array_equal(found[:, clear][~outside[:, clear]], wanted[:, clear][~outside[:, clear]])


def facts(**outputs: Maps) -> HeadQuestion:
    return HeadQuestion(example_facts(outputs))


def test_a_map_is_recognised_where_the_network_shows_it() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(1, 5, 8, 8)).astype(np.float32)
    assert find_map_head(facts(out=logits)) is None
    assert find_map_head(facts(out=random.integers(0, 5, (1, 8, 8)))) is not None
    declared = HeadQuestion(example_facts({"out": logits}), NetworkFacts(Task.SEMANTIC))
    assert find_map_head(declared).summary == "class maps, 5 classes"  # type: ignore[union-attr]
    assert require_map_head(facts(out=logits), None).classes == 5
    assert require_map_head(facts(out=logits, aux=logits), None).output == "out"
    with pytest.raises(UsageError, match="several outputs may hold") as caught:
        require_map_head(facts(a=logits, b=logits), None)
    assert "miou@a" in caught.value.remedy
    assert require_map_head(facts(a=logits, b=logits), "b").output == "b"
    with pytest.raises(UsageError, match="no output may hold"):
        require_map_head(facts(a=np.zeros((1, 10), np.float32)), None)
    assert describe_map_head({"out": (1, 21, 64, 64)}, NetworkFacts()) == "class maps, 21 classes"
    assert describe_map_head({"out": (1, 3, 64, 64)}, NetworkFacts()) is None
    assert describe_map_head({"out": (1, 3, 64, 64)}, NetworkFacts(Task.SEMANTIC)) == "class maps, 3 classes"


def test_misfits_are_reported_with_the_images_name() -> None:
    labels, found = maps_of(0)
    with pytest.raises(DataError, match=r"0\.png: a pixel has class 3, but output out has 2 classes"):
        scored(labels, np.zeros((9, 2, SIDE, SIDE), np.float32))
    with pytest.raises(DataError, match=r"0\.png has no class map as its label"):
        SemanticIou().add({"out": found[:1]}, [3], ["0.png"])
    with pytest.raises(DataError, match=r"0\.png: output out holds NaN"):
        scored(labels, np.full((9, CLASSES, SIDE, SIDE), np.nan, np.float32))
    with pytest.raises(DataError, match="no pixel has a label"):
        scored(np.full_like(labels, IGNORED), found)
    with pytest.raises(DataError, match="holds class 300"):
        scored(labels, np.full_like(found, 300))
    with pytest.raises(DataError, match="one row for each of 4 images"):
        scored(labels[:4], found[:1])

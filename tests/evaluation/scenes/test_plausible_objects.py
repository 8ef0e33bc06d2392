"""A detector whose classes have another order, or that finds next to nothing, is not taken for a reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.evaluation.scenes.plausible_objects import implausible_objects
from quantkit.metrics.boxes import ImageGeometry, Objects, Scene
from quantkit.metrics.objects.figures import ObjectFigures
from quantkit.metrics.objects.object_map import BOXES, ObjectMap

pytest.importorskip("pycocotools")
GEOMETRY = ImageGeometry((64, 64), (1.0, 1.0), (0.0, 0.0), (64, 64))
CLASSES = 3


def figures_of(images: int, found_class: Callable[[int], int], shift: float = 0.0) -> ObjectFigures:
    """A box of class i % 3 in image i, found as another class and `shift` pixels to the right."""
    outputs = np.zeros((images, 4 + CLASSES, 20), np.float32)
    scenes = []
    for i in range(images):
        kind = i % CLASSES
        outputs[i, :4, 0] = 16 + shift, 16, 20, 20
        outputs[i, 4 + found_class(kind), 0] = 0.9
        scenes.append(Scene(Objects(np.array([kind]), np.array([[6.0, 6, 26, 26]]), np.zeros(1, np.bool_)), GEOMETRY))
    metric = ObjectMap(BOXES, "v8")
    metric.add({"output0": outputs}, scenes, [f"{i}.jpg" for i in range(images)])
    detail = metric.result().detail
    assert isinstance(detail, ObjectFigures)
    return detail


@given(st.permutations(range(CLASSES)))
def test_another_order_of_the_classes_is_noticed(order: list[int]) -> None:
    doubt = implausible_objects("a.onnx", figures_of(30, order.__getitem__))
    if order == sorted(order):
        assert doubt is None
    else:
        right = 10 * sum(at == other for at, other in enumerate(order))
        assert doubt is not None
        assert f"names {right} of 30 objects rightly, and would 30 if" in doubt


def test_a_detector_that_finds_next_to_nothing_is_in_doubt() -> None:
    doubt = implausible_objects("a.onnx", figures_of(30, int, shift=30.0))
    assert doubt is not None
    assert "a.onnx has a mAP50 of 0.00 %" in doubt


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_a_few_objects_prove_nothing(shift: float) -> None:
    assert implausible_objects("a.onnx", figures_of(6, lambda kind: (kind + 1) % CLASSES, shift)) is None

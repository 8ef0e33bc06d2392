"""Values of changed objects and regions: run lengths against the pixels, and the way through JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from quantkit.errors import DataError
from quantkit.evaluation.json_document import evaluation_json, parse_evaluation
from quantkit.evaluation.object_changes import (
    ChangedMap,
    ChangedScene,
    Histogram,
    ObjectChanges,
    ObjectMatches,
    PrecisionChange,
    PrecisionCurve,
    RegionChange,
    RegionChanges,
    SceneObject,
    run_lengths,
)
from quantkit.evaluation.result import Evaluation, ModelKind, ModelScore

MASK = run_lengths(np.array([[0, 1, 1], [0, 0, 1]], np.uint8))
OBJECT = SceneObject("cat", (1.0, 2.0, 3.5, 4.0), 0.5, 0, MASK, ((1.0, 2.0, 0.9),))
LOST = SceneObject("dog", (0.0, 0.0, 1.0, 1.0), 0.4)
OBJECTS = ObjectChanges(
    kind="masks",
    head="v8 head, 2 classes",
    matches=ObjectMatches(0.25, 2, 1, 0, 0.5, math.nan, math.nan, 0.75, -1.5),
    shifts=Histogram((-1.0, 0.0, 1.0), (1, 0)),
    classes=(PrecisionChange("cat", 3, 0.5, 0.25, 25.0, math.nan, math.nan, 0.75, 0.5),),
    curves=(PrecisionCurve("cat", (1.0, 0.5), (0.5, 0.25)),),
    scenes=(ChangedScene("a.jpg", Path("images/a.jpg"), (3, 2), (LOST,), (OBJECT, LOST), (OBJECT,), 1, 0),),
    changed_images=1,
)
REGIONS = RegionChanges(
    ("sky", "road"), 0.75, 0.5, 1.0, 0.6,
    (RegionChange("sky", 5, 0.75, math.nan, math.nan, math.nan, math.nan, math.nan),),
    (ChangedMap("a.jpg", None, 0.5, None, MASK, MASK),),
)  # fmt: skip
MODEL = ModelScore("a.onnx", ModelKind.FLOAT, None, "", 1, {}, None)
MODELS = (MODEL, replace(MODEL, name="b.onnx", objects=OBJECTS, regions=REGIONS))
EVALUATION = Evaluation(MODELS, 1, None, True, (), (), {}, 1.0)


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7), elements=st.integers(0, 2)))
def test_run_lengths_give_the_pixels_back(pixels: NDArray[Any]) -> None:
    found = run_lengths(pixels)
    assert np.array_equal(found.pixels(), pixels)
    assert all(length > 0 for length in found.lengths)


def test_changes_survive_json() -> None:
    document = json.loads(json.dumps(evaluation_json(EVALUATION), allow_nan=False))
    again = parse_evaluation(document, "a.json")
    assert repr(again.models) == repr(EVALUATION.models)  # NaN differs from itself
    assert document["models"][0]["objects"] is document["models"][0]["regions"] is None


@pytest.mark.parametrize("key", ["matches", "scenes"])
def test_damage_is_reported(key: str) -> None:
    document = evaluation_json(EVALUATION)
    document["models"][1]["objects"][key] = 5
    with pytest.raises(DataError, match=r"a\.json is damaged: .*objects"):
        parse_evaluation(document, "a.json")

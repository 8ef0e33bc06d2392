"""Values for tests of detectors' and segmenters' reports, by hand and by hypothesis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

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
    RunLengths,
    SceneObject,
    run_lengths,
)
from tests.support.reports import COUNTS, NUMBERS, TEXTS

WIDE, TALL = 320, 240
BOX = (32.0, 48.0, 96.0, 112.0)


def scene(name: str = "street.jpg", path: Path | None = None, **changes: Any) -> ChangedScene:
    """A scene with a lost dog, a cat that both find, and a new bird."""
    given: dict[str, Any] = {
        "labels": (SceneObject("dog", BOX),),
        "reference": (SceneObject("dog", BOX, 0.83), SceneObject("cat", (160.0, 48.0, 224.0, 112.0), 0.64, 0)),
        "candidate": (
            SceneObject("cat", (161.0, 49.0, 225.0, 113.0), 0.31, 1),
            SceneObject("bird", (0.0, 0.0, 20.0, 20.0), 0.5),
        ),
        "lost": 1,
        "new": 1,
    }
    return ChangedScene(name, path, (WIDE, TALL), **(given | changes))


def object_changes(**changes: Any) -> ObjectChanges:
    """Changes of a detector with everything that one can have."""
    given: dict[str, Any] = {
        "kind": "boxes",
        "head": "v8 head, 3 classes",
        "matches": ObjectMatches(0.25, 412, 399, 7, 399 / 412, 0.951, 0.981, 0.9573, -2.91),
        "shifts": Histogram((-0.2, -0.1, 0.0, 0.1), (31, 260, 108)),
        "classes": (
            PrecisionChange("triangle", 171, 0.7012, 0.6701, 3.11, 2.04, 4.37, 0.9131, 0.8977),
            PrecisionChange("circle", 133, 0.8123, 0.8091, 0.32, -0.71, 1.63, 0.9511, 0.9503),
        ),
        "sizes": (PrecisionChange("small", 201, 0.4521, 0.4117, 4.04, 2.01, 6.13, 0.8822, 0.8411),),
        "curves": (PrecisionCurve("triangle", tuple(1.0 - i / 100 for i in range(101)), (1.0,) * 50 + (0.0,) * 51),),
        "scenes": (scene(),),
        "changed_images": 41,
    }
    return ObjectChanges(**(given | changes))


def class_map(shift: int = 0) -> RunLengths:
    """A square of class 1 on class 0, and a column that does not count."""
    pixels = np.zeros((60, 80), np.uint8)
    pixels[10:30, 20 + shift : 50 + shift] = 1
    pixels[:, 79] = 255
    return run_lengths(pixels)


def region_changes(**changes: Any) -> RegionChanges:
    """Changes of a segmenter with everything that one can have."""
    given: dict[str, Any] = {
        "names": ("background", "road"),
        "agreement": 0.9831,
        "low": 0.9812,
        "high": 0.9849,
        "mean_iou": 0.9107,
        "classes": (RegionChange("road", 60_123, 0.9511, 0.9021, 0.8803, 2.18, 1.71, 2.83),),
        "maps": (ChangedMap("street.png", None, 0.9593, class_map(), class_map(1), class_map(2)),),
    }
    return RegionChanges(**(given | changes))


# ── any value ───────────────────────────────────────────────────────────────────────────────────────────────────────

BOXES = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
MASKS = st.none() | st.builds(
    lambda seed, size: run_lengths(np.random.RandomState(seed).randint(0, 2, size).astype(np.uint8)),
    st.integers(0, 9),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
OBJECTS = st.lists(
    st.builds(
        SceneObject,
        TEXTS,
        BOXES,
        st.none() | NUMBERS,
        st.none() | st.integers(-1, 4),
        MASKS,
        st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=2).map(tuple),
    ),
    max_size=3,
).map(tuple)
SCENES = st.builds(
    ChangedScene,
    TEXTS,
    st.none(),
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    OBJECTS,
    OBJECTS,
    OBJECTS,
    COUNTS,
    COUNTS,
)
CHANGES = st.lists(
    st.builds(PrecisionChange, TEXTS, COUNTS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    max_size=3,
).map(tuple)
OBJECT_CHANGES = st.builds(
    ObjectChanges,
    st.sampled_from(["boxes", "masks", "keypoints"]),
    TEXTS,
    st.builds(ObjectMatches, NUMBERS, COUNTS, COUNTS, COUNTS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(Histogram, st.lists(NUMBERS, max_size=4).map(tuple), st.lists(COUNTS, max_size=3).map(tuple)),
    CHANGES,
    CHANGES,
    st.lists(
        st.builds(
            PrecisionCurve, TEXTS, st.lists(NUMBERS, max_size=5).map(tuple), st.lists(NUMBERS, max_size=5).map(tuple)
        ),
        max_size=2,
    ).map(tuple),
    st.lists(SCENES, max_size=2).map(tuple),
    COUNTS,
)
MAPS = st.builds(
    lambda seed, size: run_lengths(np.random.RandomState(seed).randint(0, 3, size).astype(np.uint8)),
    st.integers(0, 9),
    st.tuples(st.integers(1, 400), st.integers(1, 9)),
)
REGION_CHANGES = st.builds(
    RegionChanges,
    st.lists(TEXTS, max_size=3).map(tuple),
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    st.lists(
        st.builds(RegionChange, TEXTS, COUNTS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=3
    ).map(tuple),
    st.lists(st.builds(ChangedMap, TEXTS, st.none(), NUMBERS, st.none() | MAPS, MAPS, MAPS), max_size=2).map(tuple),
)

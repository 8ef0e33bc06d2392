"""Semantic segmentation end to end: a tiny network whose regions are known, with and without labels."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantkit import evaluate
from quantkit.evaluation.json_document import evaluation_json, parse_evaluation
from quantkit.values import Array
from tests.evaluation.scenes.test_detectors import network
from tests.support.heads import CANVAS

WIDTH, HEIGHT = CANVAS


def scores(edge: int) -> Array:
    """Probabilities of two classes: class 1 from x = edge on."""
    right = np.broadcast_to(np.arange(WIDTH) >= edge, (HEIGHT, WIDTH))
    return np.stack([~right, right])[None].astype(np.float32)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images, the right half of which is class 1; the top quarter has no label."""
    label = np.broadcast_to(np.arange(WIDTH) >= WIDTH // 2, (HEIGHT, WIDTH)).astype(np.uint8).copy()
    label[: HEIGHT // 4] = 255
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for at in range(3):
        Image.new("RGB", CANVAS, (at, 2, 3)).save(tmp_path / f"images/{at}.png")
        Image.fromarray(label).save(tmp_path / f"masks/{at}.png")
    return tmp_path / "images"


def test_regions_are_measured_and_compared(images: Path, tmp_path: Path) -> None:
    models = [
        network(tmp_path / f"{n}.onnx", {"out": scores(e)}) for n, e in (("float", WIDTH // 2), ("int8", WIDTH // 4))
    ]
    found = evaluate(models, images, preprocess="unit", metrics="miou", labels=tmp_path / "masks")
    reference, candidate = found.models
    assert reference.metrics == {"mIoU": 1.0, "pixel-accuracy": 1.0}
    assert candidate.metrics["mIoU"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert candidate.metrics["pixel-accuracy"] == pytest.approx(3 / 4)
    regions = candidate.regions
    assert regions is not None
    assert regions.agreement == pytest.approx(3 / 4)
    assert [(c.name, round(c.drop, 6)) for c in regions.classes] == [("0", 50.0), ("1", round(100 / 3, 6))]
    assert regions.classes[0].pixels == 3 * (HEIGHT - HEIGHT // 4) * WIDTH // 2
    assert len(regions.maps) == 3
    first = regions.maps[0]
    assert first.label is not None
    assert np.array_equal(first.reference.pixels(), scores(WIDTH // 2)[0, 1])
    assert np.array_equal(first.candidate.pixels(), scores(WIDTH // 4)[0, 1])
    assert first.label.pixels()[0, 0] == 255
    assert first.path == images / first.sample
    assert "has the reference's class at 75.00 % of the pixels" in found.verdict[0]
    document = json.loads(json.dumps(evaluation_json(found), allow_nan=False))
    assert repr(parse_evaluation(document, "a").models) == repr(found.models)


def test_without_labels_pixels_are_compared(images: Path, tmp_path: Path) -> None:
    maps = {n: scores(e)[:, 1].astype(np.int64) for n, e in (("float", WIDTH // 2), ("int8", WIDTH // 4))}
    models = [network(tmp_path / f"{n}.onnx", {"out": values}) for n, values in maps.items()]
    found = evaluate(models, images, preprocess="unit", without_labels=True)
    regions = found.candidates[0].regions
    assert regions is not None
    assert regions.agreement == pytest.approx(3 / 4)
    assert regions.mean_iou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert [c.agreement for c in regions.classes] == pytest.approx([1 / 2, 2 / 3])
    assert all(math.isnan(c.drop) for c in regions.classes)
    assert found.candidates[0].matches == ()

"""Instance segmentation and keypoints end to end: tiny networks whose masks and points are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantkit import evaluate
from quantkit.values import Array
from tests.evaluation.scenes import test_detectors as detectors
from tests.evaluation.scenes.test_detectors import ROWS, WORSE, network
from tests.support import heads
from tests.support.heads import CANVAS, Row

images = detectors.images
WIDTH, HEIGHT = CANVAS
POINTS = 2


def masked(rows: list[Row]) -> dict[str, Array]:
    """A v8 head whose masks fill their boxes."""
    plain = heads.v8(rows)["output0"]
    ones = np.ones((1, 1, plain.shape[2]), np.float32)
    return {"output0": np.concatenate([plain, ones], axis=1), "output1": np.full((1, 1, 24, 32), 5.0, np.float32)}


def corners_of(rows: list[Row]) -> Array:
    """Keypoints [M, 2, 3]: two corners of each box, visible."""
    table = np.array(rows, np.float32)
    return np.stack(
        [np.stack([table[:, at], table[:, at + 1], np.full(len(rows), 2)], axis=1) for at in (0, 2)], axis=1
    )


def pose(rows: list[Row]) -> dict[str, Array]:
    """A v8 head of one class whose keypoints are corners of the boxes."""
    plain = heads.v8(rows)["output0"]
    made = np.zeros((1, 5 + 3 * POINTS, plain.shape[2]), np.float32)
    made[0, :4], made[0, 4] = plain[0, :4], plain[0, 4:].max(axis=0)
    made[0, 5:, : len(rows)] = corners_of(rows).reshape(len(rows), -1).T
    return {"output0": made}


def rewrite_labels(folder: Path, lines: list[str]) -> None:
    for path in (folder / "labels").iterdir():
        path.write_text("\n".join(lines), encoding="utf-8")


def test_masks_are_measured_and_compared(images: Path) -> None:
    folder = images.parent
    corner = [[(r[0], r[1]), (r[2], r[1]), (r[2], r[3]), (r[0], r[3])] for r in ROWS]
    texts = [" ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in points) for points in corner]
    rewrite_labels(folder, [f"{row[5]} {text}" for row, text in zip(ROWS, texts, strict=True)])
    models = [network(folder / f"{name}.onnx", masked(rows)) for name, rows in (("float", ROWS), ("int8", WORSE))]
    found = evaluate(models, images, preprocess="unit", metrics="mask-map")
    reference, candidate = found.models
    assert reference.metrics["mask-mAP50"] == pytest.approx(1.0)
    assert reference.metrics["mask-mAP50-95"] > 0.85  # polygons take pixels that are touched, masks those inside
    assert reference.metrics["mAP50-95"] == pytest.approx(1.0)
    assert candidate.metrics["mask-mAP50"] == pytest.approx(2 / 3)
    assert candidate.objects is not None
    assert candidate.objects.kind == "masks"
    (first, *_) = candidate.objects.scenes
    mask = first.reference[0].mask
    assert mask is not None
    x1, y1, x2, y2 = map(int, ROWS[0][:4])
    assert mask.pixels().sum() == (x2 - x1) * (y2 - y1)
    assert mask.pixels()[y1:y2, x1:x2].all()
    assert first.labels[0].mask is not None
    alone = evaluate(models, images, preprocess="unit", without_labels=True).candidates[0].objects
    assert alone is not None
    assert (alone.kind, alone.matches.objects, alone.matches.found) == ("masks", 9, 6)
    assert alone.matches.mean_iou == pytest.approx(1.0)


def test_keypoints_are_measured(images: Path) -> None:
    folder = images.parent
    lines = []
    for row, points in zip(ROWS, corners_of(ROWS), strict=True):
        x1, y1, x2, y2 = row[:4]
        box = f"{(x1 + x2) / 2 / WIDTH} {(y1 + y2) / 2 / HEIGHT} {(x2 - x1) / WIDTH} {(y2 - y1) / HEIGHT}"
        lines.append(f"0 {box} " + " ".join(f"{x / WIDTH} {y / HEIGHT} {int(v)}" for x, y, v in points))
    rewrite_labels(folder, lines)
    (folder / "data.yaml").write_text("val: images\nnames: [thing]\nkpt_shape: [2, 3]\n", encoding="utf-8")
    models = [network(folder / f"{name}.onnx", pose(rows)) for name, rows in (("float", ROWS), ("int8", WORSE))]
    found = evaluate(models, folder / "data.yaml", preprocess="unit", metrics="keypoint-map")
    reference, candidate = found.models
    assert reference.metrics["keypoint-mAP50-95"] == pytest.approx(1.0)
    assert candidate.metrics["keypoint-mAP50"] == pytest.approx(67 / 101, abs=1e-6)
    assert candidate.objects is not None
    assert candidate.objects.kind == "keypoints"
    assert len(candidate.objects.scenes[0].reference[0].keypoints) == POINTS

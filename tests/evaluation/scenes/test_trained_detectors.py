"""Trained detectors on photographs: figures equal to pycocotools' own on the files, and a head found in a graph."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from quantkit import evaluate
from quantkit.metrics.heads.facts import example_facts
from quantkit.metrics.heads.find import require_head
from quantkit.metrics.heads.head import HeadQuestion

pytestmark = [pytest.mark.shared, pytest.mark.slow]
IMAGES = 12
SIDE = 320


@pytest.fixture(scope="module")
def collage(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few labelled images."""
    folder = tmp_path_factory.mktemp("collage")
    with tarfile.open(shared / "data/collage.tar.xz") as archive:
        for member in archive:
            name = Path(member.name)
            if (
                name.stem.isdigit()
                and int(name.stem) % 10 == 0
                and int(name.stem) < 10 * IMAGES
                and "val" in name.parts
            ):
                archive.extract(member, folder, filter="data")
    return folder


def coco_labels(folder: Path) -> dict[str, Any]:
    """YOLO's text files as a COCO document, written for this test alone."""
    images, annotations = [], []
    for path in sorted(folder.glob("images/val/*")):
        images.append({"id": len(images) + 1, "file_name": path.name, "width": SIDE, "height": SIDE})
        text = (folder / "labels/val" / f"{path.stem}.txt").read_text(encoding="utf-8")
        for line in text.splitlines():
            kind, x, y, width, height = map(float, line.split())
            box = [(x - width / 2) * SIDE, (y - height / 2) * SIDE, width * SIDE, height * SIDE]
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": len(images), "category_id": int(kind) + 1, "bbox": box,
                    "area": box[2] * box[3], "iscrowd": 0,
                }
            )  # fmt: skip
    categories = [{"id": number, "name": str(number)} for number in range(1, 11)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_figures(model: Path, folder: Path, tmp_path: Path) -> list[float]:
    """The network run by onnxruntime alone, its boxes written as COCO's results, and pycocotools' own figures."""
    document = coco_labels(folder)
    (tmp_path / "labels.json").write_text(json.dumps(document), encoding="utf-8")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = []
    for image in document["images"]:
        pixels = np.asarray(Image.open(folder / "images/val" / image["file_name"]).convert("RGB"), np.float32) / 255
        output = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})[0]
        head = require_head(HeadQuestion(example_facts({"output0": output})), "v8", "map")
        found = head.decode((output[0],), (SIDE, SIDE))
        boxes = np.clip(found.boxes, 0, SIDE)
        for (x1, y1, x2, y2), score, kind in zip(boxes.tolist(), found.scores, found.classes, strict=True):
            rows.append(
                {
                    "image_id": image["id"], "category_id": int(kind) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(score),
                }
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(tmp_path / "labels.json")
        run = COCOeval(truth, truth.loadRes(rows), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(value) for value in run.stats]


def test_the_map_of_a_trained_detector_equals_pycocotools(shared: Path, collage: Path, tmp_path: Path) -> None:
    model = shared / "models/yolov8n.onnx"
    found = evaluate(model, collage / "images/val", metrics="map", batch_size=1)
    expected = coco_figures(model, collage, tmp_path)
    assert found.samples == IMAGES
    assert found.reference.metrics["mAP50-95"] == pytest.approx(expected[0], abs=1e-6)
    assert found.reference.metrics["mAP50"] == pytest.approx(expected[1], abs=1e-6)
    assert found.reference.metrics["mAP50-95"] > 0.5


def test_the_heads_of_trained_networks_are_found(shared: Path) -> None:
    from quantkit.evaluation.scenes.watch import head_question
    from quantkit.evaluation.subjects import model_subject
    from quantkit.graph import load_model
    from quantkit.metrics.heads.find import find_head

    for name, shape, summary in (
        ("ultraface", (1, 3, 240, 320), "ssd head, 1 class"), ("yolov8n", (1, 3, SIDE, SIDE), "v8 head, 10 classes"),
    ):  # fmt: skip
        path = shared / f"models/{name}.onnx"
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        pixels = np.random.default_rng(0).random(shape, np.float32)
        names = [output.name for output in session.get_outputs()]
        values = session.run(None, {session.get_inputs()[0].name: pixels})
        subject = model_subject(load_model(path))
        head = find_head(head_question(subject, dict(zip(names, values, strict=True))))
        assert head is not None
        assert head.summary == summary

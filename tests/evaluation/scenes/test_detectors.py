"""Detectors end to end: tiny networks with every kind of head, whose figures are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from quantkit import evaluate
from quantkit.errors import UsageError
from quantkit.evaluation.json_document import evaluation_json, parse_evaluation
from quantkit.evaluation.result import Evaluation
from quantkit.values import Array
from tests.support import heads
from tests.support.heads import CANVAS, Row

ROWS: list[Row] = [(10, 12, 58, 60, 0.8, 0), (70, 30, 120, 74, 0.7, 2), (4, 62, 42, 92, 0.6, 1)]
WORSE = [ROWS[0], (*ROWS[1][:4], 0.5, 2)]
"""One object of three is lost, and one has a lower score."""
Maker = Callable[[Sequence[Row]], Mapping[str, Array]]
MAKERS: dict[str, tuple[Maker, str]] = {
    "v8": (heads.v8, "map"),
    "v5": (heads.v5, "map"),
    "end2end": (heads.end2end, "map"),
    "v8-raw": (partial(heads.distances, bins=16, split=False), "map:v8-raw"),
    "detr": (heads.detr, "map:detr"),
    "rtdetr": (partial(heads.detr, background=False), "map:rtdetr"),
    "ssd": (heads.ssd, "map:ssd"),
    "nms": (heads.nms, "map"),
    "torchvision": (heads.torchvision, "map"),
    "selected": (heads.selected, "map"),
}
ALONE = {"v8", "v5", "end2end", "nms", "torchvision", "selected"}
"""Networks that show without a name or metadata what they are."""


def network(path: Path, outputs: Mapping[str, Array]) -> Path:
    """A network that gives these outputs for any image; its scores are far from a Softmax or a Sigmoid of the graph."""
    width, height = CANVAS
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, height, width])
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "mean"], ["zero"]),
    ]
    constants, results = [], []
    for name, values in outputs.items():
        constants.append(numpy_helper.from_array(np.ascontiguousarray(values), f"{name}_value"))
        kind = constants[-1].data_type
        nodes.append(helper.make_node("Cast", ["zero"], [f"{name}_zero"], to=kind))
        nodes.append(helper.make_node("Add", [f"{name}_value", f"{name}_zero"], [name]))
        shape: list[int | str] = list(values.shape)
        if name in ("boxes", "labels", "scores", "indices") and values.shape[0] != 1:
            shape[0] = "found"
        results.append(helper.make_tensor_value_info(name, kind, shape))
    graph = helper.make_graph(nodes, "detector", [image], results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images of the input's size with YOLO's labels: all objects of ROWS in each."""
    width, height = CANVAS
    for at in range(3):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", CANVAS, (at, 2, 3)).save(tmp_path / f"images/{at}.png")
        lines = [
            f"{kind} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}"
            for x1, y1, x2, y2, _, kind in ROWS
        ]
        (tmp_path / f"labels/{at}.txt").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "images"


def evaluated(images: Path, maker: Maker, **options: Any) -> Evaluation:
    models = [network(images.parent / f"{n}.onnx", maker(rows)) for n, rows in (("float", ROWS), ("int8", WORSE))]
    return evaluate(models, images, preprocess="unit", **options)


@pytest.mark.parametrize("name", MAKERS)
def test_labels_measure_every_head(name: str, images: Path) -> None:
    maker, metric = MAKERS[name]
    found = evaluated(images, maker, metrics=metric)
    reference, candidate = found.models
    assert reference.metrics["mAP50-95"] == pytest.approx(1.0)
    assert candidate.metrics["mAP50-95"] == pytest.approx(2 / 3)
    assert candidate.metrics["mAP50"] == pytest.approx(2 / 3)
    assert candidate.difference is not None
    assert candidate.difference.value == pytest.approx(100 / 3)
    objects = candidate.objects
    assert objects is not None
    assert [(c.name, c.objects) for c in objects.classes] == [("1", 3), ("0", 3), ("2", 3)]
    assert objects.classes[0].drop == pytest.approx(100.0)
    assert (objects.classes[0].low, objects.classes[0].high) == (pytest.approx(100.0), pytest.approx(100.0))
    assert sum(size.objects for size in objects.sizes) == 9
    assert objects.curves[0].reference == pytest.approx([1.0] * 101)
    assert not any(objects.curves[0].candidate)
    assert objects.scenes[0].path == images / objects.scenes[0].sample
    assert len(objects.scenes[0].labels) == 3


@pytest.mark.parametrize("name", sorted(ALONE))
def test_without_labels_objects_are_compared(name: str, images: Path) -> None:
    found = evaluated(images, MAKERS[name][0], without_labels=True)
    candidate = found.candidates[0]
    assert candidate.objects is not None
    matches = candidate.objects.matches
    assert (matches.objects, matches.found, matches.new) == (9, 6, 0)
    assert matches.mean_iou == pytest.approx(1.0, abs=1e-4)
    assert matches.shift == pytest.approx(-10.0, abs=1e-4)
    assert candidate.outputs == () or name == "selected"
    assert "finds 6 of the reference's 9 objects (66.67 %" in found.verdict[0]
    assert "scores 10.0 percentage points lower" in found.verdict[0]
    assert candidate.objects.changed_images == 3
    assert {(s.lost, s.new) for s in candidate.objects.scenes} == {(1, 0)}
    document = json.loads(json.dumps(evaluation_json(found), allow_nan=False))
    assert repr(parse_evaluation(document, "a").models) == repr(found.models)


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - ALONE))
def test_without_labels_a_metric_names_the_head(name: str, images: Path) -> None:
    maker, metric = MAKERS[name]
    found = evaluated(images, maker, metrics=metric, without_labels=True)
    assert found.metric is None
    objects = found.candidates[0].objects
    assert objects is not None
    assert (objects.matches.objects, objects.matches.found) == (9, 6)
    if name == "detr":
        unnamed = evaluated(images, maker, without_labels=True)
        assert unnamed.candidates[0].objects is None
        assert any("may be those of a detr or a rtdetr head" in note for note in unnamed.notes)


def test_without_labels_a_metric_that_names_no_head_is_refused(images: Path) -> None:
    with pytest.raises(UsageError, match="only the head of a detector may be named"):
        evaluated(images, heads.v8, metrics="top1", without_labels=True)


def test_an_ambiguous_head_is_named(images: Path) -> None:
    with pytest.raises(UsageError, match="may be those of a") as caught:
        evaluated(images, heads.detr, metrics="map")
    assert "--metric map:detr" in caught.value.remedy


def test_a_reference_without_objects_has_none_to_find(images: Path) -> None:
    faint: list[Row] = [(*row[:4], 0.2, row[5]) for row in ROWS]
    models = [network(images.parent / f"{n}.onnx", heads.v8(faint)) for n in ("float", "int8")]
    found = evaluate(models, images, preprocess="unit", without_labels=True)
    assert "has no objects to find again, because the reference's scores stay below 0.25" in found.verdict[0]
    json.dumps(evaluation_json(found), allow_nan=False)


def test_objects_that_cannot_be_decoded_are_left_out_with_a_reason(images: Path) -> None:
    outputs = dict(heads.selected(ROWS))
    outputs["indices"] = outputs["indices"] + 1000  # of anchors that do not exist, in image 1000
    outputs["indices"][:, 0] = 0
    models = [network(images.parent / f"{n}.onnx", outputs) for n in ("float", "int8")]
    found = evaluate(models, images, preprocess="unit", without_labels=True)
    assert found.candidates[0].objects is None
    assert any(note.startswith("objects are not compared: 0.png: the outputs are not those of") for note in found.notes)


def test_arrays_are_images_already(images: Path, tmp_path: Path) -> None:
    width, height = CANVAS
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((3, 3, height, width), np.float32))
    models = [network(tmp_path / f"{n}.onnx", heads.v8(rows)) for n, rows in (("float", ROWS), ("int8", WORSE))]
    found = evaluate(models, tmp_path / "a.npy")
    assert found.candidates[0].objects is not None
    assert found.candidates[0].objects.matches.share == pytest.approx(2 / 3)
    assert found.candidates[0].objects.scenes[0].size == CANVAS

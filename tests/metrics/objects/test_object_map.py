"""mAP of boxes, masks and keypoints: equal to pycocotools' own figures, also for samples of the images."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from quantkit.errors import BackendError, DataError, UsageError
from quantkit.evaluation import bootstrap
from quantkit.evaluation.paired import paired_difference
from quantkit.extras import install_command
from quantkit.metrics.boxes import ImageGeometry, Objects, Outline, Scene, image_geometry
from quantkit.metrics.heads.facts import example_facts
from quantkit.metrics.heads.head import HeadQuestion
from quantkit.metrics.metric import MetricResult
from quantkit.metrics.objects import matching
from quantkit.metrics.objects.figures import ALL, ObjectFigures
from quantkit.metrics.objects.found import encode_mask, image_mask, label_classes, mask_counts
from quantkit.metrics.objects.object_map import BOXES, BOXES_50, KEYPOINTS, MASKS, MapKind, ObjectMap
from quantkit.metrics.registry import is_share_metric, metric_title, resolve_metric
from quantkit.metrics.task import NetworkFacts, Task
from quantkit.preprocess import Preprocess
from quantkit.values import Array
from tests.support import heads
from tests.support.heads import CLASSES, Row

SIDE = 256
PLAIN = ImageGeometry((SIDE, SIDE), (1.0, 1.0), (0.0, 0.0), (SIDE, SIDE))
IMAGES = 24
PROTOS = 16
"""Prototypes: the cells of a grid of 4 × 4 over the input."""
POINTS = 4
Outputs = Mapping[str, Array]


def images_of(seed: int) -> tuple[list[Scene], Outputs]:
    """Images with up to four objects, and detections of them: shifted, missed, invented, of another class.

    Every detection has a mask of cells, and keypoints. Sizes reach from small to large.
    """
    random = np.random.default_rng(seed)
    scenes, boxes, protos = [], [], cell_prototypes()
    for _ in range(IMAGES):
        rows, found = [], []
        for _ in range(random.integers(0, 5)):
            x, y = random.uniform(0, 120, 2)
            width, height = random.uniform(12, 130, 2)
            kind = int(random.integers(0, CLASSES))
            rows.append((kind, x, y, x + width, y + height, bool(random.random() < 0.1)))
            if random.random() < 0.85:
                shift = random.normal(0, 0.08, 4) * (width, height, width, height)
                other = kind if random.random() < 0.9 else (kind + 1) % CLASSES
                found.append((*(np.array([x, y, x + width, y + height]) + shift), random.uniform(0.1, 0.5), other))
        for _ in range(random.integers(0, 3)):
            x, y = random.uniform(0, 180, 2)
            found.append((x, y, x + 60, y + 60, random.uniform(0.01, 0.4), int(random.integers(0, CLASSES))))
        scenes.append(Scene(labels_of(rows, random), PLAIN))
        boxes.append(columns_of(found, random))
    return scenes, {"output0": np.stack(boxes), "output1": np.repeat(protos[None], IMAGES, axis=0)}


def labels_of(rows: Sequence[tuple[Any, ...]], random: np.random.Generator) -> Objects:
    """Boxes, with an octagon and keypoints inside each."""
    table = np.array([row[1:5] for row in rows], np.float64).reshape(-1, 4)
    outlines, points = [], np.zeros((len(rows), POINTS, 3))
    for at, (x1, y1, x2, y2) in enumerate(table):
        turn = np.arange(8) * np.pi / 4 + 0.3
        centre, half = np.array([x1 + x2, y1 + y2]) / 2, np.array([x2 - x1, y2 - y1]) / 2
        outlines.append(Outline((centre + half * np.stack([np.cos(turn), np.sin(turn)], axis=1),)))
        points[at, :, :2] = centre + half * random.uniform(-1, 1, (POINTS, 2))
        points[at, :, 2] = random.integers(0, 3, POINTS)
    classes, crowd = np.array([r[0] for r in rows], np.intp), np.array([r[5] for r in rows], np.bool_)
    return Objects(classes, table, crowd, None, tuple(outlines), points)


def cell_prototypes() -> NDArray[np.float32]:
    """Prototypes [16, 32, 32], each 1 in one cell and −1 elsewhere."""
    made = np.full((PROTOS, 32, 32), -1.0, np.float32)
    for at in range(PROTOS):
        y, x = 8 * (at // 4), 8 * (at % 4)
        made[at, y : y + 8, x : x + 8] = 15.0
    return made


def columns_of(rows: Sequence[Row], random: np.random.Generator) -> NDArray[np.float32]:
    """A v8 output with coefficients of masks for most cells, then keypoints that are somewhere in the box."""
    plain = heads.v8(rows)["output0"][0]
    coefficients = np.zeros((PROTOS, plain.shape[1]), np.float32)
    coefficients[:, : len(rows)] = random.random((PROTOS, len(rows))) < 0.8
    return np.concatenate([plain, coefficients])


def pose_outputs(scenes: list[Scene], outputs: Outputs, seed: int) -> Outputs:
    """Keypoints near those of the labels, for the boxes of `outputs`; ObjectMap reads them behind the classes."""
    random = np.random.default_rng(seed)
    plain = outputs["output0"][:, : 4 + CLASSES]
    points = np.zeros((IMAGES, 3 * POINTS, plain.shape[2]), np.float32)
    for image, scene in enumerate(scenes):
        assert scene.objects.keypoints is not None
        for at in range(int((plain[image, 4:].max(axis=0) > 0).sum())):
            if len(scene.objects.classes):
                near = scene.objects.keypoints[at % len(scene.objects.classes)].copy()
                near[:, :2] += random.normal(0, 4, (POINTS, 2))
                points[image, :, at] = near.ravel()
    return {"output0": np.concatenate([plain, points], axis=1)}


def scored(
    scenes: list[Scene], outputs: Outputs, kind: MapKind = BOXES, layout: str | None = None, batch: int = 5
) -> MetricResult:
    metric = ObjectMap(kind, layout)
    facts = NetworkFacts(kind.task if kind is not BOXES_50 else Task.DETECT, tuple("abc"), (POINTS, 3))
    if "output1" in outputs and kind.by.kind == "boxes":
        facts = replace(facts, task=Task.SEGMENT)
    metric.prepare(HeadQuestion(example_facts(outputs), facts))
    for at in range(0, len(scenes), batch):
        part = scenes[at : at + batch]
        names = [f"{at + i}.jpg" for i in range(len(part))]
        metric.add({name: output[at : at + batch] for name, output in outputs.items()}, part, names)
    return metric.result()


def figures_of(result: MetricResult) -> ObjectFigures:
    assert isinstance(result.detail, ObjectFigures)
    return result.detail


def coco_file(scenes: list[Scene]) -> dict[str, Any]:
    """The labels as a COCO document, with odd ids."""
    annotations = []
    for image, scene in enumerate(scenes):
        objects = scene.objects
        for at, (x1, y1, x2, y2) in enumerate(objects.boxes.tolist()):
            entry = {
                "id": len(annotations) + 1, "image_id": 100 + image, "category_id": int(objects.classes[at]) + 7,
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": int(objects.crowd[at]),
            }  # fmt: skip
            if objects.outlines is not None and objects.keypoints is not None:
                polygon = objects.outlines[at].polygons[0].ravel().tolist()
                entry |= {"segmentation": [polygon], "keypoints": objects.keypoints[at].ravel().tolist()}
                entry["num_keypoints"] = int((objects.keypoints[at, :, 2] > 0).sum())
            annotations.append(entry)
    return {
        "images": [{"id": 100 + i, "width": SIDE, "height": SIDE} for i in range(len(scenes))],
        "categories": [{"id": number + 7} for number in range(CLASSES)],
        "annotations": annotations,
    }


def by_coco(scenes: list[Scene], result: MetricResult, tmp_path: Path) -> list[float]:
    """COCO's own figures: files read, matched, accumulated and summarised by pycocotools."""
    figures = figures_of(result)
    document = coco_file(scenes)
    if figures.by.kind == "masks":  # COCO's area is that of the mask
        for entry in document["annotations"]:
            runs = coco_mask.merge(coco_mask.frPyObjects(entry["segmentation"], SIDE, SIDE))
            entry["area"] = float(coco_mask.area(runs))
    (tmp_path / "labels.json").write_text(json.dumps(document), encoding="utf-8")
    rows = []
    for image, found in enumerate(figures.found):
        for at, (x1, y1, x2, y2) in enumerate(found.boxes.tolist()):
            row = {
                "image_id": 100 + image, "category_id": int(found.classes[at]) + 7, "score": float(found.scores[at])
            }  # fmt: skip
            if figures.by.kind == "boxes":
                row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            elif figures.by.kind == "masks":
                assert found.masks is not None
                row["segmentation"] = found.masks[at]
            else:
                assert found.keypoints is not None
                row["keypoints"] = found.keypoints[at].ravel().tolist()
            rows.append(row)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(tmp_path / "labels.json")
        run = COCOeval(truth, truth.loadRes(rows), figures.by.value)
        if figures.by.kind == "keypoints":
            run.params.kpt_oks_sigmas = np.full(POINTS, 1 / POINTS)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(value) for value in run.stats]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [BOXES, MASKS, KEYPOINTS], ids=lambda kind: kind.word)
def test_the_figures_equal_cocos(seed: int, kind: MapKind, tmp_path: Path) -> None:
    scenes, outputs = images_of(seed)
    outputs = pose_outputs(scenes, outputs, seed) if kind is KEYPOINTS else outputs
    result = scored(scenes, outputs, kind)
    expected = by_coco(scenes, result, tmp_path)
    assert 0.02 < result.value < 0.9
    assert result.value == pytest.approx(expected[0], abs=1e-9)
    assert result.further[f"{kind.prefix}mAP50"] == pytest.approx(expected[1], abs=1e-9)
    figures, ones = figures_of(result), np.ones((1, IMAGES))
    sizes = ("small", "medium", "large") if kind is not KEYPOINTS else ("medium", "large")
    for at, name in enumerate(sizes, 3):
        if expected[at] >= 0:
            assert np.nanmean(figures.precisions(name, ones)[0, :, 0]) == pytest.approx(expected[at], abs=1e-9)
    assert (result.per_sample, result.samples) == (None, IMAGES)
    if kind is not BOXES:
        assert result.further["mAP50-95"] == pytest.approx(scored(scenes, images_of(seed)[1], BOXES).value, abs=1e-9)


@pytest.mark.parametrize("seed", range(2))
def test_the_figure_of_a_draw_is_that_of_the_images_drawn(seed: int) -> None:
    scenes, outputs = images_of(seed)
    found = scored(scenes, outputs)
    assert found.resample is not None
    assert found.replicate is not None
    chosen = np.random.default_rng(seed).integers(0, IMAGES, IMAGES)
    drawn = scored([scenes[i] for i in chosen], {name: output[chosen] for name, output in outputs.items()})
    assert found.resample(chosen) == pytest.approx(drawn.value, abs=1e-12)
    assert found.resample(np.arange(IMAGES)) == found.value
    counts = np.stack([np.bincount(chosen, minlength=IMAGES), np.ones(IMAGES)]).astype(np.float64)
    table = found.replicate(counts)
    assert table[:, 0] == pytest.approx([drawn.value, found.value], abs=1e-12)
    assert table[1, 1:] == pytest.approx(figures_of(found).precisions(ALL, counts)[1, :, 0])
    assert np.allclose(found.replicate(3 * counts), table)  # only shares count


@pytest.mark.parametrize("kind", [BOXES, MASKS], ids=lambda kind: kind.word)
def test_images_may_be_matched_in_portions(kind: MapKind, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes, outputs = images_of(2)
    expected = scored(scenes, outputs, kind)
    monkeypatch.setattr(matching, "PORTION", 5)
    found = scored(scenes, outputs, kind)
    assert (found.value, found.further) == (expected.value, expected.further)


@settings(max_examples=8)
@given(st.permutations(range(IMAGES)))
def test_the_order_of_images_does_not_matter(order: list[int]) -> None:
    scenes, outputs = images_of(5)
    turned = scored([scenes[i] for i in order], {name: output[order] for name, output in outputs.items()})
    expected = scored(scenes, outputs)
    assert turned.value == pytest.approx(expected.value, abs=1e-12)
    assert turned.further == pytest.approx(expected.further, abs=1e-12)


def test_perfect_and_hopeless_detectors() -> None:
    rows: list[Row] = [(10, 20, 110, 220, 0.4, 0), (130, 30, 200, 90, 0.3, 2)]
    classes = np.array([0, 2])
    truth = Scene(Objects(classes, np.array(rows)[:, :4], np.zeros(2, np.bool_)), PLAIN)
    result = scored([truth], heads.v8(rows))
    assert result.value == pytest.approx(1.0)
    assert result.further == {"mAP50": pytest.approx(1.0), "precision": 1.0, "recall": 1.0}
    assert scored([truth], heads.v8([])).value == 0.0
    assert scored([truth], heads.v8(rows[:1])).value == pytest.approx(0.5)
    assert scored([truth], heads.v8(rows), BOXES_50).value == pytest.approx(1.0)


def test_a_letterbox_is_undone() -> None:
    way = image_geometry(Preprocess(resize="letterbox", size=(640, 640)), (1000, 500))
    box = np.array([400.0, 100.0, 700.0, 300.0])
    inside = box * np.tile(way.scale, 2) + np.tile(way.offset, 2)
    output = heads.v8([(*inside.tolist(), 0.4, 1)])
    objects = Objects(np.array([1]), box[None], np.zeros(1, np.bool_))
    assert scored([Scene(objects, way)], output).value == pytest.approx(1.0)
    assert scored([Scene(objects, PLAIN)], output).value < 0.5


@pytest.mark.parametrize("resize", ["letterbox", "exact", "shortest"])
def test_a_mask_is_where_it_was_in_the_image(resize: Any) -> None:
    """A half plane in the input's map comes out as the same half plane in the image."""
    way = image_geometry(Preprocess(resize=resize, size=(96, 128)), (200, 100))
    ramp = np.broadcast_to((np.arange(32) + 0.5) * 4 - 50.0, (24, 32)).astype(np.float32)  # positive from x = 50 on
    mask = image_mask(ramp, np.array([20.0, 10.0, 190.0, 90.0]), way)
    place = (np.arange(200) + 0.5) * way.scale[0] + way.offset[0]
    clear = (np.abs(place - 50.0) > 0.5) & (place > 2) & (place < 126)
    inside = (np.arange(200) >= 20) & (np.arange(200) < 190)
    assert mask.shape == (100, 200)
    assert np.array_equal(mask[50, clear] > 0, ((place > 50) & inside)[clear])
    assert not mask[:10].any()
    assert not mask[90:].any()


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1)))
def test_the_text_of_a_mask_is_read(mask: NDArray[Any]) -> None:
    counts = mask_counts(encode_mask(mask))
    assert np.array_equal(np.repeat(np.arange(len(counts)) % 2, counts).reshape(mask.shape[::-1]).T, mask)


def test_a_worse_detector_is_shown_with_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "SET_REPLICATES", 200)
    scenes, outputs = images_of(1)
    bad = dict(outputs)
    bad["output0"] = outputs["output0"].copy()
    bad["output0"][:, 2:4] *= 0.8
    found = paired_difference(scored(scenes, outputs), scored(scenes, bad), share=True, higher_is_better=True)
    assert 0 < found.low < found.value < found.high
    assert found.p < 0.05


def test_class_numbers_become_the_labels() -> None:
    ids = (1, 3, 90)
    numbers = np.array([1, 90, 2])
    head = ObjectMap(BOXES, "detr")
    head.prepare(HeadQuestion(example_facts(heads.detr([])), NetworkFacts()))
    assert head.collector is not None
    detr = replace(head.collector.head, classes=91)
    assert label_classes(detr, numbers, ids, "a").tolist() == [0, 2, -1]
    assert label_classes(detr, numbers, (), "a").tolist() == [1, 90, 2]
    assert label_classes(replace(detr, classes=3), np.array([0, 2]), ids, "a").tolist() == [0, 2]
    lists = replace(detr, classes=None, first=1, by_id=True)
    assert label_classes(lists, numbers, ids, "a").tolist() == [0, 2, -1]
    assert label_classes(lists, numbers, (), "a").tolist() == [0, 89, 1]
    with pytest.raises(DataError, match=r"a: a box has class 0, .*background"):
        label_classes(lists, np.array([0]), (), "a")


def test_misfits_are_reported_with_the_images_name() -> None:
    scenes, outputs = images_of(0)
    broken = {**outputs, "output0": outputs["output0"].copy()}
    broken["output0"][7, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"7\.jpg: output output0 holds NaN"):
        scored(scenes, broken)
    wrong = Objects(np.array([CLASSES]), np.array([[0.0, 0, 9, 9]]), np.zeros(1, np.bool_))
    with pytest.raises(
        DataError, match=rf"3\.jpg: a box has class {CLASSES}, but output output0 has the classes 0 … {CLASSES - 1}"
    ):
        scored([*scenes[:3], Scene(wrong, PLAIN)], {name: output[:4] for name, output in outputs.items()})
    with pytest.raises(DataError, match=r"0\.jpg has no boxes as its label"):
        ObjectMap(BOXES).add(outputs, [3], ["0.jpg"])
    with pytest.raises(DataError, match="no image has an object"):
        scored([Scene(labels_of([], np.random.default_rng(0)), PLAIN)], heads.v8([]))
    with pytest.raises(UsageError, match=r"\[1, 7, 60\]"):
        scored(scenes[:1], heads.v8([]), BOXES, "end2end")
    with pytest.raises(DataError, match="does not have one row for each of 3 images"):
        ObjectMap(BOXES).add(heads.v8([]), scenes[:3], ["a", "b", "c"])
    bare = [Scene(replace(scene.objects, outlines=None, keypoints=None), PLAIN) for scene in scenes]
    with pytest.raises(DataError, match="its labels have no masks"):
        scored(bare, outputs, MASKS)
    fewer = [Scene(replace(s.objects, keypoints=np.zeros((len(s.objects.classes), 3, 3))), PLAIN) for s in scenes]
    with pytest.raises(DataError, match="its objects have 3 keypoints, those of the network 4"):
        scored(fewer, pose_outputs(scenes, outputs, 0), KEYPOINTS)
    with pytest.raises(UsageError, match="finds no masks"):
        ObjectMap(MASKS).prepare(HeadQuestion(example_facts(heads.v8([])), NetworkFacts(Task.DETECT)))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("map", "mAP50-95"), ("mAP", "mAP50-95"), ("mAP50-95", "mAP50-95"), ("yolo", "mAP50-95"),
        ("yolo:v8", "mAP50-95"),
        ("mAP50", "mAP50"), ("map50:detr@a", "mAP50"), ("mask-map", "mask-mAP50-95"),
        ("keypoint-map", "keypoint-mAP50-95"),
    ],
)  # fmt: skip
def test_metrics_have_the_names_that_users_write(text: str, name: str) -> None:
    metric = resolve_metric(text, ("a",))()
    assert (metric.name, metric.share, metric.higher_is_better) == (name, True, True)
    assert metric_title(text.partition("@")[0]) == name
    assert is_share_metric(text)
    assert is_share_metric(name)
    assert is_share_metric("precision")


def test_an_unknown_head_and_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown head 'v3'"):
        resolve_metric("yolo:v3", ("head",))
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(BackendError) as caught:
        resolve_metric("map", ("head",))()
    assert caught.value.remedy == install_command("detection")


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    scored(*images_of(0), MASKS)
    assert capsys.readouterr() == ("", "")

"""Detection: geometry against the pixels themselves, heads against each other, mAP against COCO's own code."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from quantkit.data.pixels import fit_size
from quantkit.errors import BackendError, DataError, UsageError
from quantkit.evaluation import bootstrap
from quantkit.evaluation.paired import paired_difference
from quantkit.extras import install_command
from quantkit.metrics.box_labels import as_objects, read_coco, read_yolo
from quantkit.metrics.boxes import ImageGeometry, Objects, Scene, image_geometry
from quantkit.metrics.coco_map import CocoMap, coco_documents
from quantkit.metrics.metric import MetricResult
from quantkit.metrics.registry import resolve_metric
from quantkit.metrics.yolo_heads import HeadFamily, decode_head, infer_head_family, suppress_overlaps
from quantkit.preprocess import Preprocess

PLAIN = ImageGeometry((640, 640), (1.0, 1.0), (0.0, 0.0))
IMAGES = 24
CLASSES = 3


# Geometry ---------------------------------------------------------------------------------------------------------

sides = st.integers(20, 250)


@settings(max_examples=60)
@given(
    st.tuples(sides, sides), st.tuples(sides, sides),
    st.sampled_from(["exact", "letterbox", "shortest"]), st.sampled_from([1.0, 0.875]),
)  # fmt: skip
def test_the_geometry_is_what_happened_to_the_pixels(
    size: tuple[int, int], wanted: tuple[int, int], resize: Any, crop: float
) -> None:
    """Pixels that hold their own x (or y) coordinate keep it after resizing and cropping."""
    spec = Preprocess(resize=resize, size=wanted, crop_fraction=crop, pad=255)
    found = image_geometry(spec, size)
    for axis in (0, 1):
        ramp = np.broadcast_to(np.arange(size[axis], dtype=np.uint8), (size[1 - axis], size[axis]))
        picture = np.asarray(fit_size(Image.fromarray(np.ascontiguousarray(ramp if axis == 0 else ramp.T)), spec))
        middle = picture.shape[axis] // 2  # a line through the picture, away from any padding
        line = picture[middle, :] if axis == 0 else picture[:, middle]
        position = (np.arange(line.size) + 0.5 - found.offset[axis]) / found.scale[axis] - 0.5
        margin = 1.0 + 1.0 / found.scale[axis]
        inside = (position > margin) & (position < size[axis] - 1 - margin)
        assert np.all(np.abs(line[inside] - position[inside]) <= 1.01)
        outside = (position < -0.5) | (position > size[axis] - 0.5)
        assert np.all(line[outside] == 255)


def test_boxes_come_back_to_the_image_and_end_at_its_edges() -> None:
    found = image_geometry(Preprocess(resize="letterbox", size=(640, 640)), (1280, 720))
    assert found == ImageGeometry((1280, 720), (0.5, 0.5), (0.0, 140.0), (640, 640))
    boxes = np.array([[100.0, 200.0, 300.0, 400.0], [-50.0, 0.0, 700.0, 640.0]])
    assert found.to_image(boxes).tolist() == [[200, 120, 600, 520], [0, 0, 1280, 720]]


# Heads ------------------------------------------------------------------------------------------------------------


def heads(rows: list[tuple[float, ...]], anchors: int = 60) -> dict[HeadFamily, NDArray[np.float32]]:
    """The same (x1, y1, x2, y2, score, class) rows as each family gives them, for one image."""
    end = np.zeros((300, 6), np.float32)
    v8, v5 = np.zeros((4 + CLASSES, anchors), np.float32), np.zeros((anchors, 5 + CLASSES), np.float32)
    for at, (x1, y1, x2, y2, score, kind) in enumerate(rows):
        end[at] = (x1, y1, x2, y2, score, kind)
        box = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        v8[:4, at], v8[4 + int(kind), at] = box, score
        v5[at, :4], v5[at, 4], v5[at, 5 + int(kind)] = box, 0.5, 2 * score
    return {HeadFamily.V8: v8, HeadFamily.V5: v5, HeadFamily.END_TO_END: end}


def test_the_same_objects_come_out_of_every_head() -> None:
    rows = [(10, 20, 110, 220, 0.4, 0), (300, 300, 400, 350, 0.3, 2), (12, 20, 110, 220, 0.2, 1)]
    for family, output in heads(rows).items():
        found = decode_head(output, family)
        assert np.allclose(found.boxes, [row[:4] for row in rows], atol=1e-4)
        assert np.allclose(found.scores, [row[4] for row in rows])
        assert found.classes.tolist() == [0, 2, 1]


def test_a_box_counts_for_every_class_that_it_scores_in() -> None:
    output = heads([(10, 20, 110, 220, 0.4, 0)])[HeadFamily.V8]
    output[5, 0] = 0.3
    assert decode_head(output, HeadFamily.V8).classes.tolist() == [0, 1]


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.7]))
@settings(max_examples=30)
def test_suppression_is_its_definition(seed: int, overlap: float) -> None:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 30, (25, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0, 30, (25, 2))], axis=1)
    boxes[3, 2:] = boxes[3, :2]  # no area
    classes = random.integers(0, 2, 25)

    def iou(a: NDArray[Any], b: NDArray[Any]) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        common = max(width, 0) * max(height, 0)
        total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
        return float(common / total) if total else 0.0

    kept: list[int] = []
    for i in range(25):
        if all(classes[i] != classes[k] or iou(boxes[i], boxes[k]) <= overlap for k in kept):
            kept.append(i)
    assert suppress_overlaps(boxes, classes, overlap).tolist() == kept


@pytest.mark.parametrize(
    ("shape", "family"),
    [
        ((1, 84, 8400), HeadFamily.V8), ((1, 5, 8400), HeadFamily.V8), ((1, 84, 85), HeadFamily.V8),
        ((1, 6, 8400), HeadFamily.V8),
        ((1, 25200, 85), HeadFamily.V5), ((1, 25200, 7), HeadFamily.V5),
        ((1, 300, 6), HeadFamily.END_TO_END),
        ((1, 25200, 6), None), ((1, 84, 84), None), ((1, 4, 8400), None), ((1, 3, 80, 80, 85), None), ((1, 1000), None),
    ],
)  # fmt: skip
def test_the_head_is_inferred_from_the_shape(shape: tuple[int, ...], family: HeadFamily | None) -> None:
    if family is not None:
        assert infer_head_family(shape, "output0") is family
        return
    with pytest.raises(UsageError, match="cannot infer the YOLO head type") as caught:
        infer_head_family(shape, "output0")
    assert "yolo:v8" in caught.value.remedy


# mAP --------------------------------------------------------------------------------------------------------------


def scenes(seed: int) -> tuple[list[Scene], dict[HeadFamily, NDArray[np.float32]]]:
    """Images with up to four objects, and detections of them: shifted, missed, doubled, invented, of another class."""
    random = np.random.default_rng(seed)
    labels, outputs = [], {family: [] for family in HeadFamily}
    for _ in range(IMAGES):
        rows, found = [], []
        for _ in range(random.integers(0, 5)):
            x, y = random.uniform(0, 500, 2)
            width, height = random.uniform(20, 130, 2)
            kind = int(random.integers(0, CLASSES))
            rows.append((kind, x, y, x + width, y + height, bool(random.random() < 0.1)))
            if random.random() < 0.85:
                shift = random.normal(0, 0.08, 4) * (width, height, width, height)
                other = kind if random.random() < 0.9 else (kind + 1) % CLASSES
                found.append((*(np.array([x, y, x + width, y + height]) + shift), random.uniform(0.1, 0.5), other))
        for _ in range(random.integers(0, 3)):
            x, y = random.uniform(0, 500, 2)
            found.append((x, y, x + 60, y + 60, random.uniform(0.01, 0.4), int(random.integers(0, CLASSES))))
        labels.append(Scene(as_objects(rows), PLAIN))
        for family, output in heads(found).items():
            outputs[family].append(output)
    return labels, {family: np.stack(parts) for family, parts in outputs.items()}


def scored(labels: list[Scene], output: NDArray[Any], family: HeadFamily | None = None, batch: int = 5) -> MetricResult:
    metric = CocoMap(family)
    for at in range(0, len(labels), batch):
        part = labels[at : at + batch]
        metric.add({"output0": output[at : at + batch]}, part, [f"{at + i}.jpg" for i in range(len(part))])
    return metric.result()


def by_coco(labels: list[Scene], output: NDArray[Any], family: HeadFamily) -> float:
    """COCO's own figure: matching, accumulation and summary by pycocotools."""
    found = [decode_head(values, family) for values in output]
    clipped = [type(d)(PLAIN.to_image(d.boxes), d.scores, d.classes) for d in found]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, answers = COCO(), COCO()
        truth.dataset, answers.dataset = coco_documents([s.objects for s in labels], clipped)
        truth.createIndex()
        answers.createIndex()
        run = COCOeval(truth, answers, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", HeadFamily)
def test_the_map_equals_cocos(seed: int, family: HeadFamily) -> None:
    labels, outputs = scenes(seed)
    found = scored(labels, outputs[family], None if family is HeadFamily.END_TO_END else family)
    assert 0.1 < found.value < 0.9
    assert found.value == pytest.approx(by_coco(labels, outputs[family], family), abs=1e-12)
    assert (found.per_sample, found.samples) == (None, IMAGES)


@pytest.mark.parametrize("seed", range(3))
def test_the_figure_of_a_draw_is_that_of_the_images_drawn(seed: int) -> None:
    labels, outputs = scenes(seed)
    output = outputs[HeadFamily.V8]
    found = scored(labels, output)
    assert found.resample is not None
    chosen = np.random.default_rng(seed).integers(0, IMAGES, IMAGES)
    drawn = scored([labels[i] for i in chosen], output[chosen])
    assert found.resample(chosen) == pytest.approx(drawn.value, abs=1e-12)
    assert found.resample(np.arange(IMAGES)) == found.value


def test_perfect_and_hopeless_detectors() -> None:
    rows = [(10.0, 20.0, 110.0, 220.0, 0.4, 0), (300.0, 300.0, 400.0, 350.0, 0.3, 2)]
    truth = Scene(as_objects([(int(r[5]), *r[:4], False) for r in rows]), PLAIN)
    for family, output in heads(rows).items():
        assert scored([truth], output[None], family).value == pytest.approx(1.0)
        assert scored([truth], np.zeros_like(output)[None], family).value == 0.0
    half = scored([truth], heads(rows[:1])[HeadFamily.V8][None])
    assert half.value == pytest.approx(0.5)


def test_a_letterbox_is_undone() -> None:
    spec = Preprocess(resize="letterbox", size=(640, 640))
    way = image_geometry(spec, (1000, 500))
    box = np.array([400.0, 100.0, 700.0, 300.0])
    inside = box * np.tile(way.scale, 2) + np.tile(way.offset, 2)
    output = heads([(*inside, 0.4, 1)])[HeadFamily.V8][None]
    objects = as_objects([(1, *box, False)])
    assert scored([Scene(objects, way)], output).value == pytest.approx(1.0)
    assert scored([Scene(objects, PLAIN)], output).value < 0.5


def test_a_worse_detector_is_shown_with_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "SET_REPLICATES", 200)
    labels, outputs = scenes(1)
    good = outputs[HeadFamily.V8]
    bad = good.copy()
    bad[:, 2:4] *= 0.8
    found = paired_difference(scored(labels, good), scored(labels, bad), share=True, higher_is_better=True)
    assert 0 < found.low < found.value < found.high
    assert found.p < 0.05


def test_misfits_are_reported_with_the_images_name() -> None:
    labels, outputs = scenes(0)
    broken = outputs[HeadFamily.V8].copy()
    broken[7, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"7\.jpg: output output0 holds NaN"):
        scored(labels, broken)
    many = [*labels[:3], Scene(as_objects([(CLASSES, 0, 0, 9, 9, False)]), PLAIN)]
    with pytest.raises(
        DataError, match=rf"3\.jpg: a box has class {CLASSES}, but output output0 has {CLASSES} classes"
    ):
        scored(many, outputs[HeadFamily.V8][:4])
    with pytest.raises(DataError, match=r"0\.jpg has no boxes as its label"):
        CocoMap().add({"output0": outputs[HeadFamily.V8][:1]}, [3], ["0.jpg"])
    with pytest.raises(DataError, match="no image has an object"):
        scored([Scene(as_objects([]), PLAIN)], outputs[HeadFamily.V8][:1])
    with pytest.raises(DataError, match=r"\[1, 7, 60\] is not a head of type end2end"):
        scored(labels[:1], outputs[HeadFamily.V8][:1], HeadFamily.END_TO_END)
    with pytest.raises(UsageError, match="which output holds the boxes"):
        CocoMap().add({"a": np.zeros((1, 3, 8, 8, 8)), "b": np.zeros((1, 3, 4, 4, 8))}, labels[:1], ["0.jpg"])


def test_the_metric_has_a_name_and_asks_for_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, outputs = scenes(0)
    metric = resolve_metric("yolo:v8@head", ("head", "aux"))()
    metric.add(
        {"head": outputs[HeadFamily.V8], "aux": outputs[HeadFamily.V5]}, labels, [f"{i}.jpg" for i in range(IMAGES)]
    )
    assert metric.result().value == scored(labels, outputs[HeadFamily.V8]).value
    assert (metric.name, metric.share, metric.higher_is_better) == ("mAP50-95", True, True)
    with pytest.raises(UsageError, match="unknown head 'v3'"):
        resolve_metric("yolo:v3", ("head",))
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(BackendError) as caught:
        resolve_metric("yolo", ("head",))()
    assert caught.value.remedy == install_command("detection")


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    labels, outputs = scenes(0)
    scored(labels, outputs[HeadFamily.V8])
    assert capsys.readouterr() == ("", "")


# Labels -----------------------------------------------------------------------------------------------------------

DOCUMENT: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg"}],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 20, 30, 40], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
    ],
}


def same(first: Objects, second: Objects) -> bool:
    return all(
        np.allclose(getattr(first, name), getattr(second, name)) for name in ("classes", "boxes", "crowd")
    ) and len(first.classes) == len(second.classes)


def test_cocos_and_yolos_files_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text(json.dumps(DOCUMENT), encoding="utf-8")
    found = read_coco(tmp_path / "instances.json")
    assert found.names == ("person", "toothbrush")
    assert list(found.objects) == ["b.jpg", "a.jpg"]
    assert same(found.objects["b.jpg"], as_objects([(1, 10, 20, 40, 60, False), (0, 0, 0, 5, 5, True)]))
    assert found.objects["a.jpg"].classes.size == 0
    (tmp_path / "b.txt").write_text("1 0.25 0.4 0.3 0.4\n\n1 .1 .2 .4 .2 .4 .6 .1 .6\n", encoding="utf-8")
    yolo = read_yolo(tmp_path / "b.txt", (100, 100))
    assert same(yolo, as_objects([(1, 10, 20, 40, 60, False)] * 2))
    assert same(read_yolo(tmp_path / "absent.txt", (100, 100)), as_objects([]))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"images": None}, "not COCO labels: TypeError"),
        ({"categories": [{"name": "x"}]}, "not COCO labels: KeyError 'id'"),
        ({"annotations": [{"image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]}]}, "annotation 0: KeyError 5"),
        ({"annotations": [{"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1]}]}, "annotation 0: KeyError 9"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1]}]}, "annotation 0: ValueError"),
    ],
)
def test_damaged_coco_files_are_reported(change: dict[str, Any], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({**DOCUMENT, **change}), encoding="utf-8")
    with pytest.raises(DataError, match=rf"instances\.json: {problem}"):
        read_coco(path)
    path.write_text("[", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_coco(path)


@pytest.mark.parametrize(
    "line", ["cat 0 0 1 1", "1 10 20 30 40", "1 0.5 0.5", "-1 .5 .5 .1 .1", "1 .5 .5 .1 x", "1 nan 0 0 0"]
)
def test_damaged_yolo_files_are_reported(line: str, tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text(f"0 .5 .5 .1 .1\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.txt, line 2: "):
        read_yolo(path, (100, 100))

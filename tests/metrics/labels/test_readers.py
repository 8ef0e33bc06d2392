"""Readers of labels: COCO beside pycocotools, YOLO's text files, Pascal VOC's XML, class maps; and damaged ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from quantkit.errors import DataError
from quantkit.metrics.boxes import Objects, scale_objects
from quantkit.metrics.labels.class_maps import read_class_map
from quantkit.metrics.labels.coco_json import decode_runs, read_coco
from quantkit.metrics.labels.rows import ObjectRow, as_objects
from quantkit.metrics.labels.voc_xml import CLASSES, NamedBox, read_voc
from quantkit.metrics.labels.yolo_text import parse_yolo_row, read_yolo

BOX = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}
SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def coco(path: Path, *annotations: dict[str, Any], **image: Any) -> Path:
    document = {
        "images": [{"id": 7, "file_name": "a.png", **image}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [{**BOX, **annotation} for annotation in annotations],
    }
    return written(path / "a.json", json.dumps(document))


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)))
def test_compressed_run_lengths_are_those_of_pycocotools(mask: Any) -> None:
    masks = pytest.importorskip("pycocotools.mask")
    runs = decode_runs(masks.encode(np.asfortranarray(mask))["counts"].decode())
    pixels = np.repeat(np.arange(len(runs)) % 2, runs)
    assert (pixels.reshape(mask.shape, order="F") == mask).all()


def test_long_runs_are_those_of_pycocotools() -> None:
    masks = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((900, 1200), np.uint8)
    mask[100:800, 7:1100] = 1
    mask[500:510, 20:900:3] = 0
    runs = decode_runs(masks.encode(np.asfortranarray(mask))["counts"].decode())
    assert (np.repeat(np.arange(len(runs)) % 2, runs).reshape(mask.shape, order="F") == mask).all()


def test_coco_boxes_areas_outlines_and_keypoints(tmp_path: Path) -> None:
    path = coco(
        tmp_path,
        {"segmentation": [SQUARE, [6, 6, 7, 6, 7, 7]], "area": 17.5, "keypoints": [1, 2, 2, 0, 0, 0]},
        {"segmentation": {"size": [4, 6], "counts": [3, 2, 19]}, "area": 2, "category_id": 9, "iscrowd": 1},
        {"area": 12},
        width=6,
        height=4,
    )
    found = read_coco(path, outlines=True, keypoints=True)
    assert (found.names, found.ids, dict(found.sizes)) == (("cat", "dog"), (3, 9), {"a.png": (6, 4)})
    objects = found.objects["a.png"]
    assert objects.classes.tolist() == [0, 1, 0]
    assert objects.boxes.tolist() == [[1, 2, 4, 6]] * 3
    assert objects.crowd.tolist() == [False, True, False]
    assert objects.areas is not None
    assert objects.areas.tolist() == [17.5, 2, 12]
    assert objects.outlines is not None
    assert [p.tolist() for p in objects.outlines[0].polygons] == [
        [[1, 1], [5, 1], [5, 5], [1, 5]], [[6, 6], [7, 6], [7, 7]]
    ]  # fmt: skip
    assert objects.outlines[1].runs is not None
    assert objects.outlines[1].runs.tolist() == [3, 2, 19]
    assert objects.outlines[2].polygons[0].tolist() == [[1, 2], [4, 2], [4, 6], [1, 6]]
    assert objects.keypoints is not None
    assert objects.keypoints.tolist() == [[[1, 2, 2], [0, 0, 0]], [[0, 0, 0]] * 2, [[0, 0, 0]] * 2]
    plain = read_coco(path).objects["a.png"]
    assert (plain.outlines, plain.keypoints) == (None, None)


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        ({"segmentation": [[1, 1, 2, 2]]}, "at least three finite points"),
        ({"segmentation": [[1, 1, 2, 2, 3]]}, "reshape"),
        ({"segmentation": [[1, 1, 2, 2, 3, "x"]]}, "could not convert"),
        ({"segmentation": "abc"}, "a value of another type"),
        ({"segmentation": {"size": [4, 6]}}, "'counts' is missing"),
        ({"segmentation": {"size": [4, 6], "counts": [3, 2]}}, "do not add up to 6×4"),
        ({"segmentation": {"size": [4, 6], "counts": [-3, 27]}}, "do not add up"),
        ({"segmentation": {"size": [4, 7], "counts": [28]}}, "run lengths are of an image of 7×4"),
        ({"segmentation": {"size": [4, 6], "counts": "~~"}}, "no compressed run lengths"),
        ({"segmentation": {"size": [4, 6], "counts": "T"}}, "cut short"),
        ({"segmentation": {"size": [4, 6], "counts": "o" * 99}}, "run lengths"),
        ({"keypoints": [1, 2]}, "reshape"),
        ({"keypoints": [1, 2, 5]}, "visibility of 0, 1 or 2"),
        ({"area": -1}, "the area is -1"),
        ({"area": "much"}, "could not convert"),
        ({"category_id": 99}, "no category has the id 99"),
        ({"image_id": "x"}, "no image has the id 'x'"),
        ({"category_id": [1]}, "a value of another type"),
    ],
)
def test_damaged_annotations_are_named(annotation: dict[str, Any], problem: str, tmp_path: Path) -> None:
    path = coco(tmp_path, {}, annotation, width=6, height=4)
    with pytest.raises(DataError, match=rf"a\.json: annotation 1: .*{problem}"):
        read_coco(path, outlines=True, keypoints=True)


def test_objects_have_as_many_keypoints(tmp_path: Path) -> None:
    path = coco(tmp_path, {"keypoints": [1, 2, 2]}, {"keypoints": [1, 2, 2, 3, 4, 2]})
    with pytest.raises(DataError, match="annotation 1 has 2 keypoints, others have 1"):
        read_coco(path, keypoints=True)


def test_yolo_outlines_and_boxes_in_one_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "1 .1 .2 .4 .2 .4 .6\n0 .5 .5 .2 .4\n")
    objects = read_yolo(path, (100, 50))
    assert np.allclose(objects.boxes, [[10, 10, 40, 30], [40, 15, 60, 35]])
    assert objects.outlines is not None
    assert np.allclose(objects.outlines[0].polygons[0], [[10, 10], [40, 10], [40, 30]])
    assert np.allclose(objects.outlines[1].polygons[0], [[40, 15], [60, 15], [60, 35], [40, 35]])


@pytest.mark.parametrize(
    ("shape", "line", "points"),
    [
        ((2, 3), "0 .5 .5 .2 .4 .1 .2 2 0 0 0", [[10, 10, 2], [0, 0, 0]]),
        ((2, 3), "0 .5 .5 .2 .4 .1 .2 1.0 -1 -1 0", [[10, 10, 1], [0, 0, 0]]),
        ((2, 2), "0 .5 .5 .2 .4 .1 .2 .5 .5", [[10, 10, 2], [50, 25, 2]]),
        ((2, 2), "0 .5 .5 .2 .4 .1 .2 -1 -1", [[10, 10, 2], [0, 0, 0]]),
    ],
)
def test_yolo_keypoints(shape: tuple[int, int], line: str, points: Any, tmp_path: Path) -> None:
    objects = read_yolo(written(tmp_path / "a.txt", line), (100, 50), shape)
    assert objects.keypoints is not None
    assert np.allclose(objects.keypoints, [points])
    assert np.allclose(objects.boxes, [[40, 15, 60, 35]])
    empty = read_yolo(tmp_path / "none.txt", (100, 50), shape)
    assert empty.keypoints is not None
    assert empty.keypoints.shape == (0, 2, 3)


@pytest.mark.parametrize(
    "line", ["0 .5 .5 .2 .4", "0 .5 .5 .2 .4 .1 .2 2", "0 .5 .5 .2 .4 .1 .2 3 0 0 0", "0 .5 .5 .2 .4 9 .2 2 0 0 0"]
)
def test_lines_without_their_keypoints_are_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt, line 2") as caught:
        read_yolo(written(tmp_path / "a.txt", f"\n{line}"), (100, 50), (2, 3))
    assert "with kpt_shape [2, 3] a line has 11 numbers" in str(caught.value.remedy)


@given(
    st.lists(st.tuples(*[st.floats(0.0, 1.0)] * 6), min_size=1, max_size=3),
    st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
)
def test_scaling_fractions_is_reading_with_the_size(triangles: Any, size: tuple[int, int]) -> None:
    whole, fractions = (as_objects([parse_yolo_row(0, t, of) for t in triangles]) for of in (size, (1, 1)))
    scaled = scale_objects(fractions, size)
    assert np.allclose(whole.boxes, scaled.boxes)
    assert whole.outlines is not None
    assert scaled.outlines is not None
    for first, second in zip(whole.outlines, scaled.outlines, strict=True):
        assert np.allclose(first.polygons[0], second.polygons[0])


XML = """<?xml version="1.0" encoding="utf-8"?><annotation><object><name>cat</name><difficult>{difficult}</difficult>
<bndbox><xmin>{xmin}</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40.5</ymax></bndbox></object></annotation>"""


def test_voc_counts_pixels_from_one_and_marks_the_difficult(tmp_path: Path) -> None:
    path = written(tmp_path / "a.xml", XML.format(xmin=1, difficult=1))
    assert read_voc(path) == [NamedBox("cat", (0.0, 1.0, 30.0, 40.5), True)]
    assert read_voc(written(tmp_path / "b.xml", "<annotation/>")) == []
    assert len(CLASSES) == 20


BOMB = '<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;&x;&x;">]><annotation>&y;</annotation>'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "it declares a document type"),
        ("<annotation>", "cannot be read as XML"),
        ("", "cannot be read as XML"),
        ("<html/>", "not Pascal VOC labels: it is <html>"),
        (XML.format(xmin="", difficult=0), "object 0: could not convert"),
        (XML.format(xmin="nan", difficult=0), "object 0: a box is finite"),
        (XML.format(xmin=99, difficult=0), "object 0: a box is finite"),
        (XML.format(xmin=1, difficult=0).replace("cat", " "), "object 0: no name"),
    ],
)
def test_damaged_xml_is_named(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"a\.xml: {problem}"):
        read_voc(written(tmp_path / "a.xml", text))


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16"])
def test_class_maps_of_one_channel(mode: str, tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3) % 2
    image = Image.fromarray(values.astype(np.uint16) if mode == "I;16" else values * (255 if mode == "1" else 1))
    image = image.convert("1") if mode == "1" else image
    if mode == "P":
        image.putpalette([9, 8, 7] * 256)
    image.save(tmp_path / "a.png")
    assert read_class_map(tmp_path / "a.png", (3, 2)).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (Image.new("RGB", (3, 2)), "has RGB pixels"),
        (Image.new("L", (2, 3)), "is 2×3, but its image is 3×2"),
        (Image.fromarray(np.full((2, 3), 300, np.uint16)), "has the class 300"),
    ],
)
def test_other_class_maps_are_refused(image: Image.Image, problem: str, tmp_path: Path) -> None:
    image.save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a\.png {problem}"):
        read_class_map(tmp_path / "a.png", (3, 2))


def test_class_maps_that_are_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png: "):
        read_class_map(written(tmp_path / "a.png", "no image"), (3, 2))


def test_rows_keep_areas_only_if_all_have_one() -> None:
    rows = [ObjectRow(0, 0, 0, 1, 1, area=4.0), ObjectRow(0, 0, 0, 1, 1)]
    assert as_objects(rows).areas is None
    assert isinstance(as_objects([]), Objects)

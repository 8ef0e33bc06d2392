"""Labels are found where people have them, and the nearest are named where they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from quantkit.errors import DataError, UsageError
from quantkit.image_file import upright_size
from quantkit.metrics.labels.class_order import match_classes
from quantkit.metrics.metric import LabelRequest, MetricLabels
from quantkit.metrics.scene_labels import open_class_maps, open_keypoint_scenes, open_outlined_scenes, open_scenes
from quantkit.metrics.task import NetworkFacts
from quantkit.preprocess import PRESETS

SPEC = PRESETS["yolo"].model_copy(update={"size": (8, 8)})
XML = (
    "<annotation><object><name>{}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox>"
    "</object></annotation>"
)
BOX = "1 .5 .5 1 1\n"
SQUARE = "0 0 0 .5 0 .5 .5\n"


def sizes_below(root: Path) -> Callable[[str], tuple[int, int]]:
    """The sizes of images in a folder."""
    return lambda name: upright_size(root / name)


def put(path: Path, content: str | None = None, size: tuple[int, int] = (4, 4)) -> Path:
    """A text file, or an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        Image.new("L", size).save(path)
    else:
        path.write_text(content, encoding="utf-8")
    return path


def coco(*files: str, categories: tuple[str, ...] = ("cat", "dog"), **annotation: Any) -> str:
    """COCO's JSON with one object of the last category in every image."""
    return json.dumps(
        {
            "images": [{"id": i, "file_name": file, "width": 4, "height": 4} for i, file in enumerate(files)],
            "categories": [{"id": 10 * i + 1, "name": name} for i, name in enumerate(categories)],
            "annotations": [
                {"image_id": i, "category_id": 10 * len(categories) - 9, "bbox": [0, 0, 4, 4], **annotation}
                for i in range(len(files))
            ],
        }
    )


def request(root: Path, *names: str, **more: Any) -> LabelRequest:
    for name in names:
        put(root / name)
    return LabelRequest(
        root, "images", names, more.pop("path", None), SPEC, root,
        size_of=sizes_below(root), **more,
    )  # fmt: skip


def classes(labels: MetricLabels, *names: str) -> list[list[int]]:
    return [scene.objects.classes.tolist() for scene in labels.of(names)]


@pytest.mark.parametrize(
    ("root", "file", "content", "source"),
    [
        ("images/val", "labels/val/a.txt", BOX, "1 text file in labels/val"),
        ("val/images", "val/labels/a.txt", BOX, "1 text file in val/labels"),
        ("data", "data/a.txt", BOX, "1 text file in {}/data"),
        ("val2017", "annotations/instances_val2017.json", coco("a.png"), "instances_val2017.json"),
        ("images/val2017", "annotations/instances_val2017.json", coco("a.png"), "instances_val2017.json"),
        ("valid", "valid/_annotations.coco.json", coco("a.png"), "_annotations.coco.json"),
        ("data", "annotations/data.json", coco("images/a.png"), "data.json"),
        ("JPEGImages", "Annotations/a.xml", XML.format("dog"), "1 XML file in {}/Annotations"),
        ("data", "data/a.xml", XML.format("dog"), "1 XML file in {}/data"),
    ],
)
def test_boxes_lie_where_each_format_has_them(tmp_path: Path, root: str, file: str, content: str, source: str) -> None:
    asked = request(tmp_path / root, "a.png", network=NetworkFacts(names=("cat", "dog")))
    with pytest.raises(DataError, match="there are no boxes as labels"):
        open_scenes(asked)
    put(tmp_path / file, content)
    found = open_scenes(asked)
    assert found.source == source.format(tmp_path.name)
    assert found.names == ("cat", "dog")
    assert classes(found, "a.png") == [[1]]


def test_images_of_several_folders_have_labels_in_as_many(tmp_path: Path) -> None:
    put(tmp_path / "labels/val/a.txt", BOX)
    found = open_scenes(request(tmp_path / "images", "val/a.png", "train/b.png"))
    assert classes(found, "val/a.png", "train/b.png") == [[1], []]
    assert found.notes == ("1 of 2 images have no text file, and count as images without objects",)
    found = open_scenes(request(tmp_path, "images/val/a.png"))
    assert classes(found, "images/val/a.png") == [[1]]


def test_a_folder_of_images_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "store/pictures/a.png")
    put(tmp_path / "data/labels/val/a.txt", BOX)
    (tmp_path / "data/images").mkdir()
    (tmp_path / "data/images/val").symlink_to(tmp_path / "store/pictures")
    asked = LabelRequest(
        None, "images", ("a.png",), None, SPEC, (root := tmp_path / "data/images/val"), size_of=sizes_below(root)
    )
    assert classes(open_scenes(asked), "a.png") == [[1]]
    (tmp_path / "link").symlink_to(tmp_path / "data/images")
    put(tmp_path / "data/images/train/b.png")
    put(tmp_path / "data/labels/train/b.txt", BOX)
    asked = LabelRequest(
        None, "images", ("b.png",), None, SPEC, (root := tmp_path / "link/train"), size_of=sizes_below(root)
    )
    assert classes(open_scenes(asked), "b.png") == [[1]]


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("labels", "--labels {}/labels/val"),
        ("elsewhere", "--labels {}/labels/val"),
        ("absent", "--labels {}/labels/val"),
        ("data.yaml", "--data {}/data.yaml"),
        ("list.csv", "--labels FILE.json in COCO's format"),
    ],
)
def test_a_wrong_path_names_what_lies_nearby(tmp_path: Path, given: str, hint: str) -> None:
    put(tmp_path / "labels/val/a.txt", BOX)
    put(tmp_path / "elsewhere/b.txt", BOX)
    put(tmp_path / "data.yaml", "")
    put(tmp_path / "list.csv", "")
    with pytest.raises(DataError) as caught:
        open_scenes(request(tmp_path / "images/val", "a.png", path=tmp_path / given))
    assert hint.format(tmp_path) in str(caught.value.remedy)
    assert given in caught.value.problem


def test_given_folders_hold_files_named_as_the_images(tmp_path: Path) -> None:
    put(tmp_path / "boxes/a.txt", BOX)
    put(tmp_path / "xml/a.xml", XML.format("sheep"))
    asked = request(tmp_path / "data", "a.png", path=tmp_path / "boxes")
    assert classes(open_scenes(asked), "a.png") == [[1]]
    asked = request(tmp_path / "data", "a.png", path=tmp_path / "xml")
    found = open_scenes(asked)
    assert classes(found, "a.png") == [[16]]  # Pascal VOC's own order
    assert found.names[16] == "sheep"
    put(tmp_path / "xml/a.xml", XML.format("llama"))
    with pytest.raises(DataError, match=r"1 XML file in .*/xml name 1 classes .llama., whose indices are unknown"):
        open_scenes(asked)


def test_what_the_data_set_declares_is_taken_unless_labels_are_given(tmp_path: Path) -> None:
    declared = put(tmp_path / "a.json", coco("a.png"))
    put(tmp_path / "labels/a.txt", "0 .5 .5 1 1")
    put(tmp_path / "mine/a.txt", "5 .5 .5 1 1")
    asked = request(tmp_path / "images", "a.png", declared=declared)
    assert classes(open_scenes(asked), "a.png") == [[1]]
    assert classes(open_scenes(request(tmp_path / "images", "a.png")), "a.png") == [[0]]
    asked = request(tmp_path / "images", "a.png", declared=declared, path=tmp_path / "mine")
    assert classes(open_scenes(asked), "a.png") == [[5]]


def test_outlines_and_keypoints_are_required_of_labels_for_them(tmp_path: Path) -> None:
    asked = request(tmp_path / "images", "a.png")
    label = put(tmp_path / "labels/a.txt", BOX)
    with pytest.raises(DataError, match="have boxes, but no outlines"):
        open_outlined_scenes(asked)
    with pytest.raises(DataError, match=r"how many keypoints the objects in .*labels have is unknown"):
        open_keypoint_scenes(asked)
    label.write_text(SQUARE, encoding="utf-8")
    outlines = open_outlined_scenes(asked).of(["a.png"])[0].objects.outlines
    assert outlines[0].polygons[0].tolist() == [[0, 0], [2, 0], [2, 2]]
    label.write_text("0 .5 .5 1 1 .5 .25 2\n", encoding="utf-8")
    asked = request(tmp_path / "images", "a.png", network=NetworkFacts(keypoints=(1, 3)))
    assert open_keypoint_scenes(asked).of(["a.png"])[0].objects.keypoints.tolist() == [[[2, 1, 2]]]
    put(tmp_path / "boxes.json", coco("a.png"))
    asked = request(tmp_path / "images", "a.png", path=tmp_path / "boxes.json")
    for opener in (open_outlined_scenes, open_keypoint_scenes):
        with pytest.raises(DataError, match=r"boxes\.json: the objects have boxes, but no"):
            opener(asked)


@pytest.mark.parametrize(("root", "masks"), [("images", "masks"), ("JPEGImages", "SegmentationClass")])
def test_class_maps(tmp_path: Path, root: str, masks: str) -> None:
    asked = request(tmp_path / root, "a.png", "b.png", network=NetworkFacts(names=("ground", "sky")))
    put(tmp_path / masks / "a.png")
    with pytest.raises(DataError, match="1 of 2 images have no class map in"):
        open_class_maps(asked)
    put(tmp_path / masks / "b.png")
    found = open_class_maps(asked)
    assert found.names == ("ground", "sky")
    first = found.of(["b.png"])[0]
    assert (first.classes.tolist(), first.geometry.canvas) == ([[0] * 4] * 4, (8, 8))


@pytest.mark.parametrize("opener", [open_scenes, open_outlined_scenes, open_keypoint_scenes, open_class_maps])
def test_other_data_than_images_have_no_such_labels(opener: Callable[[LabelRequest], MetricLabels]) -> None:
    with pytest.raises(UsageError, match="need images, but the data are array"):
        opener(LabelRequest(None, "array", ("0",), None, None))


def test_coco_images_by_path_or_by_name(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", coco("val/a.png", "b.png"))
    asked = request(tmp_path / "data", "a.png", "deep/b.png", path=path)
    assert classes(open_scenes(asked), "a.png", "deep/b.png") == [[1], [1]]
    asked = request(tmp_path / "data", "c.png", path=path)
    with pytest.raises(DataError, match=r"lacks 1 of 1 images, for example c\.png"):
        open_scenes(asked)
    asked = request(tmp_path / "data", "x/b.png", "y/b.png", path=path)
    with pytest.raises(DataError, match=r"x/b\.png and y/b\.png have the same name"):
        open_scenes(asked)
    path = put(tmp_path / "a.json", coco("x/b.png", "y/b.png"))
    with pytest.raises(DataError, match=r"x/b\.png and y/b\.png have the same name"):
        open_scenes(request(tmp_path / "data", "b.png", path=path))


def test_labels_of_images_of_another_size_are_refused(tmp_path: Path) -> None:
    asked = request(tmp_path / "data", "a.png", path=put(tmp_path / "a.json", coco("a.png")))
    found = open_scenes(asked)
    put(tmp_path / "data/a.png", size=(8, 8))
    with pytest.raises(DataError, match=r"a\.png is 8×8, but a\.json has labels for 4×4"):
        found.of(["a.png"])


def in_file(used: set[int]) -> dict[int, str]:
    """The classes that labels use, with the file of one such label."""
    return {index: f"{index}.txt" for index in used}


@pytest.mark.parametrize("crowd", [False, True])
def test_labels_without_an_object_that_counts_are_refused(crowd: bool, tmp_path: Path) -> None:
    document = json.loads(coco("a.png"))
    document["annotations"] = [{**a, "iscrowd": 1} for a in document["annotations"]] if crowd else []
    asked = request(tmp_path / "data", "a.png", path=put(tmp_path / "a.json", json.dumps(document)))
    with pytest.raises(DataError, match=r"a\.json: every object is a crowd" if crowd else "there is no object"):
        open_scenes(asked)


def test_labels_in_several_folders_are_described_by_the_folder_around_them(tmp_path: Path) -> None:
    for split in ("train", "val"):
        put(tmp_path / f"set/labels/{split}/a.txt", "0 .5 .5 .2 .2\n")
    images = tmp_path / "set/images"
    assert open_scenes(request(images, "train/a.png", "val/a.png")).source == "2 text files in set/labels"
    assert open_scenes(request(images / "val", "a.png")).source == "1 text file in labels/val"


def test_objects_outside_their_image_are_refused(tmp_path: Path) -> None:
    document = json.loads(coco("a.png"))
    del document["images"][0]["width"]
    document["annotations"][0]["bbox"] = [1e30, 0, 1e30, 2]
    asked = request(tmp_path / "data", "a.png", path=put(tmp_path / "a.json", json.dumps(document)))
    with pytest.raises(DataError, match=r"a\.png is 4×4, and one of its objects lies outside: 1e\+30, 0"):
        open_scenes(asked).of(["a.png"])


@given(st.permutations(["ant", "bee", "cat", "dog"]), st.sets(st.integers(0, 2), min_size=1), st.booleans())
def test_classes_are_matched_by_name(network: list[str], used: set[int], capitals: bool) -> None:
    labels = ["cat", "ant", "dog"]
    given = [name.capitalize() for name in labels] if capitals else labels
    order = match_classes(given, network, in_file(used), "labels")
    indices = np.arange(3) if order.indices is None else order.indices
    assert [network[indices[at]] for at in range(3)] == labels
    assert order.names == tuple(network)


@pytest.mark.parametrize(
    ("labels", "network", "used", "problem"),
    [
        (("cat", "dog"), ("cat", "bird", "dog"), {0, 1}, None),
        (("cat", "none"), ("cat",), {0}, None),
        (("cat", "llama"), ("cat", "dog"), {0, 1}, r"1\.txt: class 'llama' is not a class of the network"),
        (("cat", "dog"), ("a", "b", "c"), {0}, r"0\.txt: class 'cat' is not a class of the network"),
        (("cat",), ("cat", "cat"), {0}, "labels: class 'cat' is not a class of the network"),
        (
            ("cat",),
            ("cat",),
            {0, 3},
            r"3\.txt: an object has class 3, but the classes that have names are 0 … 0 \(1: cat\)",
        ),
        ((), ("cat",), {3}, None),
        (("cat",), (), {0}, None),
    ],
)
def test_classes_that_do_not_fit_are_refused(
    labels: tuple[str, ...], network: tuple[str, ...], used: set[int], problem: str | None
) -> None:
    if problem is None:
        assert match_classes(labels, network, in_file(used), "labels").names == (network or labels)
    else:
        with pytest.raises(DataError, match=problem):
            match_classes(labels, network, in_file(used), "labels")


def test_classes_that_differ_by_case_alone_are_kept_apart() -> None:
    order = match_classes(("A", "a"), ("a", "A"), in_file({0, 1}), "labels")
    assert order.indices is not None
    assert order.indices.tolist() == [1, 0]


def test_other_names_in_the_same_number_keep_their_order() -> None:
    order = match_classes(("Katze", "Hund"), ("cat", "dog"), in_file({0, 1}), "labels")
    assert (order.indices, order.names) == (None, ("Katze", "Hund"))
    assert "taken in their order" in order.notes[0]

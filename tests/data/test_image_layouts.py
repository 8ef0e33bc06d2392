"""Data sets in the layouts that people have: which images calibrate, which evaluate, and what is said if they lack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from quantkit.data import DataOptions, open_data
from quantkit.data.image_layouts import find_image_set
from quantkit.data.image_set import ImageSet, Split
from quantkit.errors import DataError
from quantkit.preprocess import Preprocess
from quantkit.values import ModelInput

UNIT = Preprocess(size=(4, 4), std=(255.0,))
INPUT = ModelInput("image", "float32", ("N", 3, 4, 4))


def draw(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def found(path: Path, split: Split) -> ImageSet:
    images = find_image_set(path, split)
    assert images is not None
    return images


def images_of(path: Path, split: Split) -> list[str]:
    """The images' paths from the folder above all data."""
    images = found(path, split).folder
    return [(images.root / name).name for name in images.names]


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A data set of two training images and one to evaluate on."""
    root = tmp_path / "shapes"
    draw(root, "images/train/a.png", "images/train/b.png", "images/val/c.png")
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: {0: circle, 1: no}\nkpt_shape: [4, 2]\n")
    return root


def test_data_yaml_declares_images_names_and_keypoints(shapes: Path) -> None:
    for place in (shapes / "data.yaml", shapes):
        assert images_of(place, Split.TRAIN) == ["a.png", "b.png"]
        images = found(place, Split.VAL)
        assert images.folder.names == ("c.png",)
        assert (images.folder.root, images.classes, images.keypoints) == (
            shapes / "images" / "val", ("circle", "no"), (4, 2)
        )  # fmt: skip
        assert images.notes == ("val of data.yaml: 1 image",)


def test_calibration_reads_one_split_and_evaluation_the_other(shapes: Path) -> None:
    read = [open_data(shapes / "data.yaml", [INPUT], UNIT, DataOptions(whole=whole))[0] for whole in (False, True)]
    assert [feed.samples for feed in read] == [2, 1]
    assert [feed.images.split for feed in read if feed.images] == [Split.TRAIN, Split.VAL]


@pytest.mark.parametrize(
    ("text", "train"),
    [
        ("path: .\ntrain: images/train\n", ["a.png", "b.png"]),
        ("path: shapes\ntrain: images/train\n", ["a.png", "b.png"]),
        ("train: ../images/train\n", ["a.png", "b.png"]),
        ("path: {root}\ntrain: [images/train, images/val]\n", ["a.png", "b.png", "c.png"]),
        ("train: [images/val, images/val/c.png]\n", ["c.png"]),
        ("train: list.txt\n", ["c.png", "a.png"]),
        ("train: [list.txt, images/train]\n", ["a.png", "b.png", "c.png"]),
        ("train: images\n", ["a.png", "b.png", "c.png"]),
        ("train: ..\\images\\train\n", ["a.png", "b.png"]),
        ("train: windows.txt\n", ["a.png", "c.png"]),
    ],
)
def test_places_in_data_yaml(shapes: Path, text: str, train: list[str]) -> None:
    write(shapes / "list.txt", "./images/val/c.png\n\nimages/train/a.png\n")
    write(shapes / "windows.txt", ".\\images\\val\\c.png\r\nimages\\train\\a.png\r\n")
    write(shapes / "data.yaml", text.replace("{root}", str(shapes)))
    assert sorted(images_of(shapes / "data.yaml", Split.TRAIN)) == sorted(train)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a data.yaml"),
        ("- a\n- b\n", "is not a data.yaml"),
        ("train: 5\n", "train"),
        ("train: &a [x]\nval: *a\n", "anchors and aliases"),
        ("train: images/train\n", "names no images to evaluate on .no val.*it names train"),
        ("train: images/train\nval: ''\n", "names no images to evaluate on"),
        ("val: images/none\n", "val is images/none, which is not there .looked for .*images/none.*nothing"),
        ("path: elsewhere\nval: images/val\n", "path is elsewhere, and there is no such folder .looked for"),
        ("val: data.yaml\n", "neither a folder, nor a .txt list"),
        ("val: images/val\nnames: [a, b]\nnc: 3\n", "nc is 3, but there are 2 names"),
        ("val: images/val\nnames: {1: a, 2: b}\n", "names have the key '2', but the 2 classes are 0 … 1"),
        ("val: images/val\nnames: {a: b}\n", "names have the key 'a'"),
        ("val: images/val\nnames: [[a]]\n", "names"),
        ("val: images/val\nnames: cat\n", "a data.yaml: names: input should be a valid array"),
        ("val: images/val\nkpt_shape: [17, 5]\n", r"kpt_shape is \[17, 5\]"),
        ("val: images/val\nkpt_shape: many\n", "kpt_shape"),
        ("val: labels\n", "no images in"),
        ("val: list.txt\n", "list.txt, line 2: 'nothing.png' is not the path of an image"),
        ('val: "a\\0b"\n', "a.b"),
    ],
)
def test_one_error_for_a_data_yaml_that_cannot_be_used(shapes: Path, text: str, message: str) -> None:
    (shapes / "labels").mkdir()
    write(shapes / "list.txt", "images/val/c.png\nnothing.png\n")
    with pytest.raises(Exception, match="(?s)" + message) as caught:
        find_image_set(write(shapes / "data.yaml", text), Split.VAL)
    assert type(caught.value).__module__ == "quantkit.errors"


@pytest.mark.parametrize(
    ("train", "val", "base"),
    [
        ("images/train", "images/val", ""),
        ("images/train2017", "images/val2017", ""),
        ("train/images", "valid/images", ""),
        ("train", "test", ""),
        ("train", "val", "images"),
    ],
)
def test_divided_folders(tmp_path: Path, train: str, val: str, base: str) -> None:
    root = tmp_path / base
    draw(root, f"{train}/a.png", f"{val}/b.png")
    write(root / "labels" / "x.txt", "")
    assert images_of(root, Split.TRAIN) == ["a.png"]
    assert images_of(root, Split.VAL) == ["b.png"]
    assert found(root, Split.VAL).notes


def test_folders_with_other_names_are_classes(tmp_path: Path) -> None:
    draw(tmp_path, "train/a.png", "val/b.png", "cat/c.png")
    assert images_of(tmp_path, Split.VAL) == ["c.png", "a.png", "b.png"]
    draw(tmp_path / "one", "train/a.png")
    assert found(tmp_path / "one", Split.VAL).folder.classes == ("train",)


def test_pascal_voc(tmp_path: Path) -> None:
    draw(tmp_path, "JPEGImages/a.jpg", "JPEGImages/b.jpg", "JPEGImages/c.jpg")
    (tmp_path / "Annotations").mkdir()
    assert found(tmp_path, Split.VAL).labels == tmp_path / "Annotations"
    assert images_of(tmp_path, Split.TRAIN) == ["a.jpg", "b.jpg", "c.jpg"]
    lists = tmp_path / "ImageSets" / "Main"
    write(lists / "train.txt", "a\nb\n")
    with pytest.raises(DataError, match=r"val\.txt"):
        find_image_set(tmp_path, Split.VAL)
    write(lists / "val.txt", "c 1\n")
    assert [images_of(tmp_path, split) for split in Split] == [["a.jpg", "b.jpg"], ["c.jpg"]]
    write(lists / "val.txt", "c\nd\n")
    with pytest.raises(DataError, match=r"names 1 of 2 images that are not in .*JPEGImages, such as d"):
        find_image_set(tmp_path, Split.VAL)


@pytest.mark.parametrize(
    ("place", "images"),
    [
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val2017.json", "images/val2017"),
        ("val/_annotations.coco.json", "val"),
        ("instances.json", "images"),
        ("val.json", "val"),
    ],
)
def test_the_images_of_cocos_json(tmp_path: Path, place: str, images: str) -> None:
    draw(tmp_path / images, "b.png", "a.png")
    document = {"images": [{"id": 1, "file_name": "b.png"}, {"id": 2, "file_name": "a.png"}]}
    path = write(tmp_path / place, json.dumps(document))
    known = found(path, Split.VAL)
    assert (known.folder.root, known.folder.names) == (tmp_path / images, ("a.png", "b.png"))
    assert known.labels == path
    (tmp_path / images / "b.png").unlink()
    with pytest.raises(DataError, match="lists 1 of 2 images that are not in"):
        find_image_set(path, Split.VAL)
    (tmp_path / images / "a.png").unlink()
    with pytest.raises(DataError, match=r"lists a\.png, which is not there .looked in"):
        find_image_set(path, Split.VAL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "lists no images, as COCO"),
        ('{"images": []}', "lists no images"),
        ('{"images": 5}', "lists no images, as COCO"),
        ('{"images": [{}]}', "lists no images, as COCO"),
        ("[1]", "lists no images, as COCO"),
        ('{"images": [', "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_image_set(write(tmp_path / "a.json", text), Split.VAL)


def test_lists_of_images(shapes: Path) -> None:
    path = write(shapes / "some.txt", f"images/train/a.png\n{shapes}/images/val/c.png\n")
    for split in Split:
        images = found(path, split)
        assert (images.folder.root, images.folder.names) == (shapes / "images", ("train/a.png", "val/c.png"))
    with pytest.raises(DataError, match="no images in"):
        find_image_set(write(shapes / "none.txt", "\n"), Split.VAL)


def test_other_files_are_no_images(tmp_path: Path) -> None:
    assert find_image_set(write(tmp_path / "a.md", ""), Split.VAL) is None

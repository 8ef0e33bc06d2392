"""Lists of images from Python: what they give is what the same files in a folder give."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import quantkit
from quantkit.data.image_list import ImageList, given_data
from quantkit.errors import DataError, UsageError

DATA = Path(__file__).parents[2] / "calibration_data"
MODEL = DATA / "model.onnx"
IMAGES = sorted((DATA / "images").rglob("*.png"))[::5]
TEST = sorted((DATA / "test").rglob("*.png"))[::4]
LABELS = [int(path.parent.name) for path in TEST]


def held(paths: list[Path]) -> list[Image.Image]:
    """The images as Pillow opens them, not decoded yet."""
    return [Image.open(BytesIO(path.read_bytes())) for path in paths]


def test_a_list_calibrates_as_its_folder_does(tmp_path: Path) -> None:
    for path in IMAGES:
        place = tmp_path / path.relative_to(DATA / "images")
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes())
    whole = quantkit.calibrate(MODEL, tmp_path, rule="mse")
    listed = quantkit.calibrate(MODEL, IMAGES, rule="mse")
    texts = quantkit.calibrate(MODEL, tuple(map(str, IMAGES)), rule="mse")
    opened = quantkit.calibrate(MODEL, held(IMAGES), rule="mse")
    assert whole.table == listed.table == texts.table == opened.table
    assert whole.statistics is not None
    assert listed.statistics is not None
    assert whole.statistics.origin == listed.statistics.origin
    assert listed.preprocess.source == opened.preprocess.source == "preprocess.toml beside the model"


@pytest.mark.parametrize(
    ("data", "labels"),
    [
        (TEST, None),
        (TEST, LABELS),
        (list(zip(TEST, LABELS, strict=True)), None),
        (list(zip(held(TEST), LABELS, strict=True)), None),
        (held(TEST), np.array(LABELS)),
    ],
    ids=["class folders", "labels of paths", "pairs of paths", "pairs of images", "labels of images"],
)
def test_labels_belong_to_their_images(data: Any, labels: Any) -> None:
    found = quantkit.evaluate(MODEL, data, labels=labels)
    assert found.samples == len(TEST)
    assert found.reference.metrics["top1"] >= 0.95
    assert quantkit.evaluate(MODEL, data, labels=labels, limit=10).samples == 10


def test_other_labels_give_another_figure() -> None:
    wrong = [(label + 1) % 10 for label in LABELS]
    assert quantkit.evaluate(MODEL, TEST, labels=wrong).reference.metrics["top1"] <= 0.05


def test_a_turned_image_is_fed_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(IMAGES[0]) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    files = [tmp_path / "turned.png", *IMAGES[1:9]]
    assert quantkit.calibrate(MODEL, files).table == quantkit.calibrate(MODEL, held(files)).table


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([TEST[0], 3], r"data\[1\] is of type int, but data\[0\] is a path"),
        ([TEST[0], None], r"data\[1\] is of type NoneType"),
        ([TEST[0], Image.new("L", (4, 4))], r"data\[1\] is a PIL image, but data\[0\] is a path"),
        ([(TEST[0], 1), TEST[1]], r"data\[1\] is a path, but data\[0\] is a path with a label"),
        ([TEST[0], TEST[0]], "is in the list twice"),
        (["labels.txt"], r"data\[0\] is 'labels.txt', which is no image"),
    ],
)
def test_what_is_no_list_of_images_is_refused(data: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        quantkit.calibrate(MODEL, data)


def test_labels_that_do_not_fit_are_refused() -> None:
    for data, labels, problem in (
        (TEST, [1], f"1 labels for {len(TEST)} images"),
        ([(path, 0) for path in TEST], LABELS, "labels already"),
        (DATA / "test", LABELS, "labels is of type list"),
        (TEST, 3, "labels is of type int"),
    ):
        with pytest.raises(UsageError, match=problem):
            quantkit.evaluate(MODEL, data, labels=labels)
    with pytest.raises(DataError, match="labels of a list of images: "):
        quantkit.evaluate(MODEL, TEST[:2], labels=[[1], [1, 2]])


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(IMAGES[0].read_bytes()[:60])
    with pytest.raises(DataError, match=r"(?s)1 of 3 samples cannot be read.*cut\.png"):
        quantkit.calibrate(MODEL, [*IMAGES[:2], tmp_path / "cut.png"])
    with Image.open(IMAGES[2]) as closed:
        pass
    with pytest.raises(DataError, match=r"(?s)1 of 3 samples cannot be read.*image 2"):
        quantkit.calibrate(MODEL, [*held(IMAGES[:2]), closed])
    assert quantkit.calibrate(MODEL, [*held(IMAGES[:2]), closed], skip_corrupt=True).samples == 2


def test_a_generator_of_images_is_told_to_become_a_list() -> None:
    for data in ((path for path in IMAGES), iter(held(IMAGES))):
        with pytest.raises(DataError, match="give images as a list"):
            quantkit.calibrate(MODEL, data)


def test_other_data_are_left_alone() -> None:
    for data in ("folder", Path("x"), b"x", [], [np.zeros(3)], {"a": 1}, iter(["a.png"]), list, None):
        assert given_data(data) is data
    again = given_data(TEST)
    assert isinstance(again, ImageList)
    assert given_data(again) is again

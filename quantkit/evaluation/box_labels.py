"""Labels of detectors: the objects of every image, and how the image became the network's input.

    labels                      where
    COCO's instances JSON       --labels FILE.json; images by path or by name
    YOLO's text files           --labels FOLDER, or beside the images: `…/images/a.jpg` has `…/labels/a.txt`

An image without a text file holds no objects, as in the YOLO family; a data set without any text file has no labels.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantkit.data import Feed, Portion
from quantkit.data.labels import Labels
from quantkit.errors import DataError, UsageError
from quantkit.metrics.box_labels import read_coco, read_yolo
from quantkit.metrics.boxes import Objects, Scene, image_geometry
from quantkit.preprocess import Preprocess

ORIENTATION = 274
TURNED = frozenset({5, 6, 7, 8})
"""EXIF orientations in which width and height change places."""


def open_scenes(data: Any, feed: Feed, path: Path | None, spec: Preprocess | None) -> Labels:
    """The labels of detection data. UsageError where the data are no images, DataError where there are no labels."""
    if feed.kind != "images" or spec is None or feed.names is None:
        raise UsageError(
            f"boxes are measured in images, and the data are {feed.kind}", remedy="give a folder of images"
        )
    given = Path(data)
    root = given if given.is_dir() else given.parent
    if path is not None and path.is_file():
        return of_coco(path, root, feed.names, spec)
    return of_yolo(path, root, feed.names, spec)


def of_coco(path: Path, root: Path, names: Sequence[str], spec: Preprocess) -> Labels:
    """From COCO's JSON. DataError where images are not in it."""
    known = read_coco(path)
    by_sample = {name: found for name in names if (found := named(name, known.objects)) is not None}
    missing = [name for name in names if name not in by_sample]
    if missing:
        raise DataError(
            f"{path} does not know {len(missing)} of {len(names)} images: {missing[0]}",
            remedy="give the JSON of these images, or remove the others from the data",
        )

    def of(portion: Portion) -> Sequence[Scene]:
        return [Scene(by_sample[name], image_geometry(spec, upright_size(root / name))) for name in portion.names]

    return Labels(path.name, of, known.names)


def named(sample: str, objects: Mapping[str, Objects]) -> Objects | None:
    """What a JSON holds for an image, by its path or its name."""
    return objects.get(sample, objects.get(sample.rpartition("/")[2]))


def of_yolo(path: Path | None, root: Path, names: Sequence[str], spec: Preprocess) -> Labels:
    """From text files. DataError where no image has one."""
    places = {name: text_file(path, root, name) for name in names}
    if not any(place.is_file() for place in places.values()):
        first = next(iter(places.values()))
        raise DataError(
            f"there are no labels of boxes: no image has its text file, such as {first}",
            remedy="--labels FILE.json in COCO's format, or --labels FOLDER of text files in YOLO's",
        )

    def of(portion: Portion) -> Sequence[Scene]:
        sizes = {name: upright_size(root / name) for name in portion.names}
        return [Scene(read_yolo(places[name], size), image_geometry(spec, size)) for name, size in sizes.items()]

    return Labels(f"text files of {places[names[0]].parent.name}", of)


def text_file(path: Path | None, root: Path, name: str) -> Path:
    """Where an image's text file is: below `path`, else in `labels` where the image is in `images`, else beside it."""
    if path is not None:
        return (path / name).with_suffix(".txt")
    parts = list((root.resolve() / name).parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as it is meant to be seen, from its head alone. DataError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = is_turned(image)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: {error}", remedy="mend or remove the file") from None
    return (height, width) if turned else (width, height)


def is_turned(image: Any) -> bool:
    """Whether its EXIF orientation turns an image on its side; damaged EXIF data turns nothing."""
    try:
        return image.getexif().get(ORIENTATION) in TURNED
    except (OSError, ValueError, SyntaxError, KeyError, struct.error, Warning):
        return False

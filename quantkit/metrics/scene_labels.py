"""Labels of detectors: the objects in every image, and how the image became the network's input.

    labels                      where
    COCO's instances JSON       --labels FILE.json; images by path or by name
    YOLO's text files           --labels FOLDER, or beside the images: `…/images/a.jpg` has `…/labels/a.txt`

An image without a text file has no objects, as in the YOLO family; a data set without any text file has no labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from quantkit.errors import DataError, UnreadableError, UsageError
from quantkit.image_file import exif_orientation, opened_image
from quantkit.metrics.box_labels import read_coco, read_yolo
from quantkit.metrics.boxes import ImageGeometry, Objects, Scene, image_geometry
from quantkit.metrics.metric import LabelRequest, MetricLabels
from quantkit.paths import is_file, is_folder, real_path
from quantkit.preprocess import Preprocess

TURNED = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap width and height."""


def open_scenes(request: LabelRequest) -> MetricLabels:
    """Open the labels of detection data. UsageError if the data are not images, DataError if there are no labels."""
    spec, names, path = request.spec, request.names, request.path
    if request.kind != "images" or spec is None or names is None:
        raise UsageError(f"boxes need images, but the data are {request.kind}", remedy="give a folder of images")
    given = Path(request.data)
    root = given if is_folder(given) else given.parent
    if path is not None and is_file(path):
        return coco_scenes(path, root, names, spec)
    return yolo_scenes(path, root, names, spec)


def coco_scenes(path: Path, root: Path, names: Sequence[str], spec: Preprocess) -> MetricLabels:
    """Open labels in COCO's JSON. DataError if it lacks images."""
    known = read_coco(path)
    by_sample = {name: found for name in names if (found := objects_in_image(name, known.objects)) is not None}
    missing = [name for name in names if name not in by_sample]
    if missing:
        raise DataError(
            f"{path} lacks {len(missing)} of {len(names)} images, for example {missing[0]}",
            remedy="give the JSON of these images, or remove the others from the data",
        )

    def scenes(samples: Sequence[str]) -> list[Scene]:
        return [Scene(by_sample[name], image_geometry(spec, upright_size(root / name))) for name in samples]

    return MetricLabels(path.name, scenes, known.names)


def objects_in_image(sample: str, objects: Mapping[str, Objects]) -> Objects | None:
    """Return the objects that a JSON has for an image, by its path or its name."""
    return objects.get(sample, objects.get(sample.rpartition("/")[2]))


def yolo_scenes(path: Path | None, root: Path, names: Sequence[str], spec: Preprocess) -> MetricLabels:
    """Open labels in text files. DataError if no image has one."""
    places = {name: label_file(path, root, name) for name in names}
    if not any(is_file(place) for place in places.values()):
        first = next(iter(places.values()))
        raise DataError(
            f"there are no box labels: no image has a text file, such as {first}",
            remedy="--labels FILE.json in COCO's format, or --labels FOLDER of text files in YOLO's",
        )

    def scenes(samples: Sequence[str]) -> list[Scene]:
        sizes = {name: upright_size(root / name) for name in samples}
        return [Scene(read_yolo(places[name], size), image_geometry(spec, size)) for name, size in sizes.items()]

    return MetricLabels(f"text files of {places[names[0]].parent.name}", scenes)


def label_file(path: Path | None, root: Path, name: str) -> Path:
    """Return the path of an image's text file: in `path`, else in `labels` for `images`, else beside the image."""
    if path is not None:
        return (path / name).with_suffix(".txt")
    parts = list((real_path(root) / name).parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def image_geometries(root: Path, names: Sequence[str], spec: Preprocess) -> list[ImageGeometry]:
    """Return how images became the input, by a resolved spec; names are relative to `root`. DataError."""
    return [image_geometry(spec, upright_size(root / name)) for name in names]


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image in its upright orientation, read from its header only. DataError."""
    try:
        with opened_image(path) as image:
            width, height = image.size
            turned = exif_orientation(image) in TURNED
    except UnreadableError as error:
        raise DataError(f"{path}: {error}", remedy="fix or remove the file") from None
    return (height, width) if turned else (width, height)

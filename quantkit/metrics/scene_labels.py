"""Labels of images for detection and segmentation: found, read, brought into the network's order of classes.

    labels                      where
    COCO's JSON                 --labels FILE.json, or where COCO and Roboflow have it; images by path or by name
    YOLO's text files           --labels FOLDER, or beside the images
    Pascal VOC's XML            --labels FOLDER, or beside the images
    class maps (PNG)            --labels FOLDER, or `masks` in place of `images`

`labels.places` has the details. Everything is read when labels are opened, so that a damaged file is an error at once.
An image without a text file has no objects, as in the YOLO family; a data set without any text file has no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantkit.errors import DataError, UsageError
from quantkit.metrics.boxes import ClassMap, ImageGeometry, Scene, image_geometry
from quantkit.metrics.labels.class_maps import read_class_map
from quantkit.metrics.labels.objects_by_image import read_objects
from quantkit.metrics.labels.places import LabelForm, LabelPlace, find_labels, labels_in, nearby_labels
from quantkit.metrics.metric import LabelRequest, MetricLabels, SizeOf
from quantkit.metrics.task import Task
from quantkit.paths import exists, is_file, is_folder
from quantkit.preprocess import Preprocess


def open_scenes(request: LabelRequest) -> MetricLabels:
    """Open labels with boxes, as `Scene` values. UsageError if the data are not images, DataError."""
    return scenes_of(request, Task.DETECT)


def open_outlined_scenes(request: LabelRequest) -> MetricLabels:
    """Open labels with outlines, as `Scene` values. UsageError if the data are not images, DataError."""
    return scenes_of(request, Task.SEGMENT)


def open_keypoint_scenes(request: LabelRequest) -> MetricLabels:
    """Open labels with keypoints, as `Scene` values. UsageError if the data are not images, DataError."""
    return scenes_of(request, Task.POSE)


def open_class_maps(request: LabelRequest) -> MetricLabels:
    """Open labels of semantic segmentation, as `ClassMap` values. UsageError if the data are not images, DataError."""
    names, spec, size_of = image_request(request, Task.SEMANTIC)
    place = locate_labels(request, Task.SEMANTIC)
    if missing := [name for name in names if name not in place.files]:
        raise DataError(
            f"{len(missing)} of {len(names)} images have no class map in {place.folder}, such as {missing[0]}",
            remedy="add the class maps, or take the images out of the data",
        )

    def maps(samples: Sequence[str]) -> list[ClassMap]:
        shapes = image_geometries(size_of, samples, spec)
        return [
            ClassMap(read_class_map(place.files[name], shape.size), shape)
            for name, shape in zip(samples, shapes, strict=True)
        ]

    return MetricLabels(place.text, maps, request.network.names or request.classes, files=place.every_file)


def scenes_of(request: LabelRequest, task: Task) -> MetricLabels:
    """Open labels of objects. UsageError if the data are not images; DataError if there are none, or one is damaged."""
    names, spec, size_of = image_request(request, task)
    place = locate_labels(request, task)
    found = read_objects(place, names, request, task)

    def scenes(samples: Sequence[str]) -> list[Scene]:
        shapes = image_geometries(size_of, samples, spec)
        return [
            Scene(found.of(name, shape.size), shape, found.ids) for name, shape in zip(samples, shapes, strict=True)
        ]

    missing = len(names) - len(place.files) if place.form is LabelForm.TEXT else 0
    without = f"{missing:,} of {len(names):,} images have no text file, and count as images without objects"
    notes = (*((without,) if missing else ()), *found.order.notes)
    return MetricLabels(place.text, scenes, found.order.names, notes, place.every_file)


def image_request(request: LabelRequest, task: Task) -> tuple[Sequence[str], Preprocess, SizeOf]:
    """Return the names of images, their preprocessing and their sizes. UsageError if the data are not images."""
    spec, names, size_of = request.spec, request.names, request.size_of
    if request.kind != "images" or spec is None or names is None or size_of is None:
        raise UsageError(
            f"{task.labels} need images, but the data are {request.kind}", remedy="give a folder of images"
        )
    return names, spec, size_of


def image_folder(request: LabelRequest) -> Path:
    """Return the folder beside which labels may lie."""
    given = Path(request.data) if request.root is None else request.root
    return given if is_folder(given) else given.parent


def locate_labels(request: LabelRequest, task: Task) -> LabelPlace:
    """Return the labels that were given, or those of the images. DataError, which names what lies nearby."""
    names, _, _ = image_request(request, task)
    root = image_folder(request)
    if found := seek_labels(request, task):
        return found
    path = request.path
    if path is None:
        raise DataError(
            f"there are no {task.labels} as labels of the images in {request.root or request.data}",
            remedy=ask_for(task),
        )
    if is_file(path):
        raise DataError(
            f"{path} is not COCO's JSON, the only file that holds labels of all images",
            remedy=f"omit --labels, and give --data {path}" if path.suffix in (".yaml", ".yml") else ask_for(task),
        )
    near = nearby_labels(path, root, names, task)
    first = f"no image has its {task.labels} in {path}" if exists(path) else f"{path} does not exist"
    hint = f"{near.text} belong to the images: --labels {near.json or near.folder}" if near else ask_for(task)
    raise DataError(f"{first} (looked for {(path / names[0]).with_suffix('')}.*)", remedy=hint)


def seek_labels(request: LabelRequest, task: Task) -> LabelPlace | None:
    """Return the labels that were given, else those that the data set declares, else those beside the images.

    None if there are none, in the place that was given if one was.
    """
    names, _, _ = image_request(request, task)
    for path in (request.path, request.declared):
        if path is not None and is_file(path) and path.suffix.lower() == ".json" and task is not Task.SEMANTIC:
            return LabelPlace(LabelForm.JSON, path.parent, {}, path)
        if path is not None and is_folder(path) and (found := labels_in(path, names, task)):
            return found
        if request.path is not None:
            return None
    return find_labels(image_folder(request), names, task)


def ask_for(task: Task) -> str:
    """Return the remedy for missing labels."""
    if task is Task.SEMANTIC:
        return "--labels FOLDER of class maps (PNG, a pixel is a class index), named as the images"
    forms = "YOLO's text files or Pascal VOC's XML" if task is Task.DETECT else "YOLO's text files"
    return f"--labels FILE.json in COCO's format, or --labels FOLDER of {forms}"


def image_geometries(size_of: SizeOf, names: Sequence[str], spec: Preprocess) -> list[ImageGeometry]:
    """Return how images became the input, by a resolved spec. DataError."""
    return [image_geometry(spec, size_of(name)) for name in names]

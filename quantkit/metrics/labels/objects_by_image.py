"""The objects of every image, read from labels in any form, with the class indices of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantkit.errors import DataError
from quantkit.metrics.boxes import Objects, scale_objects
from quantkit.metrics.labels.class_order import ClassOrder, match_classes
from quantkit.metrics.labels.coco_json import read_coco
from quantkit.metrics.labels.places import LabelForm, LabelPlace
from quantkit.metrics.labels.rows import ObjectRow, as_objects
from quantkit.metrics.labels.voc_xml import CLASSES, read_voc
from quantkit.metrics.labels.yolo_text import read_yolo
from quantkit.metrics.metric import LabelRequest
from quantkit.metrics.task import Task

FRACTIONS = (1, 1)
"""Size of an image whose objects are in fractions of it."""


@dataclass(frozen=True, slots=True)
class ObjectsByImage:
    """Objects by image. read: name and size (width, height) of an image → its objects in pixels, as labels number them.

    ids: COCO's category ids by class index; empty if there are none.
    """

    read: Callable[[str, tuple[int, int]], Objects]
    order: ClassOrder
    ids: tuple[int, ...] = ()

    def of(self, name: str, size: tuple[int, int]) -> Objects:
        """Return the objects of an image with the network's class indices. DataError."""
        return self.order.apply(refuse_outside(self.read(name, size), name, size))


def read_objects(place: LabelPlace, names: Sequence[str], request: LabelRequest, task: Task) -> ObjectsByImage:
    """Read labels of a task for images. DataError names the file and the object that is damaged, and what lacks."""
    if place.json is not None:
        return objects_in_coco(place.json, names, request, task)
    if place.form is LabelForm.XML:
        return objects_in_xml(place, request)
    return objects_in_text(place, request, task)


def objects_in_coco(path: Path, names: Sequence[str], request: LabelRequest, task: Task) -> ObjectsByImage:
    """Read COCO's JSON. DataError if it lacks images."""
    known = read_coco(path, outlines=task is Task.SEGMENT, keypoints=task is Task.POSE)
    files = files_by_image(names, tuple(known.objects), path)
    if missing := [name for name in names if name not in files]:
        raise DataError(
            f"{path} lacks {len(missing)} of {len(names)} images, for example {missing[0]}",
            remedy="give the JSON of these images, or remove the others from the data",
        )
    found = {f"{path}, {name}": known.objects[file] for name, file in files.items()}
    refuse_other_labels(found, task, path.name)
    order = match_classes(known.names, request.network.names, classes_in(found), path.name)

    def read(name: str, size: tuple[int, int]) -> Objects:
        stated = known.sizes.get(files[name], size)
        if stated != size:
            raise DataError(
                f"{name} is {size[0]}×{size[1]}, but {path.name} has labels for {stated[0]}×{stated[1]}",
                remedy="give the images that were labelled, or labels for these",
            )
        return known.objects[files[name]]

    return ObjectsByImage(read, order, known.ids if order.indices is None else ())


def files_by_image(names: Sequence[str], files: Sequence[str], path: Path) -> Mapping[str, str]:
    """Return image → file name in a JSON, by path, or else by name. DataError where a name fits several images."""
    exact, by_name = set(files), dict[str, list[str]]()
    for file in files:
        by_name.setdefault(file.rpartition("/")[2], []).append(file)
    found: dict[str, str] = {}
    images: dict[str, str] = {}
    for name in names:
        fitting = [name] if name in exact else by_name.get(name.rpartition("/")[2], [])
        if not fitting:
            continue
        file = fitting[0]
        if len(fitting) > 1 or file in images:
            several = " and ".join(fitting[:2] if len(fitting) > 1 else (images[file], name))
            raise DataError(
                f"{path}: {several} have the same name, and no path tells them apart",
                remedy="write paths from the data folder as file_name",
            )
        found[name], images[file] = file, name
    return found


def objects_in_text(place: LabelPlace, request: LabelRequest, task: Task) -> ObjectsByImage:
    """Read YOLO's text files. DataError names the file and the line."""
    shape = request.keypoints or (request.network.keypoints if task is Task.POSE else None)
    if task is Task.POSE and shape is None:
        raise DataError(
            f"how many keypoints the objects in {place.folder} have is unknown",
            remedy="give the data set as --data data.yaml, with kpt_shape: [number of keypoints, 2 or 3]",
        )
    known = {name: read_yolo(path, FRACTIONS, shape) for name, path in place.files.items()}
    by_file = {str(place.files[name]): found for name, found in known.items()}
    refuse_other_labels(by_file, task, place.text)
    order = match_classes(request.classes, request.network.names, classes_in(by_file), place.text)
    nothing = as_objects([], shape[0] if shape else 0)
    return ObjectsByImage(lambda name, size: scale_objects(known.get(name, nothing), size), order)


def objects_in_xml(place: LabelPlace, request: LabelRequest) -> ObjectsByImage:
    """Read Pascal VOC's XML. DataError if the indices of its class names are unknown."""
    boxes = {name: read_voc(path) for name, path in place.files.items()}
    used = sorted({box.name for found in boxes.values() for box in found})
    known = request.classes or (CLASSES if set(used) <= set(CLASSES) else ())
    if not known and not request.network.names:
        raise DataError(
            f"{place.text} name {len(used)} classes ({', '.join(used[:4])}), whose indices are unknown",
            remedy="--classes FILE gives the names of the network's classes, in the order of its outputs",
        )
    names = tuple(known) if set(used) <= set(known) else tuple(used)
    index = {name: at for at, name in enumerate(names)}
    objects = {
        name: as_objects([ObjectRow(index[box.name], *box.box, crowd=box.difficult) for box in found])
        for name, found in boxes.items()
    }
    by_file = {str(place.files[name]): found for name, found in objects.items()}
    refuse_other_labels(by_file, Task.DETECT, place.text)
    order = match_classes(names, request.network.names or known, classes_in(by_file), place.text)
    nothing = as_objects([])
    return ObjectsByImage(lambda name, _: objects.get(name, nothing), order)


def refuse_outside(objects: Objects, name: str, size: tuple[int, int]) -> Objects:
    """Return the objects of an image. DataError if one lies outside, where no network can find it."""
    outside = (objects.boxes[:, 2:] < 0).any(axis=1) | (objects.boxes[:, :2] > size).any(axis=1)
    if outside.any():
        box = ", ".join(f"{edge:.6g}" for edge in objects.boxes[int(outside.argmax())])
        raise DataError(
            f"{name} is {size[0]}×{size[1]}, and one of its objects lies outside: {box} (x1, y1, x2, y2 in pixels)",
            remedy="give the images that were labelled, or correct the labels",
        )
    return objects


def classes_in(objects: Mapping[str, Objects]) -> dict[int, str]:
    """Return the class indices that occur, with the first place of each. objects: by their place, for messages."""
    places: dict[int, str] = {}
    for place, found in objects.items():
        for index in map(int, found.classes):
            places.setdefault(index, place)
    return places


def refuse_other_labels(objects: Mapping[str, Objects], task: Task, source: str) -> None:
    """Raise DataError where no object counts, or none has what a task needs: an outline, or keypoints."""
    known = [found for found in objects.values() if found.classes.size]
    if all(found.crowd.all() for found in known):
        every = "every object is a crowd or difficult, so that none counts" if known else "there is no object"
        raise DataError(f"{source}: {every}", remedy="give labels of the images, or --no-labels compares the models")
    lacks = {
        Task.SEGMENT: all(found.outlines is None for found in known),
        Task.POSE: all(found.keypoints is None for found in known),
    }
    if lacks.get(task, False):
        raise DataError(
            f"{source}: the objects have boxes, but no {task.labels}",
            remedy=f"give labels with {task.labels}, or measure the boxes: --metric map",
        )

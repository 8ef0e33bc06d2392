"""Readers for labels of detection data: COCO's JSON, and the YOLO family's text files.

Classes are numbered 0, 1, … in the order of COCO's category ids, as the YOLO family numbers them: COCO's 90 ids with
gaps become 0 … 79.

Sources: COCO data format (cocodataset.org/#format-data); Ultralytics' detection data set format: `class x y width
height`, centre and size as fractions of the image, or `class x1 y1 x2 y2 x3 y3 …` for an outline, reduced to its box.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantkit.document import bounded_json, describe_syntax, read_text_file
from quantkit.errors import DataError
from quantkit.metrics.boxes import Objects
from quantkit.regular_file import file_fault, read_regular_text
from quantkit.values import MOST_CLASSES
from quantkit.view import shorten_middle

FAULTS = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""Exceptions of a document that has other values than those of COCO's labels."""
LARGEST = 1 << 30
"""Bytes of a file of labels: twice those of the largest data set of COCO."""
SHOWN = 120
"""Characters of a fault that an error quotes."""


@dataclass(frozen=True, slots=True)
class CocoLabels:
    """COCO's labels. names: of the classes, by index. objects: by file name as in the JSON, for all images."""

    names: tuple[str, ...]
    objects: Mapping[str, Objects]


def as_objects(rows: list[tuple[int, float, float, float, float, bool]]) -> Objects:
    """Convert (class, x1, y1, x2, y2, crowd) rows to objects."""
    return Objects(
        np.array([row[0] for row in rows], np.intp),
        np.array([row[1:5] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[5] for row in rows], np.bool_),
    )


def read_coco(path: str | os.PathLike[str]) -> CocoLabels:
    """Read COCO's instances JSON. DataError names the file and the annotation."""
    remedy = "give COCO's instances file"
    text = read_text_file(path, DataError, remedy, LARGEST)
    try:
        document = bounded_json(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {describe_syntax(error, 'JSON')}", remedy=remedy) from None
    try:
        names = {int(c["id"]): str(c["name"]) for c in document["categories"]}
        files = {i["id"]: str(i["file_name"]) for i in document["images"]}
        annotations = list(document["annotations"])
    except FAULTS as error:
        raise DataError(
            f"{path}: not COCO labels: {describe_fault(error)}",
            remedy="it needs images (id, file_name), categories (id, name) and annotations",
        ) from None
    number = {identity: at for at, identity in enumerate(sorted(names))}
    rows: dict[Any, list[tuple[int, float, float, float, float, bool]]] = defaultdict(list)
    for position, annotation in enumerate(annotations):
        try:
            x, y, width, height = finite_box(annotation["bbox"])
            at = number[annotation["category_id"]]
            file, crowd = files[annotation["image_id"]], bool(annotation.get("iscrowd", 0))
        except FAULTS as error:
            raise DataError(
                f"{path}: annotation {position}: {describe_fault(error)}",
                remedy="it needs bbox [x, y, width, height], a known category_id and a known image_id",
            ) from None
        rows[file].append((at, x, y, x + width, y + height, crowd))
    return CocoLabels(tuple(names[i] for i in sorted(names)), {f: as_objects(rows[f]) for f in files.values()})


def finite_box(values: Any) -> tuple[float, float, float, float]:
    """Return x, y, width and height. ValueError, TypeError or OverflowError if it is no box."""
    x, y, width, height = map(float, values)
    if not all(map(math.isfinite, (x, y, width, height))) or width < 0 or height < 0:
        raise ValueError("the numbers of a box are finite, and width and height not negative")
    return x, y, width, height


def describe_fault(error: Exception) -> str:
    """Return an error of damaged labels in a few words."""
    return f"{type(error).__name__} {shorten_middle(str(error), SHOWN)}"


def read_yolo(path: str | os.PathLike[str], size: tuple[int, int]) -> Objects:
    """Read a YOLO text file for an image of `size` (width, height). A missing file means an image without objects.

    DataError names the file and the line.
    """
    try:
        lines = read_regular_text(path).splitlines()
    except FileNotFoundError:
        return as_objects([])
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read: {file_fault(error)}", remedy="give a text file in YOLO's format"
        ) from None
    rows = []
    for position, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if not line.isascii() or "_" in line:
                raise ValueError("a number has ASCII digits alone")
            kind, *values = line.split()
            rows.append(parse_yolo_row(int(kind), [float(value) for value in values], size))
        except ValueError as error:
            raise DataError(
                f"{path}, line {position}: {shorten_middle(str(error), SHOWN)}",
                remedy="a line is `class x y width height`, in fractions of the image",
            ) from None
    return as_objects(rows)


def parse_yolo_row(
    kind: int, values: list[float], size: tuple[int, int]
) -> tuple[int, float, float, float, float, bool]:
    """Return the box of one line, in pixels. ValueError if it is not one."""
    if not 0 <= kind < MOST_CLASSES or not all(-0.01 <= value <= 1.01 for value in values):
        raise ValueError("the class must be an integer from 0, and the other numbers fractions of the image")
    width, height = size
    if len(values) == 4:
        x, y, wide, tall = values
        left, top, right, bottom = x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2
    elif len(values) >= 6 and len(values) % 2 == 0:
        left, right = min(values[::2]), max(values[::2])
        top, bottom = min(values[1::2]), max(values[1::2])
    else:
        raise ValueError(f"{1 + len(values)} numbers")
    return kind, left * width, top * height, right * width, bottom * height, False

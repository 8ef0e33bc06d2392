"""Readers for labels of detection data: COCO's JSON, and the YOLO family's text files.

Classes are numbered 0, 1, … in the order of COCO's category ids, as the YOLO family numbers them: COCO's 90 ids with
gaps become 0 … 79.

Sources: COCO data format (cocodataset.org/#format-data); Ultralytics' detection data set format: `class x y width
height`, centre and size as fractions of the image, or `class x1 y1 x2 y2 x3 y3 …` for an outline, reduced to its box.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantkit.errors import DataError
from quantkit.metrics.boxes import Objects
from quantkit.regular_file import read_regular_text


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
    try:
        document = json.loads(read_regular_text(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}", remedy="give COCO's instances file") from None
    try:
        names = {int(c["id"]): str(c["name"]) for c in document["categories"]}
        files = {i["id"]: str(i["file_name"]) for i in document["images"]}
        annotations = list(document["annotations"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not COCO labels: {type(error).__name__} {error}",
            remedy="it needs images (id, file_name), categories (id, name) and annotations",
        ) from None
    number = {identity: at for at, identity in enumerate(sorted(names))}
    rows: dict[Any, list[tuple[int, float, float, float, float, bool]]] = defaultdict(list)
    for position, annotation in enumerate(annotations):
        try:
            x, y, width, height = map(float, annotation["bbox"])
            at = number[annotation["category_id"]]
            file = files[annotation["image_id"]]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: annotation {position}: {type(error).__name__} {error}",
                remedy="it needs bbox [x, y, width, height], a known category_id and a known image_id",
            ) from None
        rows[file].append((at, x, y, x + width, y + height, bool(annotation.get("iscrowd", 0))))
    return CocoLabels(tuple(names[i] for i in sorted(names)), {f: as_objects(rows[f]) for f in files.values()})


def read_yolo(path: str | os.PathLike[str], size: tuple[int, int]) -> Objects:
    """Read a YOLO text file for an image of `size` (width, height). A missing file means an image without objects.

    DataError names the file and the line.
    """
    try:
        lines = read_regular_text(path).splitlines()
    except FileNotFoundError:
        return as_objects([])
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}", remedy="give a text file in YOLO's format") from None
    rows = []
    for position, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            kind, *values = line.split()
            rows.append(parse_yolo_row(int(kind), [float(value) for value in values], size))
        except ValueError as error:
            raise DataError(
                f"{path}, line {position}: {error}",
                remedy="a line is `class x y width height`, in fractions of the image",
            ) from None
    return as_objects(rows)


def parse_yolo_row(
    kind: int, values: list[float], size: tuple[int, int]
) -> tuple[int, float, float, float, float, bool]:
    """Return the box of one line, in pixels. ValueError if it is not one."""
    if kind < 0 or not all(-0.01 <= value <= 1.01 for value in values):
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

"""Labels in COCO's JSON: boxes, outlines (polygons or run lengths) and keypoints.

Classes are numbered 0, 1, … in the order of COCO's category ids, as the YOLO family numbers them: COCO's 80 categories,
whose ids reach 90, become 0 … 79. Source: COCO data format (cocodataset.org/#format-data), and the run lengths of
pycocotools' `maskApi.c`, from whose description this was written.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from quantkit.document import bounded_json, describe_syntax, read_text_file
from quantkit.errors import DataError
from quantkit.metrics.boxes import Objects, Outline
from quantkit.metrics.labels.rows import FAULTS, ObjectRow, as_objects, describe_fault

LARGEST = 1 << 30
"""Bytes of a file of labels: twice those of the largest data set of COCO."""
MOST_PIXELS = 1 << 31
GIVE = "give COCO's instances file"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CocoLabels:
    """COCO's labels. names, ids: of the classes, by index. objects: by file name as in the JSON, for all images.

    sizes: width and height of images, by file name, as far as the JSON has them.
    """

    names: tuple[str, ...]
    objects: Mapping[str, Objects]
    ids: tuple[int, ...] = ()
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_coco(path: str | os.PathLike[str], *, outlines: bool = False, keypoints: bool = False) -> CocoLabels:
    """Read COCO's instances JSON. DataError names the file and the annotation.

    outlines, keypoints: read them, too; an object without an outline gets its box, one without keypoints none.
    """
    document = coco_document(path)
    try:
        names = {int(c["id"]): str(c["name"]) for c in document["categories"]}
        files = {i["id"]: str(i["file_name"]) for i in document["images"]}
        sizes = {str(i["file_name"]): (int(i["width"]), int(i["height"])) for i in document["images"] if "width" in i}
        annotations = list(document["annotations"])
    except FAULTS as error:
        raise DataError(
            f"{path}: not COCO labels: {describe_fault(error)}",
            remedy="it needs images (id, file_name), categories (id, name) and annotations",
        ) from None
    number = {identity: at for at, identity in enumerate(sorted(names))}
    rows: dict[Any, list[ObjectRow]] = defaultdict(list)
    most = 0
    for position, annotation in enumerate(annotations):
        try:
            at = known_id(number, annotation["category_id"], "category")
            file = known_id(files, annotation["image_id"], "image")
            row = coco_row(annotation, at, sizes.get(file), outlines=outlines, keypoints=keypoints)
        except FAULTS as error:
            raise DataError(
                f"{path}: annotation {position}: {describe_fault(error)}",
                remedy="it needs bbox [x, y, width, height], a known category_id and a known image_id",
            ) from None
        points = 0 if row.keypoints is None else len(row.keypoints)
        if points and most not in (0, points):
            raise DataError(
                f"{path}: annotation {position} has {points} keypoints, others have {most}",
                remedy="every object of a data set has as many keypoints",
            )
        most = most or points
        rows[file].append(row)
    ids = tuple(sorted(names))
    objects = {file: as_objects(rows[file], most) for file in files.values()}
    return CocoLabels(tuple(names[i] for i in ids), objects, ids, sizes)


def known_id(known: Mapping[Any, T], identity: Any, kind: str) -> T:
    """Return what an id refers to. ValueError if nothing has it, TypeError if it is no id."""
    if identity not in known:
        raise ValueError(f"no {kind} has the id {identity!r}")
    return known[identity]


def coco_document(path: str | os.PathLike[str]) -> Any:
    """Return the JSON of a file. DataError."""
    text = read_text_file(path, DataError, GIVE, LARGEST)
    try:
        return bounded_json(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {describe_syntax(error, 'JSON')}", remedy=GIVE) from None


def coco_row(
    annotation: Mapping[str, Any], kind: int, size: tuple[int, int] | None, *, outlines: bool, keypoints: bool
) -> ObjectRow:
    """Return one annotation. size: width and height of its image, if known. KeyError, TypeError, ValueError."""
    x, y, width, height = finite_box(annotation["bbox"])
    crowd = bool(annotation.get("iscrowd", 0))
    area = annotation.get("area")
    return ObjectRow(
        kind, x, y, x + width, y + height, crowd,
        None if area is None else finite_area(area),
        coco_outline(annotation.get("segmentation"), size) if outlines else None,
        coco_keypoints(annotation.get("keypoints")) if keypoints else None,
    )  # fmt: skip


def finite_box(values: Any) -> tuple[float, float, float, float]:
    """Return x, y, width and height. ValueError, TypeError or OverflowError if it is no box."""
    x, y, width, height = map(float, values)
    if not all(map(math.isfinite, (x, y, width, height))) or width < 0 or height < 0:
        raise ValueError("the numbers of a box are finite, and width and height not negative")
    return x, y, width, height


def finite_area(value: Any) -> float:
    """Return an area in pixels. ValueError or TypeError if it is none."""
    area = float(value)
    if not math.isfinite(area) or area < 0:
        raise ValueError(f"the area is {area}")
    return area


def coco_outline(value: Any, size: tuple[int, int] | None) -> Outline | None:
    """Return polygons or run lengths; None if there are none. ValueError, TypeError, KeyError."""
    if not value:
        return None
    if isinstance(value, list):
        polygons = tuple(np.array(polygon, np.float64).reshape(-1, 2) for polygon in value)
        if not all(len(polygon) >= 3 and np.isfinite(polygon).all() for polygon in polygons):
            raise ValueError("a polygon has at least three finite points")
        return Outline(polygons)
    height, width = map(int, value["size"])
    if not 0 < width * height <= MOST_PIXELS or (size is not None and size != (width, height)):
        raise ValueError(f"the run lengths are of an image of {width}×{height}")
    counts = value["counts"]
    runs = decode_runs(counts) if isinstance(counts, str) else np.array(counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or int(runs.sum()) != width * height:
        raise ValueError(f"the run lengths do not add up to {width}×{height} pixels")
    return Outline(runs=runs)


def decode_runs(text: str) -> NDArray[np.int64]:
    """Return run lengths from COCO's compressed text: six bits a character, differences from the run before the last.

    ValueError.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("the text is no compressed run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if not 0 <= runs[-1] <= MOST_PIXELS:
            raise ValueError("a run length is out of range")
        value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths are cut short")
    return np.array(runs, np.int64)


def coco_keypoints(value: Any) -> NDArray[np.float64] | None:
    """Return keypoints [K, 3]; None if there are none. ValueError, TypeError."""
    if not value:
        return None
    points = np.array(value, np.float64).reshape(-1, 3)
    if not np.isfinite(points).all() or not np.isin(points[:, 2], (0.0, 1.0, 2.0)).all():
        raise ValueError("keypoints are x, y, and a visibility of 0, 1 or 2")
    return points

"""Labels of the YOLO family: one text file an image, one object a line, in fractions of the image.

    class x y width height                    a box, by its centre
    class x1 y1 x2 y2 x3 y3 …                 an outline (four corners of a rotated box are one, too)
    class x y width height x1 y1 v1 …         a box with keypoints: K times x, y, or x, y, visibility

An image without a file has no objects. Source: Ultralytics' formats for detection, segmentation and pose.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from quantkit.errors import DataError
from quantkit.metrics.boxes import Objects, Outline
from quantkit.metrics.labels.rows import SHOWN, ObjectRow, as_objects
from quantkit.regular_file import file_fault, read_regular_text
from quantkit.values import MOST_CLASSES
from quantkit.view import shorten_middle

LOW, HIGH = -0.01, 1.01
"""Limits of fractions, with room for rounding."""


def read_yolo(path: str | os.PathLike[str], size: tuple[int, int], keypoints: tuple[int, int] | None = None) -> Objects:
    """Read a text file for an image of `size` (width, height). A missing file means an image without objects.

    keypoints: their number, and the numbers of each (2 or 3); None if the labels have none. DataError names the line.
    """
    rows = []
    for position, line in enumerate(yolo_lines(path), 1):
        if not line.strip():
            continue
        try:
            if not line.isascii() or "_" in line:
                raise ValueError("a number has ASCII digits alone")
            kind, *values = line.split()
            rows.append(parse_yolo_row(int(kind), [float(value) for value in values], size, keypoints))
        except ValueError as error:
            fault = f"{path}, line {position}: {shorten_middle(str(error), SHOWN)}"
            raise DataError(fault, remedy=describe_line(keypoints)) from None
    return as_objects(rows, keypoints[0] if keypoints else 0)


def describe_line(keypoints: tuple[int, int] | None) -> str:
    """Return the form of a line."""
    if keypoints is None:
        return "a line is `class x y width height`, or `class x1 y1 x2 y2 x3 y3 …`, in fractions of the image"
    count, numbers = keypoints
    return (
        f"with kpt_shape {list(keypoints)} a line has {5 + count * numbers} numbers: `class x y width height`, and "
        f"{count} times {'x, y, visibility' if numbers == 3 else 'x, y'}"
    )


def yolo_lines(path: str | os.PathLike[str]) -> list[str]:
    """Return the lines of a text file; none if it is missing. DataError."""
    try:
        return read_regular_text(path).splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read: {file_fault(error)}", remedy="give a text file in YOLO's format"
        ) from None


def parse_yolo_row(
    kind: int, values: Sequence[float], size: tuple[int, int], keypoints: tuple[int, int] | None = None
) -> ObjectRow:
    """Return the object of one line, in pixels. ValueError if it is not one."""
    if not 0 <= kind < MOST_CLASSES:
        raise ValueError(f"the class is {kind}, not an integer from 0")
    if keypoints is not None:
        return pose_row(kind, values, size, keypoints)
    if not all(LOW <= value <= HIGH for value in values):
        raise ValueError("the numbers after the class must be fractions of the image")
    if len(values) == 4:
        return ObjectRow(kind, *box_in_pixels(values, size))
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"{1 + len(values)} numbers")
    points = np.array(values, np.float64).reshape(-1, 2) * size
    left, top, right, bottom = (float(value) for value in (*points.min(axis=0), *points.max(axis=0)))
    return ObjectRow(kind, left, top, right, bottom, outline=Outline((points,)))


def pose_row(kind: int, values: Sequence[float], size: tuple[int, int], keypoints: tuple[int, int]) -> ObjectRow:
    """Return an object with keypoints. Those of two numbers are visible, unless they lie outside. ValueError."""
    count, numbers = keypoints
    if len(values) != 4 + count * numbers:
        raise ValueError(f"{1 + len(values)} numbers")
    given = np.array(values[4:], np.float64).reshape(count, numbers)
    points = np.zeros((count, 3))
    points[:, :2] = given[:, :2] * size
    if numbers == 3:
        points[:, 2] = given[:, 2]
    else:
        points[:, 2] = np.where((given < 0).any(axis=1), 0.0, 2.0)
    labelled = points[:, 2] > 0
    fractions = [*values[:4], *given[labelled, :2].ravel()]
    if not np.isin(points[:, 2], (0.0, 1.0, 2.0)).all() or not all(LOW <= value <= HIGH for value in fractions):
        raise ValueError("places must be fractions of the image, and visibilities 0, 1 or 2")
    points[~labelled] = 0.0
    return ObjectRow(kind, *box_in_pixels(values[:4], size), keypoints=points)


def box_in_pixels(values: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return x1, y1, x2, y2 in pixels, from the centre and the size as fractions."""
    (x, y, wide, tall), (width, height) = values, size
    return (x - wide / 2) * width, (y - tall / 2) * height, (x + wide / 2) * width, (y + tall / 2) * height

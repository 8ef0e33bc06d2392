"""Labels in Pascal VOC's XML: one file an image, an `object` for each box, with the name of its class.

Coordinates count pixels from 1 and include the last one: a box of xmin 1 and xmax W is as wide as the image. Objects
that are marked as difficult count neither as correct nor as wrong.
Source: Everingham et al., The PASCAL VOC Challenge, IJCV 88 (2010), and its development kit.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from quantkit.document import read_text_file
from quantkit.errors import DataError
from quantkit.metrics.labels.rows import FAULTS, describe_fault

LARGEST = 16 << 20
"""Bytes of an image's labels."""
DECLARATION = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
REMEDY = "an object needs name, and bndbox with xmin, ymin, xmax, ymax in pixels"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Pascal VOC's own classes, in the order in which networks number them."""


class NamedBox(NamedTuple):
    """One object: the name of its class, its box x1, y1, x2, y2 in pixels, and whether it is marked as difficult."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def read_voc(path: str | os.PathLike[str]) -> list[NamedBox]:
    """Return the objects of an image's XML. DataError names the file and the object."""
    text = read_text_file(path, DataError, "give XML in Pascal VOC's format", LARGEST)
    if DECLARATION.search(text):  # entities can grow without end
        raise DataError(f"{path}: it declares a document type or entities", remedy="save it as plain XML")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as XML: {error}", remedy="save it in Pascal VOC's format") from None
    if root.tag != "annotation":
        raise DataError(f"{path}: not Pascal VOC labels: it is <{root.tag[:40]}>, not <annotation>", remedy=REMEDY)
    return list(named_boxes(root.findall("object"), path))


def named_boxes(objects: Sequence[ElementTree.Element], path: str | os.PathLike[str]) -> Iterator[NamedBox]:
    """Yield the objects of an image. DataError names the one that is damaged."""
    for number, found in enumerate(objects):
        try:
            left, top, right, bottom = (
                float(found.findtext(f"bndbox/{side}", "").strip()) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            if not all(map(math.isfinite, (left, top, right, bottom))) or right < left or bottom < top:
                raise ValueError("a box is finite, and its maxima are not below its minima")
            name, difficult = found.findtext("name", "").strip(), found.findtext("difficult", "0").strip()
            if not name:
                raise ValueError("no name")
        except FAULTS as error:
            raise DataError(f"{path}: object {number}: {describe_fault(error)}", remedy=REMEDY) from None
        yield NamedBox(name, (left - 1.0, top - 1.0, right, bottom), difficult not in ("", "0"))

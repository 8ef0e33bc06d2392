"""The images of one split of a data set: their folder and names, and what the data set declares about labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from quantkit.data.image_folder import ImageFolder, list_images
from quantkit.data.text_rows import text_lines
from quantkit.document import read_text_file
from quantkit.errors import DataError
from quantkit.image_file import SUFFIXES
from quantkit.paths import exists, is_file, is_folder
from quantkit.view import quoted

LARGEST_LIST = 1 << 30
"""Bytes of a list of images: tens of millions of paths."""


class Split(Enum):
    """The parts of a data set: one to calibrate with, one to evaluate on."""

    TRAIN = "train"
    VAL = "val"


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images, by their names relative to a folder.

    source: what they were found in, for messages. split: None if the data set is not divided. classes: names by index,
    and keypoints: their number and the numbers of each, as the data set declares them. labels: where it declares its
    labels; None: beside the images.
    """

    folder: ImageFolder
    source: str
    split: Split | None = None
    classes: tuple[str, ...] = ()
    keypoints: tuple[int, int] | None = None
    labels: Path | None = None
    notes: tuple[str, ...] = ()

    def is_same_as(self, other: ImageSet) -> bool:
        """Return True if another set holds the same images."""
        ours, theirs = ((found.folder.root.absolute(), found.folder.names) for found in (self, other))
        return ours == theirs


def images_at(places: Sequence[Path], source: str) -> ImageFolder:
    """Return the images of several folders, lists of images and image files as one folder. DataError.

    A single folder is the root of the names; else the folder around all images is.
    """
    if len(places) == 1 and is_folder(places[0]):
        found = list_images(places[0])
        if not found.names:
            raise no_images(places[0])
        return found
    paths = {os.path.abspath(path) for place in places for path in paths_at(place, source)}
    if not paths:
        raise no_images(places[0] if places else Path(source))
    root = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))
    return ImageFolder(root, tuple(sorted(Path(path).relative_to(root).as_posix() for path in paths)))


def paths_at(place: Path, source: str) -> Iterable[Path]:
    """Return the paths of the images in a folder or a list, or that of one image. DataError."""
    if is_folder(place):
        found = list_images(place)
        return [found.root / name for name in found.names]
    if not exists(place):
        raise DataError(f"{source}: {place} does not exist", remedy="correct the path")
    if place.suffix.lower() == ".txt":
        return listed_images(place)
    if place.suffix.lower() in SUFFIXES:
        return [place]
    raise DataError(
        f"{source}: {place} is neither a folder, nor a .txt list of images, nor an image",
        remedy=f"images end in {', '.join(sorted(SUFFIXES))}",
    )


def listed_images(path: Path) -> list[Path]:
    """Return the images of a list, one path a line, from the list's folder or from the working one. DataError."""
    lines = text_lines(read_text_file(path, DataError, "give a list of image paths, one a line", LARGEST_LIST))
    images = []
    for number, line in enumerate((line.strip() for line in lines), 1):
        if not line:
            continue
        forms = dict.fromkeys((line, line.replace("\\", "/")))  # of Windows
        # An absolute path stays as it is.
        places = [base / form for form in forms for base in (path.parent, Path())]
        image = next((place for place in places if is_file(place)), Path(line))
        if image.suffix.lower() not in SUFFIXES or not is_file(image):
            raise DataError(
                f"{path}, line {number}: {quoted(line)} is not the path of an image",
                remedy="one path a line, absolute or from the folder of the list",
            )
        images.append(image)
    return images


def count_images(folder: ImageFolder) -> str:
    """Return `1 image`, `1,000 images`."""
    count = len(folder.names)
    return f"{count:,} image{'' if count == 1 else 's'}"


def no_images(path: Path) -> DataError:
    """Return the error for a place without images."""
    remedy = f"images end in {', '.join(sorted(SUFFIXES))}; folders are searched recursively"
    return DataError(f"no images in {path}", remedy=remedy)

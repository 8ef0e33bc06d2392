"""Images that a caller in Python holds as a list: paths or PIL images, alone or as (image, label) pairs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.data.data_file import DataFile, file_at
from quantkit.data.declared_labels import DeclaredLabels
from quantkit.data.image_folder import ImageFolder
from quantkit.data.image_set import ImageSet
from quantkit.data.pictures.image_objects import ImageObjects
from quantkit.data.pictures.store import PictureStore
from quantkit.errors import DataError, UsageError
from quantkit.image_file import SUFFIXES
from quantkit.locations import is_url
from quantkit.paths import expand_home
from quantkit.regular_file import FileStamp
from quantkit.values import Array

if TYPE_CHECKING:
    from PIL import Image

SOURCE = "a list of images"


@dataclass(frozen=True, slots=True, eq=False)
class ImageList:
    """Images in the order of the caller. images: all paths and URLs, or all PIL images. labels: one for each, or None.

    names: paths relative to the folder around all of them; `image 17` for PIL images; all as given if one is a URL.
    """

    images: tuple[Any, ...]
    names: tuple[str, ...]
    root: Path | None
    """The folder around all files; None for PIL images and URLs."""
    labels: Mapping[str, Any] | None = None

    def image_set(self) -> ImageSet | None:
        """Return the files as the images of a data set; None for PIL images and URLs."""
        return None if self.root is None else ImageSet(ImageFolder(self.root, self.names), SOURCE)

    def store(self) -> PictureStore:
        """Return the images as a store of pictures. DataError where a path leads to nothing."""
        if is_held(self.images[0]):
            return HeldImages(self.images, self.names)
        places = [DataFile(n, n, None) if is_url(n) else file_at(n, n) for n in self.names]
        return ImageObjects(places, SOURCE)

    def rows(self, names: Sequence[str]) -> Array:
        """Return the labels of these images, a row for each. DataError where they have different shapes."""
        assert self.labels is not None
        try:
            return np.array([self.labels[name] for name in names])
        except ValueError as error:
            raise DataError(f"labels of {SOURCE}: {error}", remedy="give labels of one shape") from None

    def with_labels(self, labels: Iterable[Any]) -> ImageList:
        """Return the same images with these labels. UsageError where their numbers differ, or there are two sets."""
        given = list(labels)
        if self.labels is not None:
            raise UsageError("the images have labels already, as pairs", remedy="omit --labels, or give images alone")
        if len(given) != len(self.names):
            raise UsageError(f"{len(given)} labels for {len(self.names)} images", remedy="give one for each image")
        return replace(self, labels=dict(zip(self.names, given, strict=True)))


def given_data(data: Any, labels: Any = None) -> Any:
    """Return the data of a verb: a list of images as an `ImageList`, anything else as it is.

    labels: those of the caller; a path is left to others. UsageError for a list of different things, an image that is
    there twice, and labels of something else than a list of images.
    """
    if isinstance(data, (str, os.PathLike)) and os.fspath(data)[:1] == "~":
        data = expand_home(Path(data))
    listed = isinstance(data, Sequence) and not isinstance(data, (str, bytes)) and len(data) > 0
    if listed and is_image(image_of(data[0])):
        data = image_list(data)
    if labels is None or isinstance(labels, (str, os.PathLike)):
        return data
    if not isinstance(data, ImageList) or not isinstance(labels, Iterable):
        raise UsageError(
            f"labels is of type {type(labels).__name__}, and the data are no list of images",
            remedy="give the path of a file of labels; with a list of images, one label for each",
        )
    return data.with_labels(labels)


def image_list(items: Sequence[Any]) -> ImageList:
    """Return a list of images, or of (image, label) pairs, of which the first is one. UsageError."""
    paired = isinstance(items[0], tuple)
    kind = type(image_of(items[0])) if is_held(image_of(items[0])) else None
    for number, item in enumerate(items):
        fits = isinstance(item, tuple) == paired and is_image(image_of(item))
        if not fits or is_held(image_of(item)) != (kind is not None):
            raise UsageError(
                f"data[{number}] is {describe_item(item)}, but data[0] is {describe_item(items[0])}",
                remedy="give a list of paths or of PIL images, all alone or all as (image, label) pairs",
            )
    images = tuple(image_of(item) for item in items)
    if kind is not None:
        names, root = tuple(f"image {number}" for number in range(len(images))), None
    elif any(map(is_url, images)):
        names, root = tuple(map(os.fspath, images)), None
        refuse_repeated(names)
    else:
        names, root = names_of_paths([Path(image) for image in images])
    labels = {name: item[1] for name, item in zip(names, items, strict=True)} if paired else None
    return ImageList(images, names, root, labels)


def names_of_paths(paths: Sequence[Path]) -> tuple[tuple[str, ...], Path]:
    """Return paths relative to the folder around all of them, and that folder. UsageError."""
    absolute = [os.path.abspath(path) for path in paths]
    for number, path in enumerate(paths):
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"data[{number}] is {str(path)!r}, which is no image",
                remedy=f"images end in {', '.join(sorted(SUFFIXES))}",
            )
    refuse_repeated(absolute)
    root = Path(os.path.commonpath([os.path.dirname(path) for path in absolute]))
    return tuple(Path(path).relative_to(root).as_posix() for path in absolute), root


def refuse_repeated(places: Sequence[str]) -> None:
    """Raise UsageError where a path or a URL is there twice."""
    seen: set[str] = set()
    for place in places:
        if place in seen:
            raise UsageError(f"{place} is in the list twice", remedy="give every image once")
        seen.add(place)


def image_of(item: Any) -> Any:
    """Return the image of an (image, label) pair, else the item itself."""
    return item[0] if isinstance(item, tuple) and len(item) == 2 else item


def is_held(value: Any) -> bool:
    """Return True for a PIL image; does not load Pillow, without which there is none."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def is_image(value: Any) -> bool:
    """Return True for a path or a PIL image."""
    return isinstance(value, (str, os.PathLike)) or is_held(value)


def describe_item(item: Any) -> str:
    """Return what an item of the list is, in words."""
    what = image_of(item)
    text = "a PIL image" if is_held(what) else "a path" if is_image(what) else f"of type {type(what).__name__}"
    return f"{text} with a label" if isinstance(item, tuple) and len(item) == 2 else text


class HeldImages:
    """PIL images as a store of pictures, which are decoded as their files would be: turned by EXIF, converted."""

    notes: tuple[str, ...] = ()

    def __init__(self, images: Sequence[Image.Image], names: Sequence[str]) -> None:
        self.count = len(images)
        self._images, self._names = images, names

    def plan(self, indices: Sequence[int]) -> None:
        """Do nothing: the images are in memory."""

    def name(self, index: int) -> str:
        """Return `image 17`."""
        return self._names[index]

    def picture(self, index: int) -> Image.Image:
        """Return an image."""
        return self._images[index]

    def version(self, index: int) -> None:
        """Return None: the pixels are looked at."""

    def stamps(self, indices: Sequence[int]) -> tuple[FileStamp, ...]:  # noqa: ARG002
        """Return no files."""
        return ()

    def labels(self, indices: Sequence[int], classes: int | None) -> DeclaredLabels | None:  # noqa: ARG002
        """Return None: the caller's labels are in pairs."""
        return None

    def close(self) -> None:
        """Do nothing: the images are the caller's."""

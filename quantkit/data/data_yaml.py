"""Ultralytics' `data.yaml`: where the images of each split are, the names of the classes, and the shape of keypoints.

    path: ../shapes            the data set's folder; default: that of the file
    train: images/train        a folder, a .txt list of images, or a list of those
    val: images/val
    names: {0: cat, 1: dog}    or a list
    kpt_shape: [17, 3]         for networks with keypoints

Labels lie where the YOLO family has them: `labels` in place of `images`. Other keys (`nc`, `flip_idx`, `download`, …)
are not used, except that `nc` has to fit `names`. Nothing is downloaded.
Source: Ultralytics' data set format, and its `check_det_dataset`, from whose behaviour this was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict

from quantkit.data.image_set import ImageSet, Split, count_images, images_at
from quantkit.document import DocumentType
from quantkit.errors import DataError
from quantkit.paths import exists, is_folder
from quantkit.values import MOST_CLASSES

SUFFIXES = frozenset({".yaml", ".yml"})
Name: TypeAlias = "str | int | float | bool"


class DataYaml(BaseModel):
    """The keys of a data.yaml that are used."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    path: str | None = None
    train: str | list[str] | None = None
    val: str | list[str] | None = None
    validation: str | list[str] | None = None
    nc: int | None = None
    names: list[Name] | dict[str, Name] | None = None
    kpt_shape: list[int] | None = None


DATA_YAML = DocumentType[DataYaml](
    DataYaml,
    "a data.yaml",
    DataError,
    "it needs train and val (folders of images), and names of classes",
    form="YAML",
)


def read_data_yaml(path: Path, split: Split) -> ImageSet:
    """Return the images of a split, with the names of the classes. DataError."""
    found = DATA_YAML.read(path)
    places = split_places(found, split)
    if not places:
        others = [s.value for s in Split if split_places(found, s)]
        raise DataError(
            f"{path} names no images to {'evaluate on' if split is Split.VAL else 'calibrate with'} (no {split.value})",
            remedy=f"add `{split.value}: FOLDER`, or give the folder itself instead of {path.name}"
            + (f"; it names {' and '.join(others)}" if others else ""),
        )
    source = f"{path.name} ({split.value})"
    root = dataset_root(path, found.path)
    folder = images_at([existing_place(path, root, place, split) for place in places], source)
    keypoints = declared_keypoints(path, found.kpt_shape)
    note = f"{split.value} of {path.name}: {count_images(folder)}"
    return ImageSet(folder, source, split, declared_names(path, found), keypoints, notes=(note,))


def split_places(found: DataYaml, split: Split) -> Sequence[str]:
    """Return the places of a split's images; empty if there are none."""
    given = found.train if split is Split.TRAIN else found.val or found.validation
    return [given] if isinstance(given, str) and given else given or ()


def dataset_root(path: Path, given: str | None) -> Path:
    """Return the data set's folder. DataError where `path` names one that is not there."""
    if not given:
        return path.parent
    candidates = [path.parent / given, Path(given), path.parent.parent / "datasets" / given]
    for candidate in candidates:
        if is_folder(candidate):
            return candidate
    if given.strip("./") in ("", path.parent.name):
        return path.parent
    looked = ", ".join(dict.fromkeys(map(str, candidates)))
    raise DataError(
        f"{path}: path is {given}, and there is no such folder (looked for {looked})",
        remedy=f"correct `path` in {path.name}; leave it out if the images lie beside {path.name}",
    )


def existing_place(path: Path, root: Path, place: str, split: Split) -> Path:
    """Return a place of images: from the data set's folder, or from that of the file. DataError where it is not there.

    Roboflow writes `../train/images` for a folder beside the file, and a file of Windows may have backslashes.
    """
    forms = dict.fromkeys((place, place.replace("\\", "/")))
    shorter = [form[3:] for form in forms if form.startswith("../")]
    candidates = [base / name for name in (*forms, *shorter) for base in dict.fromkeys((root, path.parent))]
    found = next((candidate for candidate in candidates if exists(candidate)), None)
    if found is None:
        raise DataError(
            f"{path}: {split.value} is {place}, which is not there (looked for "
            f"{', '.join(dict.fromkeys(map(str, candidates)))})",
            remedy=f"correct `{split.value}` or `path` in {path.name}; quantkit downloads nothing",
        )
    return found


def declared_names(path: Path, found: DataYaml) -> tuple[str, ...]:
    """Return the names of the classes by index; empty if there are none. DataError."""
    names = found.names
    if isinstance(names, dict):
        keys = [str(index) for index in range(len(names))]
        if set(keys) != set(names):
            wrong = next(iter(names.keys() - set(keys)))
            raise DataError(
                f"{path}: names have the key {wrong!r}, but the {len(names)} classes are 0 … {len(names) - 1}",
                remedy="number the classes from 0",
            )
        names = [names[key] for key in keys]
    if names is not None and (len(names) > MOST_CLASSES or found.nc not in (None, len(names))):
        raise DataError(f"{path}: nc is {found.nc}, but there are {len(names)} names", remedy="correct nc or names")
    return tuple(map(str, names or ()))


def declared_keypoints(path: Path, given: list[int] | None) -> tuple[int, int] | None:
    """Return the number of keypoints and of the numbers of each. DataError."""
    if given is None:
        return None
    if len(given) != 2 or not 0 < given[0] <= MOST_CLASSES or given[1] not in (2, 3):
        raise DataError(
            f"{path}: kpt_shape is {given}", remedy="it is [number of keypoints, 2], or 3 with their visibility"
        )
    return given[0], given[1]

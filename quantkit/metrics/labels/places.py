"""Places of labels: where they lie if they are not given, and what lies nearby if they are not where they should be.

text files    `labels` in place of `images` in the path (images/val/a.jpg: labels/val/a.txt), or beside the images
COCO's JSON   `annotations/instances_val.json` for a folder `val`, and as Roboflow writes it
VOC's XML     `Annotations` in place of `JPEGImages`, or beside the images
class maps    `masks` in place of `images`, `SegmentationClass` in place of `JPEGImages`
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from quantkit.metrics.task import Task
from quantkit.paths import is_file, is_folder, real_path

Scheme = Callable[[str], Path]
"""Name of an image → path of its labels."""


class LabelForm(Enum):
    """The forms of labels, with the suffix of their files."""

    TEXT = ".txt"
    XML = ".xml"
    MAP = ".png"
    JSON = ".json"

    @property
    def noun(self) -> str:
        """The name of its files."""
        return {".txt": "text file", ".xml": "XML file", ".png": "class map", ".json": "JSON file"}[self.value]


FORMS: Mapping[Task, tuple[LabelForm, ...]] = {
    Task.DETECT: (LabelForm.TEXT, LabelForm.JSON, LabelForm.XML),
    Task.SEGMENT: (LabelForm.TEXT, LabelForm.JSON),
    Task.POSE: (LabelForm.TEXT, LabelForm.JSON),
    Task.OBB: (LabelForm.TEXT,),
    Task.SEMANTIC: (LabelForm.MAP,),
}
"""The forms that labels of a task have, in the order in which they are looked for."""
FOLDERS: Mapping[LabelForm, tuple[tuple[str, str], ...]] = {
    LabelForm.TEXT: (("images", "labels"), ("JPEGImages", "labels")),
    LabelForm.XML: (("JPEGImages", "Annotations"), ("images", "annotations"), ("images", "Annotations")),
    LabelForm.MAP: (("images", "masks"), ("JPEGImages", "SegmentationClass"), ("images", "annotations")),
}
"""Folder of images → folder of labels in its place."""


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """Labels that were found. folder: of the first file. files: by image, those that exist; COCO's JSON for all."""

    form: LabelForm
    folder: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    json: Path | None = None

    @property
    def every_file(self) -> tuple[Path, ...]:
        """All files that hold the labels."""
        return tuple(self.files.values()) if self.json is None else (self.json,)

    @property
    def text(self) -> str:
        """A description, such as `128 text files in labels/val`."""
        if self.json is not None:
            return self.json.name
        count = len(self.files)
        every = os.path.commonpath([file.parent for file in self.files.values()] or [self.folder])
        folder = "/".join(Path(every).parts[-2:])
        return f"{count:,} {self.form.noun}{'' if count == 1 else 's'} in {folder}"


def find_labels(root: Path, names: Sequence[str], task: Task) -> LabelPlace | None:
    """Return the labels beside images; None if there are none. names: of the images, relative to `root`."""
    for form in FORMS.get(task, ()):
        if form is LabelForm.JSON:
            found = next((path for path in json_places(root, task) if is_file(path)), None)
            if found is not None:
                return LabelPlace(form, found.parent, {}, found)
            continue
        for scheme in schemes(root, form):
            if place := place_by(scheme, names, form):
                return place
    return None


def labels_in(folder: Path, names: Sequence[str], task: Task) -> LabelPlace | None:
    """Return the labels of images in a given folder; None if there are none."""
    found = (place_by(folder_scheme(folder, form), names, form) for form in FORMS[task] if form is not LabelForm.JSON)
    return next((place for place in found if place), None)


def place_by(scheme: Scheme, names: Sequence[str], form: LabelForm) -> LabelPlace | None:
    """Return the labels of a scheme; None if no image has any."""
    files = {name: path for name in names if is_file(path := scheme(name))}
    return LabelPlace(form, next(iter(files.values())).parent, files) if files else None


def schemes(root: Path, form: LabelForm) -> Iterator[Scheme]:
    """Yield the places where labels of images below `root` may be, the usual one first."""
    for base in dict.fromkeys((root, Path(os.path.abspath(root)), real_path(root))):
        for images, labels in FOLDERS[form]:
            if images in base.parts:
                yield folder_scheme(replace_last(base, images, labels), form)
            elif is_folder(base / images):  # images/train and images/val together
                yield nested_scheme(base, images, labels, form)
    if form is not LabelForm.MAP:
        yield folder_scheme(root, form)


def folder_scheme(folder: Path, form: LabelForm) -> Scheme:
    """Return the scheme of files in a folder, named as the images."""
    return lambda name: (folder / name).with_suffix(form.value)


def nested_scheme(base: Path, images: str, labels: str, form: LabelForm) -> Scheme:
    """Return the scheme of names that begin above the folder of images."""
    return lambda name: replace_last(base / name, images, labels).with_suffix(form.value)


def replace_last(path: Path, old: str, new: str) -> Path:
    """Replace the last component of a path that is called `old`."""
    parts = list(path.parts)
    if old in parts:
        parts[len(parts) - 1 - parts[::-1].index(old)] = new
    return Path(*parts)


def json_places(root: Path, task: Task) -> Iterator[Path]:
    """Yield the paths where COCO's JSON for the images of a folder may be."""
    base = Path(os.path.abspath(root))
    kinds = ("person_keypoints", "instances") if task is Task.POSE else ("instances",)
    yield base / "_annotations.coco.json"
    for above in (base.parent, base.parent.parent):
        for kind in kinds:
            yield above / "annotations" / f"{kind}_{base.name}.json"
        yield above / "annotations" / f"{base.name}.json"
    yield base / "annotations.json"


def nearby_labels(path: Path, root: Path, names: Sequence[str], task: Task) -> LabelPlace | None:
    """Return labels near a folder that has none: in the folders inside and around it, or beside the images."""
    inner = [path / part for part in Path(os.path.abspath(root)).parts[-2:]]
    for folder in (*inner, path / "labels", path.parent / "labels", path.parent, *inner_folders(path)):
        if is_folder(folder) and (found := labels_in(folder, [names[0], names[-1]], task)):
            return labels_in(folder, names, task) or found
    return find_labels(root, names, task)


def inner_folders(path: Path) -> Iterator[Path]:
    """Yield the folders in a folder; none if it cannot be read."""
    try:
        yield from (path / name for name in sorted(os.listdir(path)) if is_folder(path / name))
    except OSError:
        return

"""Finding images, and where their labels are declared, in the layouts that data sets have.

--data                                   images to calibrate with          images to evaluate on
data.yaml, or a folder with one          its `train`                       its `val`
folder with train and val                train, or images/train            val (valid, validation, test)
folder with JPEGImages and Annotations   ImageSets/Main/train.txt          ImageSets/Main/val.txt
COCO's JSON                              all that it lists                 all that it lists
.txt                                     the paths in it                   the paths in it
any other folder, or an image            all below it                      all below it
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from quantkit.data.data_yaml import SUFFIXES as YAML_SUFFIXES
from quantkit.data.data_yaml import read_data_yaml
from quantkit.data.image_folder import ImageFolder, list_images, subfolders
from quantkit.data.image_set import LARGEST_LIST, ImageSet, Split, count_images, images_at
from quantkit.data.text_rows import text_lines
from quantkit.document import bounded_json, describe_syntax, read_text_file
from quantkit.errors import DataError
from quantkit.image_file import SUFFIXES
from quantkit.paths import is_file, is_folder

LISTS = YAML_SUFFIXES | {".json", ".txt"}
"""Suffixes of files that describe a data set."""
DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml")
TRAIN_FOLDER = re.compile(r"train(ing)?([0-9]{4})?", re.IGNORECASE)
VAL_FOLDERS = tuple(
    re.compile(rf"{name}([0-9]{{4}})?", re.IGNORECASE) for name in ("val", "valid", "validation", "test")
)
LABEL_FOLDERS = frozenset({"labels", "masks", "annotations"})
VOC_SPLITS = "ImageSets/Main/{}.txt"


def find_image_set(path: Path, split: Split) -> ImageSet | None:
    """Return the images at a path; None for a file of another kind. The folder may hold none. DataError."""
    suffix = path.suffix.lower()
    if is_folder(path):
        return set_in_folder(path, split)
    if suffix in YAML_SUFFIXES:
        return read_data_yaml(path, split)
    if suffix == ".json":
        return set_of_coco(path)
    if suffix == ".txt":
        return ImageSet(images_at([path], path.name), path.name)
    if suffix in SUFFIXES:
        return ImageSet(ImageFolder(path.parent, (path.name,)), path.name)
    return None


def set_in_folder(path: Path, split: Split) -> ImageSet:
    """Return the images of a folder, of one split if it is divided. DataError."""
    for name in DESCRIPTIONS:
        if is_file(path / name):
            return read_data_yaml(path / name, split)
    if is_folder(path / "JPEGImages") and is_folder(path / "Annotations"):
        return set_of_voc(path, split)
    folders = split_folders(path) or split_folders(path / "images")
    if folders is None:
        return ImageSet(list_images(path), path.name)
    folder = folders[split]
    images = folder / "images" if is_folder(folder / "images") else folder
    found = list_images(images)
    shown = images.relative_to(path).as_posix()
    note = f"{split.value} of {path.name}: {count_images(found)} in {shown}"
    return ImageSet(found, f"{path.name}/{shown}", split, notes=(note,))


def split_folders(path: Path) -> dict[Split, Path] | None:
    """Return the folders of the splits if a folder is divided into training and evaluation data, and nothing else."""
    if not is_folder(path):
        return None
    names = [name for name in subfolders(path) if name.lower() not in LABEL_FOLDERS]
    train = next((name for name in names if TRAIN_FOLDER.fullmatch(name)), None)
    val = next((name for pattern in VAL_FOLDERS for name in names if pattern.fullmatch(name)), None)
    every = (TRAIN_FOLDER, *VAL_FOLDERS)
    if train is None or val is None or not all(any(p.fullmatch(name) for p in every) for name in names):
        return None
    return {Split.TRAIN: path / train, Split.VAL: path / val}


def set_of_voc(path: Path, split: Split) -> ImageSet:
    """Return the images of a data set in Pascal VOC's layout: those of its split lists, or all if it has none."""
    root, listed = path / "JPEGImages", path / VOC_SPLITS.format(split.value)
    every = list_images(root)
    if not any(is_file(path / VOC_SPLITS.format(known.value)) for known in Split):
        return ImageSet(every, f"{path.name}/JPEGImages", labels=path / "Annotations")
    remedy = f"write the names of its images into {listed}, or give a folder of images"
    lines = text_lines(read_text_file(listed, DataError, remedy, LARGEST_LIST))
    wanted = [line.split()[0] for line in lines if line.strip()]
    by_stem = {name.rpartition(".")[0]: name for name in every.names}
    if missing := [name for name in wanted if name not in by_stem]:
        raise DataError(
            f"{listed} names {len(missing)} of {len(wanted)} images that are not in {root}, such as {missing[0]}",
            remedy="add the images, or remove their names from the list",
        )
    names = tuple(sorted({by_stem[name] for name in wanted}))
    note = f"{split.value} of {path.name}: {len(names):,} images of {VOC_SPLITS.format(split.value)}"
    return ImageSet(
        ImageFolder(root, names), f"{path.name} ({split.value})", split, (), None, path / "Annotations", (note,)
    )


def set_of_coco(path: Path) -> ImageSet:
    """Return the images that COCO's JSON lists. DataError where some are not there."""
    text = read_text_file(path, DataError, "give COCO's instances file", LARGEST_LIST)
    try:
        document = bounded_json(text)
        names = sorted({str(image["file_name"]) for image in document["images"]})
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{path} lists no images, as COCO's instances do", remedy="it needs images (id, file_name)"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read as JSON: {describe_syntax(error, 'JSON')}", remedy="give COCO's instances file"
        ) from None
    if not names:
        raise DataError(f"{path} lists no images", remedy="give COCO's instances file")
    roots = tuple(dict.fromkeys(coco_roots(path)))
    root = next((root for root in roots if is_file(root / names[0])), None)
    if root is None:
        looked = ", ".join(map(str, roots[:4]))
        raise DataError(
            f"{path} lists {names[0]}, which is not there (looked in {looked})",
            remedy=f"give the images with --data FOLDER, and --labels {path}",
        )
    if missing := [name for name in names if not is_file(root / name)]:
        raise DataError(
            f"{path} lists {len(missing)} of {len(names)} images that are not in {root}, such as {missing[0]}",
            remedy=f"--data {root} --labels {path} takes the images that are there",
        )
    return ImageSet(ImageFolder(root, tuple(names)), path.name, labels=path)


def coco_roots(path: Path) -> Iterator[Path]:
    """Yield the folders where the images of COCO's JSON may be: beside it, or in COCO's own layout."""
    around = path.parent.parent
    yield path.parent
    for name in (path.stem.rpartition("_")[2], path.stem):
        yield from (base / name for base in (path.parent, around, around / "images", path.parent / "images"))
    yield from (path.parent / "images", around / "images", around)

"""Labels: the true class of every sample of a data set, for an evaluation.

    source                                   label of a sample
    class folders                            the folder of the first level below the data folder
    a table (.csv, .tsv, .txt)               one `file,label` per line; the file by path, name, or name without suffix
    a list of images in Python               (image, label) pairs
    arrays (.npz, .npy)                      the row of the array `y`, `label`, `labels`, `target` or `targets`
    batches, Python iterables                an array of such a name in the batch, or (inputs, labels)

Labels of classes are class indices [N] (int64); other arrays [N, …] are passed unchanged, for metrics that take them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from quantkit.data.array_files import ArrayRows, open_arrays
from quantkit.data.arrays import LABELS
from quantkit.data.classes import CLASSES_FILE, ClassNames, class_indices, first_few
from quantkit.data.feed import Feed, Portion
from quantkit.data.image_folder import ImageFolder
from quantkit.data.image_list import SOURCE, ImageList
from quantkit.data.text_rows import INDEX, csv_rows, shown_cells, text_lines
from quantkit.document import read_text_file
from quantkit.errors import DataError
from quantkit.paths import real_path
from quantkit.values import Array

FILES = frozenset({"file", "filename", "file_name", "image", "img", "path", "name", "id", "image_id", "sample"})
"""Headings of a column of files."""
CLASSES = LABELS | {"class", "class_id", "class_name", "category"}
"""Headings of a column of labels."""
LARGEST = 1 << 30
"""Bytes of a table of labels: tens of millions of files."""
ROW = re.compile(r"\[(\d+)\]$")
TABLES = frozenset({".csv", ".tsv", ".txt"})


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a data set. names: class names by index; empty if they are unknown.

    of: returns the labels of a portion, a row for each sample. DataError names a sample without a label, or with an
    invalid one.
    """

    source: str
    of: Callable[[Portion], Array | Sequence[Any]]
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """The source of labels. path: a file of labels; None: class folders, or arrays in the data. classes: the content of
    the file of class names."""

    path: Path | None = None
    classes: ClassNames | None = None


@dataclass(frozen=True, slots=True)
class LabelTask:
    """The use of labels. count: classes of the network; None if it has none. indices: True if the metric takes class
    indices."""

    count: int | None
    indices: bool = True


def open_labels(source: Any, feed: Feed, options: LabelOptions, task: LabelTask) -> Labels | None:
    """Return the labels of the samples of `feed`, which was opened from `source`; None if there are none. DataError."""
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    given = options.path
    if given is not None:
        if given.suffix.lower() in (".npy", ".npz"):
            return labels_from_array(given, feed, options, task)
        return labels_from_table(given, feed, options, task)
    if isinstance(source, ImageList) and source.labels is not None:
        names, listed = given_class_names(options, task), SOURCE
        return Labels(listed, lambda p: check_labels(source.rows(p.names), p.names, listed, options, task), names)
    if feed.images is not None:
        return labels_from_folders(feed.images.folder, options, task)
    if feed.kind == "array" and path is not None and path.suffix == ".npz" and label_arrays(open_arrays(path)):
        return labels_from_array(path, feed, options, task)
    if feed.kind in ("batches", "stream"):
        return Labels(
            "the batches", lambda portion: batch_labels(portion, options, task), given_class_names(options, task)
        )
    return None


def given_class_names(options: LabelOptions, task: LabelTask) -> tuple[str, ...]:
    """Return the given class names by index. DataError where there are more than the network has classes."""
    if options.classes is None:
        return ()
    names = options.classes.shown()
    if task.count is not None and len(names) > task.count:
        raise DataError(
            f"{options.classes.source} names {len(names)} classes, but the network has {task.count}",
            remedy="give the class names of this network to --classes",
        )
    return names


def labels_from_folders(folder: ImageFolder, options: LabelOptions, task: LabelTask) -> Labels | None:
    """Return class folders as labels; None if there is an image in the data folder itself. DataError."""
    root = folder.root
    if not folder.classes:
        if options.classes is not None:
            raise DataError(
                f"{root} has no class folders for the names in {options.classes.source}",
                remedy="sort the images into one folder for each class, or give --labels FILE",
            )
        return None
    index = class_indices(folder.classes, options.classes, task.count, str(root))
    names = class_names(index, options, task)
    source = f"{len(folder.classes)} class folders of {real_path(root).name}"

    def of(portion: Portion) -> Array:
        return np.array([index[name.split("/")[0]] for name in portion.names], np.int64)

    return Labels(source, of, names, label_notes(index, names, task))


def class_names(index: Mapping[str, int], options: LabelOptions, task: LabelTask) -> tuple[str, ...]:
    """Return a name for every class: from the file of names, else from the data set."""
    if options.classes is not None:
        return given_class_names(options, task)
    by_index = {number: name for name, number in index.items()}
    count = task.count or max(by_index) + 1
    return tuple(by_index.get(i, str(i)) for i in range(count))


def label_notes(index: Mapping[str, int], names: Sequence[str], task: LabelTask) -> tuple[str, ...]:
    """Return notes about classes that the data set or the file of names lacks."""
    absent = [name for i, name in enumerate(names) if i not in set(index.values())]
    notes = []
    if names and task.count is not None and len(names) < task.count:
        notes.append(f"only the first {len(names)} of the network's {task.count} classes have names")
    if absent:
        notes.append(f"{len(absent)} of {len(names)} classes have no samples: {first_few(absent)}")
    return tuple(notes)


def labels_from_table(path: Path, feed: Feed, options: LabelOptions, task: LabelTask) -> Labels:
    """Return labels from a table. DataError where a sample has none, a label is unknown, or a file has two."""
    by_file = read_label_table(path)
    if feed.names is None:
        raise DataError(
            f"{path} names samples, but those of {feed.kind} have no names",
            remedy="put the labels into the batches: (inputs, labels), or an array `labels`",
        )
    by_sample = match_samples(by_file, feed.names, path)
    values = set(by_file.values())
    numbers = all(INDEX.fullmatch(value) for value in values)
    if not task.indices and not numbers and all(is_number(value) for value in values):
        return Labels(path.name, lambda p: np.array([float(by_sample[name]) for name in p.names]))
    names: tuple[str, ...] = ()
    if options.classes is None:
        index = indices_by_number(by_sample, path)
    elif numbers and not values <= options.classes.index.keys():
        index, names = {value: int(value) for value in values}, given_class_names(options, task)
    else:
        index = class_indices(sorted(values), options.classes, task.count, str(path))
        names = given_class_names(options, task)
    beyond = next((name for name in feed.names if is_outside(index[by_sample[name]], task.count)), None)
    if task.indices and beyond is not None:
        raise unfit_label(path.name, beyond, index[by_sample[beyond]], task.count)
    return Labels(
        path.name,
        lambda portion: np.array([index[by_sample[name]] for name in portion.names], np.int64),
        names,
        label_notes({v: index[v] for v in set(by_sample.values())}, names, task),
    )


def indices_by_number(by_sample: Mapping[str, str], path: Path) -> dict[str, int]:
    """Return class indices by their text. DataError where labels are names, which have no order, or where one is not an
    index: it names the sample."""
    values = set(by_sample.values())
    other = next((name for name, value in by_sample.items() if not INDEX.fullmatch(value)), None)
    if other is None:
        return {value: int(value) for value in values}
    if not any(is_number(value) for value in values):
        raise DataError(
            f"{path}: labels are names ({first_few(sorted(values))}), and no indices are given", remedy=CLASSES_FILE
        )
    raise DataError(
        f"{path}: the label {by_sample[other]!r} of {other} is not a class index",
        remedy=f"use integers from 0; for names, {CLASSES_FILE}",
    )


def read_label_table(path: Path) -> dict[str, str]:
    """Read a table of labels: file → label as text. DataError names the line."""
    text = read_text_file(path, DataError, "give a table of file,label lines, an array, or a folder of labels", LARGEST)
    if path.suffix.lower() not in TABLES:
        raise DataError(
            f"{path} is not a file of labels",
            remedy=f"such files end in {', '.join(sorted(TABLES))} (one file,label per line), .npz or .npy",
        )
    labels: dict[str, str] = {}
    columns = (0, 1)
    for number, row in split_rows(text, path):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if not labels and (found := heading_columns(cells)):
            columns = found
            continue
        if max(columns) >= len(cells) or not cells[columns[0]] or not cells[columns[1]]:
            raise DataError(f"{path}, line {number}: not file,label: {shown_cells(row)}", remedy="fix the line")
        name, label = cells[columns[0]].replace("\\", "/").removeprefix("./"), cells[columns[1]]
        if labels.setdefault(name, label) != label:
            raise DataError(
                f"{path}, line {number}: {name} is labelled {labels[name]!r} and {label!r}", remedy="remove one of them"
            )
    if not labels:
        raise DataError(f"{path} holds no labels", remedy="write one file,label per line")
    return labels


def split_rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of every line; in a .txt file the label follows the last space. DataError."""
    if path.suffix.lower() == ".txt":
        return ((number, line.rsplit(None, 1)) for number, line in enumerate(text_lines(text), 1))
    return csv_rows(text, str(path), "\t" if path.suffix.lower() == ".tsv" else ",")


def heading_columns(cells: Sequence[str]) -> tuple[int, int] | None:
    """Return the columns of file and label if a line is a heading; else None."""
    lower = [cell.lower() for cell in cells]
    label = next((i for i, cell in enumerate(lower) if cell in CLASSES), None)
    file = next((i for i, cell in enumerate(lower) if cell in FILES and i != label), None)
    return None if label is None or file is None else (file, label)


def match_samples(by_file: Mapping[str, str], samples: Sequence[str], path: Path) -> dict[str, str]:
    """Return the label of every sample. DataError where samples have none, or share a line that fits both."""
    found: dict[str, str] = {}
    used: dict[str, str] = {}
    missing: list[str] = []
    for sample in samples:
        key = next((key for key in sample_keys(sample) if key in by_file), None)
        if key is None:
            missing.append(sample)
            continue
        if used.setdefault(key, sample) != sample:
            raise DataError(
                f"{path}: {key!r} could be {used[key]} or {sample}",
                remedy="name files by their path in the data folder",
            )
        found[sample] = by_file[key]
    if missing:
        none = len(missing) == len(samples)
        names = f"name files by their path in the data folder, for example {samples[0]}" if none else ""
        raise DataError(
            f"{path} has no label for {len(missing)} of {len(samples)} samples: {first_few(missing)}"
            + (f"; it has labels for {first_few(list(by_file))}" if none and by_file else ""),
            remedy=names or "add them, or remove these samples from the data",
        )
    return found


def sample_keys(sample: str) -> Iterator[str]:
    """Yield the names that a table may use for a sample: path, name, name without suffix; the number of a row."""
    yield sample
    if row := ROW.search(sample):
        yield row[1]
        return
    path = PurePosixPath(sample)
    yield str(path.with_suffix(""))
    yield path.name
    yield path.stem


def is_number(text: str) -> bool:
    """Return True if a text is a finite number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def label_arrays(arrays: Mapping[str, ArrayRows]) -> list[str]:
    """Return the arrays whose names are those of labels."""
    return [name for name in arrays if name.lower() in LABELS]


def labels_from_array(path: Path, feed: Feed, options: LabelOptions, task: LabelTask) -> Labels:
    """Return the rows of an array as the labels of the same rows of the data. DataError."""
    arrays = open_arrays(path)
    names = label_arrays(arrays) or list(arrays)
    if len(names) != 1:
        raise DataError(
            f"{path} holds {', '.join(map(repr, names))}, and none is marked as the labels",
            remedy="name one of them labels",
        )
    rows = arrays[names[0]]
    if feed.kind != "array" or feed.names is None:
        raise DataError(
            f"{path} has a label for each row of an array, but the data are {feed.kind}",
            remedy="give labels of images in a .csv file of file,label",
        )
    last = max(row_index(name) for name in feed.names)
    if not rows.shape or rows.shape[0] <= last:
        raise DataError(
            f"{path}: {names[0]!r} has {rows.shape[0] if rows.shape else 1} labels, the data at least {last + 1} rows",
            remedy="give one label for each row",
        )
    source = f"array {names[0]!r} of {path.name}"

    def of(portion: Portion) -> Array:
        values = np.stack([rows.row(row_index(name)) for name in portion.names])
        return check_labels(values, portion.names, source, options, task)

    return Labels(source, of, given_class_names(options, task))


def row_index(name: str) -> int:
    """Return the row in the name of a sample (`test.npz[17]`)."""
    found = ROW.search(name)
    assert found is not None
    return int(found[1])


def batch_labels(portion: Portion, options: LabelOptions, task: LabelTask) -> Array:
    """Return the labels that a batch contains. DataError."""
    if portion.labels is None or len(portion.labels) != portion.samples:
        count = "no labels" if portion.labels is None else f"{len(portion.labels)} labels"
        raise DataError(
            f"{portion.names[0]} and {portion.samples - 1} more of its batch have {count}",
            remedy="yield (inputs, labels) with a label for each sample, or ignore labels with --no-labels",
        )
    return check_labels(portion.labels, portion.names, "the batches", options, task)


def check_labels(values: Array, names: Sequence[str], source: str, options: LabelOptions, task: LabelTask) -> Array:
    """Return labels as the metric takes them: class indices below the network's count. DataError names the sample."""
    if not task.indices:
        return values
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(
            f"{source}: a label of {names[0]} has {values[0].size} values, not one class",
            remedy="give class indices, or a metric for such labels: --metric module:callable",
        )
    if values.dtype.kind in "US":
        return indices_by_name(values, names, source, options)
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"{source}: labels are {values.dtype}, not class indices", remedy="save class indices as integers from 0"
        )
    with np.errstate(invalid="ignore"):  # NaN and Inf become some integer, which they do not equal
        whole = values.astype(np.int64)
    wrong = np.flatnonzero((whole != values) | (whole < 0) | (whole >= (task.count or np.iinfo(np.int64).max)))
    if wrong.size:
        raise unfit_label(source, names[int(wrong[0])], values[wrong[0]].item(), task.count)
    return whole


def indices_by_name(values: Array, names: Sequence[str], source: str, options: LabelOptions) -> Array:
    """Return class names as indices. DataError where a name is unknown, or its index is not given."""
    known = options.classes.index if options.classes else {}
    for value, name in zip(values, names, strict=True):
        if str(value) not in known:
            fault = options.classes.refused(str(value)) if options.classes else "a name, and no index is given for it"
            raise DataError(
                f"{source}: the label {str(value)!r} of {name} is {fault}",
                remedy=CLASSES_FILE,
            )
    return np.array([known[str(value)] for value in values], np.int64)


def is_outside(index: int, count: int | None) -> bool:
    """Return True if a network with so many classes has no class of that index."""
    return index < 0 or (count is not None and index >= count)


def unfit_label(source: str, sample: str, label: Any, count: int | None) -> DataError:
    """Return the error for a label that is not a class of the network."""
    most = "" if count is None else f", but the network has the classes 0 … {count - 1}"
    return DataError(
        f"{source}: the label of {sample} is {label}{most}",
        remedy="give labels of this network's classes, or map them with --classes FILE",
    )

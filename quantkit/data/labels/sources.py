"""Labels: the true class of every sample of a data set, for an evaluation.

    source                                   label of a sample
    class folders                            the folder of the first level below the data folder
    archives, tables                         members `.cls` and `.json`; a column `label`, with the names of its classes
    a table (.csv, .tsv, .txt)               one `file,label` per line; the file by path, name, or name without suffix
    a list of images in Python               (image, label) pairs
    arrays (.npz, .npy)                      the row of the array `y`, `label`, `labels`, `target` or `targets`
    batches, Python iterables                an array of such a name in the batch, or (inputs, labels)

Labels of classes are class indices [N] (int64); other arrays [N, …] are passed unchanged, for metrics that take them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quantkit.data.array_files import ArrayRows, open_arrays
from quantkit.data.classes import class_indices
from quantkit.data.declared_labels import LABELS, DeclaredLabels
from quantkit.data.feed import Feed, Portion
from quantkit.data.image_folder import ImageFolder
from quantkit.data.image_list import SOURCE, ImageList
from quantkit.data.labels.class_labels import (
    LabelOptions,
    Labels,
    LabelTask,
    check_labels,
    class_names,
    given_class_names,
    label_notes,
)
from quantkit.data.labels.label_table import ROW, labels_from_table
from quantkit.errors import DataError
from quantkit.locations import is_url
from quantkit.paths import real_path
from quantkit.values import Array


def open_labels(source: Any, feed: Feed, options: LabelOptions, task: LabelTask) -> Labels | None:
    """Return the labels of the samples of `feed`, which was opened from `source`; None if there are none. DataError."""
    path = Path(source) if isinstance(source, (str, os.PathLike)) and not is_url(source) else None
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
    declared = feed.declared(task.count)
    if declared is not None:
        return None if declared.missing else labels_from_files(declared, feed, options, task)
    if feed.kind == "array" and path is not None and path.suffix == ".npz" and label_arrays(open_arrays(path)):
        return labels_from_array(path, feed, options, task)
    if feed.kind in ("batches", "stream"):
        return Labels(
            "the batches", lambda portion: batch_labels(portion, options, task), given_class_names(options, task)
        )
    return None


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


def labels_from_files(declared: DeclaredLabels, feed: Feed, options: LabelOptions, task: LabelTask) -> Labels:
    """Return the labels in the files of the samples: indices, or names of classes, which are brought into the network's
    order as the names of class folders are. DataError."""
    assert feed.names is not None
    place = {name: number for number, name in enumerate(feed.names)}
    source, values = declared.source, declared.values
    if declared.every and task.indices:
        index = class_indices(declared.every, options.classes, task.count, source)
        names = class_names(index, options, task)
        notes = label_notes({name: index[name] for name in {*values}}, names, task)
        return Labels(source, lambda p: np.array([index[values[place[n]]] for n in p.names], np.int64), names, notes)
    names = given_class_names(options, task)
    if declared.classes and options.classes is not None and task.indices:
        index = class_indices(declared.classes, options.classes, task.count, source)
        values = [index[declared.classes[v]] if 0 <= v < len(declared.classes) else v for v in values]
    elif declared.classes and task.count in (None, len(declared.classes)):
        names = declared.classes

    def of(portion: Portion) -> Array:
        found = np.array([values[place[name]] for name in portion.names])
        return check_labels(found, portion.names, source, options, task)

    return Labels(source, of, names)


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

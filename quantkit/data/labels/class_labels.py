"""Labels as metrics take them: class indices of the network, with a name for every class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantkit.data.classes import CLASSES_FILE, ClassNames, first_few
from quantkit.data.feed import Portion
from quantkit.errors import DataError
from quantkit.values import Array


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

"""Tables of labels: one `file,label` per line, in .csv, .tsv and .txt files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from quantkit.data.classes import CLASSES_FILE, class_indices, first_few
from quantkit.data.declared_labels import CLASSES
from quantkit.data.feed import Feed
from quantkit.data.labels.class_labels import (
    LabelOptions,
    Labels,
    LabelTask,
    given_class_names,
    is_outside,
    label_notes,
    unfit_label,
)
from quantkit.data.text_rows import INDEX, csv_rows, shown_cells, text_lines
from quantkit.document import read_text_file
from quantkit.errors import DataError

FILES = frozenset({"file", "filename", "file_name", "image", "img", "path", "name", "id", "image_id", "sample"})
"""Headings of a column of files."""
LARGEST = 1 << 30
"""Bytes of a table of labels: tens of millions of files."""
ROW = re.compile(r"\[(\d+)\]$")
TABLES = frozenset({".csv", ".tsv", ".txt"})


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

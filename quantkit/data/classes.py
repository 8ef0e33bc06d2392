"""Class names: a file that says which name is which index of a network's output.

    one name a line     the line's number is the index: `cat`, `n01440764`, `n01440764 tench, Tinca tinca`
    .json               ["cat", "dog"], {"cat": 0}, {"0": "cat"} or {"0": ["n01440764", "tench"]}
    .csv                name,index

A class can be called by all of its names, and by the first word of one, where these are no other class's: two of
ImageNet's classes are called crane, and such a name is shown but stands for none of them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantkit.errors import DataError


@dataclass(frozen=True, slots=True)
class ClassNames:
    """Classes by index. names: what a class is called; None where the file leaves an index out. index: every name that
    is accepted → its index. shared: names of several classes, which are not."""

    names: tuple[str | None, ...]
    index: Mapping[str, int]
    source: str
    shared: frozenset[str] = frozenset()

    def shown(self) -> tuple[str, ...]:
        """A name of its own for every index: the index itself where it has none, with the index where it is shared."""
        told = enumerate(self.names)
        return tuple(str(i) if n is None else f"{n} ({i})" if n in self.shared else n for i, n in told)

    def refused(self, name: str) -> str:
        """Why a name has no index."""
        return f"the name of several classes in {self.source}" if name in self.shared else f"not in {self.source}"


def read_classes(path: Path) -> ClassNames:
    """The class names in a file. DataError names the file and the line or key."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {file_fault(error)}", remedy="give a text, JSON or CSV file of class names") from None
    if path.suffix.lower() == ".json":
        entries = entries_from_json(text, path)
    elif path.suffix.lower() == ".csv":
        entries = entries_from_csv(text, path)
    else:
        lines = text.splitlines()
        while lines and not lines[-1].strip():
            lines.pop()
        entries = [(i, [line.strip()]) for i, line in enumerate(lines)]
    return index_classes(entries, path)


def file_fault(error: OSError | UnicodeDecodeError) -> str:
    """What is wrong with a file, in a few words."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else "not text in UTF-8"


def entries_from_json(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Index and names from one of the four shapes. DataError."""
    wrong = DataError(
        f"{path}: neither a list of names nor a mapping between names and indices",
        remedy='for example ["cat", "dog"] or {"cat": 0, "dog": 1}',
    )
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON: {error}", remedy="mend the file") from None
    if isinstance(document, list) and all(isinstance(name, str) for name in document):
        return [(i, [name]) for i, name in enumerate(document)]
    if not isinstance(document, dict):
        raise wrong
    return [json_entry(key, value, wrong) for key, value in document.items()]


def json_entry(key: str, value: Any, wrong: DataError) -> tuple[int, list[str]]:
    """One key and value as index and names."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, [key]
    names = [value] if isinstance(value, str) else value
    if key.isdigit() and isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return int(key), names
    raise wrong


def entries_from_csv(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """`name,index`, also the other way round; a first line without an index is a heading. DataError."""
    entries: list[tuple[int, list[str]]] = []
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        where = next((i for i in (1, 0) if len(cells) == 2 and cells[i].isdigit()), None)
        if where is None:
            if number == 1 and len(cells) == 2:
                continue
            raise DataError(f"{path}, line {number}: not name,index: {','.join(row)!r}", remedy="mend the line")
        entries.append((int(cells[where]), [cells[1 - where]]))
    return entries


def index_classes(entries: Iterable[tuple[int, Sequence[str]]], path: Path) -> ClassNames:
    """Classes by index. DataError where an index comes twice or a class has no name, or there is none."""
    remedy = "give every class one name and one index"
    shown: dict[int, str] = {}
    called: dict[str, set[int]] = {}
    words: dict[str, set[int]] = {}
    for number, names in entries:
        if number < 0 or number in shown:
            raise DataError(f"{path}: index {number} " + ("comes twice" if number >= 0 else "is none"), remedy=remedy)
        for name in names:
            if not name:
                raise DataError(f"{path}: class {number} has no name", remedy=remedy)
            called.setdefault(name, set()).add(number)
            words.setdefault(name.split()[0], set()).add(number)
        shown[number] = names[-1]
    if not shown:
        raise DataError(f"{path} holds no class names", remedy="write one name a line, in the order of the outputs")
    known = {**words, **called}
    index = {name: min(numbers) for name, numbers in known.items() if len(numbers) == 1}
    told = tuple(shown.get(i) for i in range(max(shown) + 1))
    return ClassNames(told, index, path.name, frozenset(known.keys() - index.keys()))


def class_indices(names: Sequence[str], known: ClassNames | None, count: int | None, where: str) -> dict[str, int]:
    """Class names of a data set → indices of a network's `count` classes (None: not known).

    By `known` where there is such a file. Else, in sorted order where there are `count` of them, and by their number
    where they are numbers below `count`. DataError where neither tells.
    """
    if known is not None:
        unknown = [name for name in names if name not in known.index]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise DataError(
                f"{where}: class {unknown[0]!r}{more} is {known.refused(unknown[0])}",
                remedy="name every class in the file given to --classes",
            )
        return {name: known.index[name] for name in names}
    ordered = sorted(names)
    numbers = all(name.isdigit() for name in names)
    if numbers and count is not None and len(names) < count and all(int(name) < count for name in names):
        return {name: int(name) for name in names}
    if count is not None and len(names) != count:
        raise DataError(
            f"{where} has {len(names)} classes ({first_few(ordered)}), the network has {count}: which is which is not told",
            remedy="--classes FILE with one name a line, in the order of the network's outputs",
        )
    if numbers and ordered != sorted(names, key=int):
        raise DataError(
            f"{where}: classes are numbers, and {first_few(ordered)} is another order than by number",
            remedy="--classes FILE with one name a line, in the order of the network's outputs",
        )
    return {name: i for i, name in enumerate(ordered)}


def first_few(names: Sequence[str], shown: int = 3) -> str:
    """The first few of a list of names."""
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")

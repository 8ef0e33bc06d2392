"""Class names: files that map the names of classes to indices of a network's output.

    one name per line   the line's number is the index: `cat`, `n01440764`, `n01440764 tench, Tinca tinca`
    .json               ["cat", "dog"], {"cat": 0}, {"0": "cat"} or {"0": ["n01440764", "tench"]}
    .csv                name,index

A class is identified by any of its names, and by the first word of a name, unless another class has the same: two of
ImageNet's classes are called crane; such a name is displayed, but identifies neither of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantkit.data.text_rows import INDEX, csv_rows, shown_cells, text_lines
from quantkit.document import DocumentType, read_text_file
from quantkit.errors import DataError
from quantkit.values import MOST_CLASSES

NAMED = "give every class one name and one index"
LARGEST = 64 << 20
"""Bytes of a file of class names."""
CLASSES_JSON = DocumentType[Any](Any, "a file of class names", DataError, "fix the file")
CLASSES_FILE = "give --classes FILE with one name per line, in the order of the network's outputs"


@dataclass(frozen=True, slots=True)
class ClassNames:
    """Classes by index. names: the name of each class; None where the file has no such index. index: every accepted
    name → its index. shared: names of several classes, which are not accepted."""

    names: tuple[str | None, ...]
    index: Mapping[str, int]
    source: str
    shared: frozenset[str] = frozenset()

    def shown(self) -> tuple[str, ...]:
        """Return a unique name for every index: the index itself if it has none; with the index if it is shared."""
        numbered = enumerate(self.names)
        return tuple(str(i) if n is None else f"{n} ({i})" if n in self.shared else n for i, n in numbered)

    def refused(self, name: str) -> str:
        """Return why a name has no index, as the end of a sentence."""
        return f"the name of several classes in {self.source}" if name in self.shared else f"not in {self.source}"


def read_classes(path: Path) -> ClassNames:
    """Read the class names in a file. DataError names the file and the line or key."""
    text = read_text_file(path, DataError, "give a text, JSON or CSV file of class names", LARGEST)
    if path.suffix.lower() == ".json":
        entries = entries_from_json(text, path)
    elif path.suffix.lower() == ".csv":
        entries = entries_from_csv(text, path)
    else:
        lines = text_lines(text.rstrip())
        if len(lines) > MOST_CLASSES:
            raise DataError(f"{path}: {len(lines):,} lines, but no network has as many classes", remedy=NAMED)
        entries = [(i, [line.strip()]) for i, line in enumerate(lines)] if text.strip() else []
    return index_classes(entries, path)


def entries_from_json(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Return index and names from one of the four JSON forms. DataError."""
    wrong = DataError(
        f"{path}: neither a list of names nor a mapping between names and indices",
        remedy='for example ["cat", "dog"] or {"cat": 0, "dog": 1}',
    )
    document = CLASSES_JSON.parse_untyped(text, str(path))
    if isinstance(document, list) and all(isinstance(name, str) for name in document):
        return [(i, [name]) for i, name in enumerate(document)]
    if not isinstance(document, dict):
        raise wrong
    return [json_entry(key, value, wrong) for key, value in document.items()]


def json_entry(key: str, value: Any, wrong: DataError) -> tuple[int, list[str]]:
    """Return one key and its value as index and names."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, [key]
    names = [value] if isinstance(value, str) else value
    if INDEX.fullmatch(key) and isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return int(key), names
    raise wrong


def entries_from_csv(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Return index and names from lines `name,index` or `index,name`; the first line may be a heading. DataError."""
    entries: list[tuple[int, list[str]]] = []
    for number, row in csv_rows(text, str(path)):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        where = next((i for i in (1, 0) if len(cells) == 2 and INDEX.fullmatch(cells[i])), None)
        if where is None:
            if number == 1 and len(cells) == 2 and not any(cell.lstrip("+-").isdigit() for cell in cells):
                continue
            raise DataError(f"{path}, line {number}: not name,index: {shown_cells(row)}", remedy="fix the line")
        entries.append((int(cells[where]), [cells[1 - where]]))
    return entries


def index_classes(entries: Iterable[tuple[int, Sequence[str]]], path: Path) -> ClassNames:
    """Return classes by index. DataError where an index repeats, a class has no name, or there are no classes."""
    shown: dict[int, str] = {}
    called: dict[str, set[int]] = {}
    words: dict[str, set[int]] = {}
    for number, names in entries:
        if not 0 <= number < MOST_CLASSES or number in shown:
            fault = "is negative" if number < 0 else "comes twice"
            fault = "is larger than the number of classes of any network" if number >= MOST_CLASSES else fault
            raise DataError(f"{path}: index {number} {fault}", remedy=NAMED)
        for name in names:
            if not name.strip():
                raise DataError(f"{path}: class {number} has no name", remedy=NAMED)
            called.setdefault(name, set()).add(number)
            words.setdefault(name.split()[0], set()).add(number)
        shown[number] = names[-1]
    if not shown:
        raise DataError(f"{path} holds no class names", remedy="write one name per line, in the order of the outputs")
    known = {**words, **called}
    index = {name: min(numbers) for name, numbers in known.items() if len(numbers) == 1}
    names_by_index = tuple(shown.get(i) for i in range(max(shown) + 1))
    return ClassNames(names_by_index, index, path.name, frozenset(known.keys() - index.keys()))


def class_indices(names: Sequence[str], known: ClassNames | None, count: int | None, where: str) -> dict[str, int]:
    """Return the indices of a data set's class names among a network's `count` classes (None: not known).

    They follow from `known` if there is such a file; else from the sorted order if there are `count` names, or from the
    names themselves if they are numbers below `count`. DataError otherwise.
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
    numbers = all(INDEX.fullmatch(name) for name in names)
    if numbers and count is not None and len(names) < count and all(int(name) < count for name in names):
        return {name: int(name) for name in names}
    if count is not None and len(names) != count:
        raise DataError(
            f"{where}: {'1 class' if len(names) == 1 else f'{len(names)} classes'} ({first_few(ordered)}), but the "
            f"network has {count}, and no index mapping is given",
            remedy=CLASSES_FILE,
        )
    if numbers and ordered != sorted(names, key=int):
        raise DataError(
            f"{where}: classes are numbers, and {first_few(ordered)} is not their numeric order",
            remedy=CLASSES_FILE,
        )
    return {name: i for i, name in enumerate(ordered)}


def first_few(names: Sequence[str], shown: int = 3) -> str:
    """Return the first few of a list of names, separated by commas."""
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")

"""Images in the rows of tables: Parquet and Arrow files, with the bytes of an image in one column."""

from __future__ import annotations

import bisect
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from quantkit.data.data_file import DataFile
from quantkit.data.declared_labels import DeclaredLabels
from quantkit.data.pictures.arrow_blocks import ArrowBlocks
from quantkit.data.pictures.joined_files import JoinedFiles
from quantkit.data.pictures.parquet_blocks import ParquetBlocks
from quantkit.data.pictures.table_columns import TableColumns, choose_label, columns_of
from quantkit.data.pictures.tar_samples import chosen_stamps
from quantkit.errors import BackendError, DataError, QuantkitError, UnreadableError, first_line
from quantkit.extras import install_command
from quantkit.regular_file import FileStamp

T = TypeVar("T")
PARQUET = frozenset({".parquet", ".pq"})
KEPT = 4
"""Blocks in memory: threads ask for rows almost in order."""


class TableBlocks(Protocol):
    """An open table: blocks of rows."""

    schema: Any
    ends: list[int]

    def block(self, number: int, column: str) -> Any:
        """Return a column of one block."""

    def column(self, name: str) -> Any:
        """Return a whole column of small values."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """Columns and number of rows of a table."""

    columns: TableColumns
    ends: tuple[int, ...]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.ends[-1] if self.ends else 0


def open_blocks(file: DataFile) -> TableBlocks:
    """Open a table. BackendError without pyarrow; the exceptions of pyarrow, OSError, DataError."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise BackendError(
            f"{file.name} needs the library pyarrow", remedy=f"install it: {install_command('parquet')}"
        ) from None
    return ParquetBlocks(file) if file.suffix in PARQUET else ArrowBlocks(file)


def guarded_table(file: DataFile, where: str, read: Callable[[], T]) -> T:
    """Return what reading a table gives. DataError for a damaged one."""
    try:
        return read()
    except QuantkitError:
        raise
    except Exception as error:  # pyarrow has exceptions of its own, and passes on those of files
        raise DataError(
            f"{file.place}{where}: {first_line(error)}", remedy="write the file again, or leave it out"
        ) from None


@functools.lru_cache(maxsize=1024)
def table_facts(file: DataFile) -> TableFacts:
    """Return columns and rows of a table; one that has not changed is not read again. DataError."""

    def read() -> TableFacts:
        blocks = open_blocks(file)
        try:
            return TableFacts(columns_of(blocks.schema, file.place), tuple(blocks.ends))
        finally:
            blocks.close()

    return guarded_table(file, " is no table that can be read", read)


class TableRows:
    """The images of tables, in the order of the files and of the rows in them."""

    notes: tuple[str, ...] = ()

    def __init__(self, files: Sequence[DataFile], source: str) -> None:
        self._files, self._source = files, source
        self._facts = [table_facts(file) for file in files]
        self._joined = JoinedFiles.of(facts.rows for facts in self._facts)
        self.count = self._joined.count
        self._open: tuple[int, TableBlocks] | None = None
        self._kept: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._lock = threading.Lock()
        image = self._facts[0].columns.image
        for file, facts in zip(files, self._facts, strict=True):
            if facts.columns.image != image:
                raise DataError(
                    f"{file.place} has its images in column {facts.columns.image!r}, {files[0].name} in {image!r}",
                    remedy="give tables with the same columns",
                )

    def plan(self, indices: Sequence[int]) -> None:
        """Do nothing: rows are read block by block."""

    def name(self, index: int) -> str:
        """Return file and row: `train-00000-of-00002.parquet[17]`."""
        file, row = self._joined.place(index)
        return f"{self._files[file].name}[{row}]"

    def picture(self, index: int) -> bytes:
        """Return the bytes in a row. UnreadableError where it has none; DataError."""
        number, row = self._joined.place(index)
        file, facts = self._files[number], self._facts[number]
        block = bisect.bisect_right(facts.ends, row)
        with self._lock:
            values = guarded_table(file, f", row {row}", lambda: self._block(number, block))
        value = values[row - (facts.ends[block - 1] if block else 0)].as_py()
        path = value.get("path") if isinstance(value, dict) else None
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise UnreadableError(f"the table has no bytes of the image{f', only its path {path}' if path else ''}")
        found: bytes = content
        return found

    def version(self, index: int) -> bytes | None:
        """Return the sha256 of the version of the file and the row; None if its store names no version."""
        file, row = self._joined.place(index)
        return self._files[file].identify(str(row))

    def stamps(self, indices: Sequence[int]) -> tuple[FileStamp, ...]:
        """Return the stamps of the files, with a digest of the choice."""
        return chosen_stamps(self._files, indices)

    def labels(self, indices: Sequence[int], classes: int | None) -> DeclaredLabels:
        """Return a column of labels. DataError where a row has none."""
        column = choose_label(self._facts[0].columns, classes)
        if isinstance(column, str):
            return DeclaredLabels(self._source, missing=column)
        try:
            values, every = self._chosen_labels(indices, column.name)
        finally:
            self.close()
        if None in values:
            raise DataError(
                f"{self.name(indices[values.index(None)])} has no value in column {column.name!r}",
                remedy="give every row a label, or take these rows out",
            )
        return DeclaredLabels(f"column {column.name!r} of {self._source}", values, column.classes, every)

    def _chosen_labels(self, indices: Sequence[int], column: str) -> tuple[list[Any], tuple[str, ...]]:
        """Return the values of a column in chosen rows, and all texts in it. DataError."""
        ordered, values, every = sorted(indices), list[Any](), set[str]()
        for number in range(len(self._files)):
            found = self._label_values(number, column)
            first, last = self._joined.start(number), self._joined.ends[number]
            at, stop = (bisect.bisect_left(ordered, place) for place in (first, last))
            values += [found[index - first] for index in ordered[at:stop]]
            every.update(value for value in found if isinstance(value, str))
        position = {index: at for at, index in enumerate(ordered)}
        return [values[position[index]] for index in indices], tuple(sorted(every))

    def _label_values(self, number: int, name: str) -> list[Any]:
        file = self._files[number]
        if name not in self._facts[number].columns.every:
            raise DataError(f"{file.place} has no column {name!r}", remedy="give tables with the same columns")
        with self._lock:
            found: list[Any] = guarded_table(
                file, f", column {name}", lambda: self._blocks(number).column(name).to_pylist()
            )
        return found

    def close(self) -> None:
        """Close the file until the next row."""
        with self._lock:
            self._kept.clear()
            if self._open is not None:
                self._open[1].close()
            self._open = None

    def _blocks(self, number: int) -> TableBlocks:
        if self._open is None or self._open[0] != number:
            if self._open is not None:
                self._open[1].close()
                self._open = None
            self._open = number, open_blocks(self._files[number])
        return self._open[1]

    def _block(self, number: int, block: int) -> Any:
        found = self._kept.get((number, block))
        if found is None:
            found = self._blocks(number).block(block, self._facts[number].columns.image)
            self._kept[number, block] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

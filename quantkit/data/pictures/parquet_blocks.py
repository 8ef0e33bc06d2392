"""The rows of a Parquet file in blocks of a few megabytes, read forward through its row groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quantkit.data.data_file import DataFile

BLOCK_BYTES = 4 << 20
"""Bytes of images in a block, about."""
MOST_ROWS = 1024


class ParquetBlocks:
    """Blocks of rows. ends: the number of rows before the end of each block. Going back begins a row group anew."""

    def __init__(self, file: DataFile) -> None:
        """Read the footer. The exceptions of pyarrow, OSError, DataError."""
        import pyarrow.parquet as pq

        self._stream = file.open(1 << 20)
        try:
            self._table = pq.ParquetFile(self._stream, pre_buffer=False, buffer_size=1 << 20)
        except Exception:
            self._stream.close()
            raise
        self.schema = self._table.schema_arrow
        self._plan: list[tuple[int, int, int]] = []
        self.ends: list[int] = []
        self._cursor: tuple[int, int, Iterator[Any]] | None = None
        rows = 0
        for group in range(self._table.num_row_groups):
            meta = self._table.metadata.row_group(group)
            average = max(1, meta.total_byte_size // max(meta.num_rows, 1))
            size = max(1, min(MOST_ROWS, BLOCK_BYTES // average))
            for first in range(0, meta.num_rows, size):
                self._plan.append((group, first // size, size))
                self.ends.append(rows + min(first + size, meta.num_rows))
            rows += meta.num_rows

    def block(self, number: int, column: str) -> Any:
        """Return a column of one block as an Arrow array. The exceptions of pyarrow, OSError, DataError."""
        group, wanted, size = self._plan[number]
        if self._cursor is None or self._cursor[0] != group or self._cursor[1] > wanted:
            batches = self._table.iter_batches(size, row_groups=[group], columns=[column], use_threads=False)
            self._cursor = group, 0, batches
        _, position, batches = self._cursor
        while position <= wanted:
            batch = next(batches)
            position += 1
        self._cursor = group, position, batches
        return batch.column(0)

    def column(self, name: str) -> Any:
        """Return a whole column of small values. The exceptions of pyarrow, OSError, DataError."""
        return self._table.read(columns=[name], use_threads=False).column(0)

    def close(self) -> None:
        """Close the file."""
        self._cursor = None
        self._table.close()
        self._stream.close()

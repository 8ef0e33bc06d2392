"""The rows of an Arrow file, in the file format (Feather) or in the stream format (Hugging Face), batch by batch.

Both are a chain of messages. Their headers tell where each batch lies and how many rows it has, so that nothing else is
read to count them (https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO, Any

from quantkit.data.data_file import DataFile
from quantkit.errors import DataError

MAGIC = b"ARROW1\0\0"
CONTINUED = 0xFFFFFFFF
SCHEMA, DICTIONARY, BATCH = 1, 2, 3
"""Kinds of messages."""
LARGEST_HEADER = 1 << 26
AGAIN = "write it again, or leave it out"


@dataclass(frozen=True, slots=True)
class ArrowMessage:
    """A message: its kind, where it lies in the file, and the rows of a batch."""

    kind: int
    start: int
    stop: int
    rows: int


def messages_of(stream: IO[bytes], file: DataFile) -> list[ArrowMessage]:
    """Return the messages of a file, without their bodies. DataError where it is damaged or was cut off."""
    start = len(MAGIC) if stream.read(len(MAGIC)) == MAGIC else 0
    found: list[ArrowMessage] = []
    while True:
        stream.seek(start)
        prefix = stream.read(8)
        if len(prefix) < 8 and not (len(prefix) == 4 and prefix == bytes(4)):
            fault = "was cut off" if found else "is no Arrow file"
            raise DataError(f"{file.place} {fault}: no message at byte {start:,}", remedy=AGAIN)
        first, second = struct.unpack("<II", prefix.ljust(8, b"\0"))
        length, header = (second, start + 8) if first == CONTINUED else (first, start + 4)
        if length == 0:
            return found
        stream.seek(header)
        metadata = stream.read(length) if length <= LARGEST_HEADER else b""
        try:
            kind, body, rows = parse_header(metadata)
        except (struct.error, IndexError):
            raise DataError(f"{file.place}: no Arrow message at byte {start:,}", remedy=AGAIN) from None
        stop = header + length + body
        if body < 0 or rows < 0 or (file.size is not None and stop > file.size):
            raise DataError(f"{file.place} was cut off: a batch ends at byte {stop:,}", remedy=AGAIN)
        found.append(ArrowMessage(kind, start, stop, rows))
        start = stop


def parse_header(metadata: bytes) -> tuple[int, int, int]:
    """Return kind, bytes of the body, and rows of a message's header, a FlatBuffer. struct.error, IndexError."""
    root = number_at(metadata, "<I", 0)
    kind = field_at(metadata, root, 1, "<B", 0)
    body = field_at(metadata, root, 3, "<q", 0)
    place = field_place(metadata, root, 2)
    rows = 0
    if kind == BATCH and place:
        rows = field_at(metadata, place + number_at(metadata, "<I", place), 0, "<q", 0)
    return kind, body, rows


def number_at(content: bytes, form: str, place: int) -> int:
    """Return a number in bytes. struct.error where they end before."""
    found: int = struct.unpack_from(form, content, place)[0]
    return found


def field_place(content: bytes, table: int, number: int) -> int:
    """Return where a field of a FlatBuffer's table lies; 0 if it is not there."""
    columns = table - number_at(content, "<i", table)
    at = 4 + 2 * number
    offset = number_at(content, "<H", columns + at) if at < number_at(content, "<H", columns) else 0
    return table + offset if offset else 0


def field_at(content: bytes, table: int, number: int, form: str, default: int) -> int:
    """Return a number in a field of a FlatBuffer's table, or the default if it is not there."""
    place = field_place(content, table, number)
    return number_at(content, form, place) if place else default


class ArrowBlocks:
    """The batches of an Arrow file as blocks. A file on this machine is mapped into memory, not read."""

    def __init__(self, file: DataFile) -> None:
        """Read the headers. The exceptions of pyarrow, OSError, DataError."""
        import pyarrow as pa

        with file.opened(1 << 16) as stream:
            messages = messages_of(stream, file)
        self._file = file
        self._batches = [m for m in messages if m.kind == BATCH]
        self._before = [m for m in messages if m.kind in (SCHEMA, DICTIONARY)]
        if not self._before or self._before[0].kind != SCHEMA:
            raise DataError(f"{file.place} has no schema", remedy=AGAIN)
        self._map = None if file.is_remote else pa.memory_map(file.place)
        self.schema = pa.ipc.read_schema(self._bytes(self._before[0]))
        self.ends: list[int] = []
        for message in self._batches:
            self.ends.append((self.ends[-1] if self.ends else 0) + message.rows)

    def _bytes(self, message: ArrowMessage) -> Any:
        import pyarrow as pa

        if self._map is None:
            return pa.py_buffer(self._file.read(message.start, message.stop))
        self._map.seek(message.start)
        return self._map.read_buffer(message.stop - message.start)

    def block(self, number: int, column: str) -> Any:
        """Return a column of one batch as an Arrow array. The exceptions of pyarrow, OSError, DataError."""
        import pyarrow as pa

        message = self._bytes(self._batches[number])
        if len(self._before) == 1:
            return pa.ipc.read_record_batch(pa.ipc.read_message(message), self.schema).column(column)
        whole = b"".join([*(self._bytes(before).to_pybytes() for before in self._before), message.to_pybytes()])
        return pa.ipc.open_stream(pa.BufferReader(whole)).read_next_batch().column(column)

    def column(self, name: str) -> Any:
        """Return a whole column of small values. The exceptions of pyarrow, OSError, DataError."""
        import pyarrow as pa

        return pa.chunked_array([self.block(number, name) for number in range(len(self._batches))])

    def close(self) -> None:
        """Unmap the file."""
        if self._map is not None:
            self._map.close()

"""Arrays in files, row by row: `.npy` files, and the members of `.npz` files, which are compressed `.npy` files.

What a file declares is checked before any memory is taken for it: the size of its header, the type, and that its bytes
can be there. Rows of a compressed member are decompressed one after the other, a few at a time; going back to an
earlier row starts from the beginning, which only a shuffled selection needs.
"""

from __future__ import annotations

import ast
import math
import os
import struct
import threading
import tokenize
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from quantkit.data.data_file import DataFile, open_place
from quantkit.errors import DataError
from quantkit.regular_file import file_fault

ArrayPlace: TypeAlias = Path | DataFile
BROKEN = (
    OSError, ValueError, TypeError, KeyError, IndexError, EOFError, SyntaxError, OverflowError, MemoryError,
    RuntimeError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""Exceptions that numpy and zipfile raise for damaged files."""
BLOCK_BYTES = 1 << 18
"""Rows are decompressed in blocks of this size, or one by one if they are larger."""
LONGEST_HEADER = 10_000
"""Bytes of the header of an array, as in numpy itself."""
LARGEST_PIECE = 1 << 30
"""Bytes that are read at once: a row, or an array whose rows do not lie one after the other."""
MOST_AXES = 32
DEFLATE = 1032
"""The most bytes that one compressed byte stands for."""
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Compression in the files of numpy.savez and numpy.savez_compressed."""


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """The header of a stored array. offset: of the first value, in bytes."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row along axis 0."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def bytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize


class ArrayRows(Protocol):
    """An array whose rows are read one by one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array."""

    def row(self, index: int) -> NDArray[Any]:
        """Return row `index` along axis 0. DataError where the file is damaged."""

    def whole(self) -> NDArray[Any]:
        """Return the whole array. DataError, also where it is large."""

    def close(self) -> None:
        """Close the file; the next row opens it again."""


@dataclass(frozen=True, slots=True)
class HeldRows:
    """An array in memory, or mapped into it."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array."""
        return self.array.dtype

    def row(self, index: int) -> NDArray[Any]:
        """Return a copy of row `index`."""
        return np.array(self.array[index])

    def whole(self) -> NDArray[Any]:
        """Return the array."""
        return np.array(self.array)

    def close(self) -> None:
        """Do nothing: a mapping ends with the array."""


@dataclass(slots=True)
class StoredRows:
    """The rows of a `.npy` file, or of a member of an `.npz`, read from the file when they are asked for."""

    path: ArrayPlace
    member: str | None
    """Name of the array in an `.npz`; None for a `.npy` file."""
    header: ArrayHeader
    _file: IO[bytes] | None = None
    _stream: IO[bytes] | None = None
    _block: bytes = b""
    _first: int = 0
    _held: int = 0
    """Rows `_first` to `_first + _held` are in `_block`."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array."""
        return self.header.dtype

    def row(self, index: int) -> NDArray[Any]:
        """Return row `index`. DataError where the file is damaged."""
        size = self.header.row_bytes
        self._refuse_large(size, "a row")
        with self._lock:
            content = self._guarded(lambda: self._row_bytes(index, size))
        if len(content) != size:
            raise DataError(f"{self._where}: ends in row {index}", remedy="save the file again")
        return np.frombuffer(content, self.dtype).reshape(self.shape[1:])

    def whole(self) -> NDArray[Any]:
        """Return the whole array. DataError where the file is damaged, or the array is large."""
        self._refuse_large(self.header.bytes, "the array")
        with self._lock:
            self.close()
            content = self._guarded(lambda: self._opened().read(self.header.bytes))
            self.close()
        if len(content) != self.header.bytes:
            raise DataError(f"{self._where}: ends before its last value", remedy="save the file again")
        found = np.frombuffer(content, self.dtype)
        return found.reshape(self.shape, order="F" if self.header.fortran else "C")

    def close(self) -> None:
        """Close the file; the next row opens it again."""
        for stream in (self._stream, self._file):
            if stream is not None:
                stream.close()
        self._stream = self._file = None

    def __del__(self) -> None:
        self.close()

    @property
    def _where(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}, array {self.member!r}"

    def _refuse_large(self, size: int, what: str) -> None:
        if size > LARGEST_PIECE:
            raise DataError(
                f"{self._where}: {what} has {size / 2**30:,.1f} GiB ({self.dtype} {list(self.shape)})",
                remedy="save one sample in each row, in C order (numpy.ascontiguousarray)",
            )

    def _guarded(self, read: Any) -> bytes:
        try:
            content: bytes = read()
        except BROKEN as error:
            raise DataError(f"{self._where}: {file_fault(error)}", remedy="save the file again") from None
        return content

    def _row_bytes(self, index: int, size: int) -> bytes:
        """Return the bytes of a row, of a member from the last block that was read or a following one."""
        if self._stream is None or (self.member is not None and index < self._first):
            self.close()
            self._opened()
            self._block, self._first, self._held = b"", 0, 0
        assert self._stream is not None
        if self.member is None:
            self._stream.seek(self.header.offset + index * size)
            return self._stream.read(size)
        while index >= self._first + self._held:
            self._first += self._held
            self._held = max(1, BLOCK_BYTES // max(size, 1))
            self._block = self._stream.read(self._held * size)
        start = (index - self._first) * size
        return self._block[start : start + size]

    def _opened(self) -> IO[bytes]:
        """Open the stream at the first value. The exceptions of BROKEN."""
        self._file = open_place(self.path)
        stream: IO[bytes] = self._file
        if self.member is not None:
            stream = zipfile.ZipFile(self._file).open(f"{self.member}.npy")  # noqa: SIM115 (closed by `close`)
        self._stream = stream
        stream.read(self.header.offset)
        return stream


def read_header(stream: IO[bytes]) -> ArrayHeader:
    """Read the header of a `.npy` stream, which is left at the first value. The exceptions of BROKEN."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"version {version[0]}.{version[1]} of the format is unknown")
    prefix = stream.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(prefix, "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header claims {length:,} bytes")
    content = stream.read(length)
    if version != (3, 0):
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about files that Python 2 wrote, which are read
            shape, fortran, dtype = read(BytesIO(prefix + content))
    else:
        entries = ast.literal_eval(content.decode("utf-8"))
        shape, fortran, dtype = entries["shape"], entries["fortran_order"], np.dtype(entries["descr"])
    header = ArrayHeader(shape, bool(fortran), dtype, 8 + len(prefix) + length)
    check_declared(header)
    return header


def check_declared(header: ArrayHeader) -> None:
    """Raise ValueError where what a header declares is no array of plain values."""
    shape, dtype = header.shape, header.dtype
    if not isinstance(shape, tuple) or len(shape) > MOST_AXES:
        raise ValueError("its header declares no shape")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"its header declares the shape {shape}")
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"it holds {'Python objects' if dtype.hasobject else 'values of no bytes'} ({dtype.str})")
    if 0 in shape[1:] and shape[0]:
        raise ValueError(f"its rows hold no values: {dtype} {list(shape)}")


def refuse_missing_bytes(header: ArrayHeader, held: int) -> None:
    """Raise ValueError where a file holds fewer bytes than its header declares."""
    if header.offset + header.bytes > held:
        raise ValueError(
            f"its header declares {header.dtype} {list(header.shape)}, {header.bytes:,} bytes, but it holds "
            f"{max(0, held - header.offset):,}"
        )


def open_arrays(path: ArrayPlace) -> Mapping[str, ArrayRows]:
    """Open the arrays of a `.npy` (named `array`) or `.npz` file. DataError where it is neither, or holds objects."""
    try:
        with open_place(path) as file:
            arrays = {"array": npy_rows(path, file)} if path.suffix == ".npy" else npz_rows(path, file)
    except BROKEN as error:
        raise DataError(
            f"{path}: not a numpy file: {file_fault(error)}", remedy="save it with numpy.save or numpy.savez"
        ) from None
    if not arrays:
        raise DataError(f"{path} holds no arrays", remedy="save it with numpy.savez")
    return arrays


def npy_rows(path: ArrayPlace, file: IO[bytes]) -> ArrayRows:
    """Return the rows of a `.npy` file. The exceptions of BROKEN."""
    header = read_header(file)
    refuse_missing_bytes(header, file.seek(0, os.SEEK_END))
    if not header.bytes:
        return HeldRows(np.empty(header.shape, header.dtype))
    if header.fortran and len(header.shape) > 1:  # its rows do not lie one after the other
        return fortran_rows(path, file, header)
    rows = StoredRows(path, None, header)
    return rows if header.shape else HeldRows(rows.whole())


def fortran_rows(path: ArrayPlace, file: IO[bytes], header: ArrayHeader) -> ArrayRows:
    """Return the rows of an array in column order: mapped into memory, or read whole from a store."""
    if isinstance(path, DataFile) and path.is_remote:
        return HeldRows(StoredRows(path, None, header).whole())
    return HeldRows(np.memmap(file, header.dtype, "r", header.offset, header.shape, "F"))


def npz_rows(path: ArrayPlace, file: IO[bytes]) -> dict[str, ArrayRows]:
    """Return the rows of every member of an `.npz`. The exceptions of BROKEN."""
    arrays: dict[str, ArrayRows] = {}
    with zipfile.ZipFile(file) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
        names = Counter(entry.filename for entry in entries)
        for entry in entries:
            name = entry.filename[: -len(".npy")]
            try:
                if names[entry.filename] > 1:
                    raise ValueError("the name comes twice")
                arrays[name] = member_rows(path, name, archive, entry)
            except BROKEN as error:
                raise ValueError(f"array {name!r}: {file_fault(error)}") from None
    return arrays


def member_rows(path: ArrayPlace, name: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> ArrayRows:
    """Return the rows of one member. The exceptions of BROKEN."""
    if entry.compress_type not in METHODS:
        raise ValueError("it is compressed in a way that numpy does not use")
    if entry.file_size > DEFLATE * (entry.compress_size + 1):
        raise ValueError(f"{entry.compress_size:,} bytes cannot hold {entry.file_size:,} compressed ones")
    with archive.open(entry) as stream:
        header = read_header(stream)
    refuse_missing_bytes(header, entry.file_size)
    rows = StoredRows(path, name, header)
    contiguous = bool(header.shape) and (not header.fortran or len(header.shape) == 1)
    return rows if contiguous and header.bytes else HeldRows(rows.whole())

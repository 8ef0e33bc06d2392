"""Arrays in files: `.npy` files are mapped into memory, `.npz` files are read row by row without unpacking them whole.

A member of an `.npz` is a compressed `.npy`; its rows are decompressed one after the other, and memory holds a few of
them at a time. Going back to an earlier row starts from the beginning, which only a shuffled selection needs.
"""

from __future__ import annotations

import ast
import hashlib
import struct
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quantkit.data.feed import DigestMemory, arrays_digest, check_batch
from quantkit.data.images import stamp_file
from quantkit.data.pixels import normalise, transform
from quantkit.errors import DataError, UnreadableError
from quantkit.preprocess import Preprocess
from quantkit.regular_file import FileStamp
from quantkit.values import Batch, ModelInput

BROKEN = (
    OSError, ValueError, TypeError, KeyError, IndexError, EOFError, SyntaxError, OverflowError, MemoryError,
    RuntimeError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""Exceptions that numpy and zipfile raise for damaged files."""
BLOCK_BYTES = 1 << 18
"""Rows are decompressed in blocks of this size, or one by one if they are larger."""
WHOLE = 1e-3
"""Largest distance from an integer, of pixels that were stored as float."""
LABELS = frozenset({"y", "label", "labels", "target", "targets"})
"""Arrays with these names are labels if a file holds them beside its inputs."""


class ArrayRows(Protocol):
    """An array whose rows are read one by one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array."""

    def row(self, index: int) -> NDArray[Any]:
        """Return row `index` along axis 0."""

    def close(self) -> None:
        """Close the file; the next row opens it again."""


@dataclass(frozen=True, slots=True)
class MappedRows:
    """A `.npy` file that is mapped into memory."""

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
        """Return row `index`, copied from the file."""
        return np.array(self.array[index])

    def close(self) -> None:
        """Do nothing: the mapping ends with the array."""


@dataclass(slots=True)
class ZippedRows:
    """A member of an `.npz`, decompressed while its rows are read in ascending order."""

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _archive: zipfile.ZipFile | None = None
    _stream: IO[bytes] | None = None
    _block: bytes = b""
    _first: int = 0
    _held: int = 0
    """Rows `_first` to `_first + _held` are in `_block`."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def row(self, index: int) -> NDArray[Any]:
        """Return row `index`. DataError where the file is damaged."""
        size = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        with self._lock:
            try:
                content = self._content(index, size)
            except BROKEN as error:
                raise DataError(f"{self.path}, array {self.member!r}: {error}", remedy="save the file again") from None
        if len(content) != size:
            raise DataError(f"{self.path}, array {self.member!r}: ends in row {index}", remedy="save the file again")
        return np.frombuffer(content, self.dtype).reshape(self.shape[1:])

    def _content(self, index: int, size: int) -> bytes:
        """Return the bytes of a row, from the last block that was read or a following one."""
        if self._stream is None or index < self._first:
            self._open()
        assert self._stream is not None
        while index >= self._first + self._held:
            self._first += self._held
            self._held = max(1, BLOCK_BYTES // max(size, 1))
            self._block = self._stream.read(self._held * size)
        start = (index - self._first) * size
        return self._block[start : start + size]

    def close(self) -> None:
        """Close the file; the next row opens it again."""
        if self._stream is not None:
            self._stream.close()
        if self._archive is not None:
            self._archive.close()
        self._stream = self._archive = None

    def _open(self) -> None:
        self.close()
        self._archive = zipfile.ZipFile(self.path)
        self._stream = self._archive.open(f"{self.member}.npy")
        read_header(self._stream)
        self._block, self._first, self._held = b"", 0, 0


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and dtype of a `.npy` stream, which is left at the first value. ValueError."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    length = int.from_bytes(stream.read(4), "little")
    header = ast.literal_eval(stream.read(length).decode("utf-8"))
    return header["shape"], header["fortran_order"], np.dtype(header["descr"])


def open_arrays(path: Path) -> Mapping[str, ArrayRows]:
    """Open the arrays of a `.npy` (named `array`) or `.npz` file. DataError where it is neither, or holds objects."""
    try:
        if path.suffix == ".npy":
            return {"array": MappedRows(np.lib.format.open_memmap(path, mode="r"))}
        arrays: dict[str, ArrayRows] = {}
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                if entry.endswith(".npy"):
                    name = entry[: -len(".npy")]
                    with archive.open(entry) as stream:
                        shape, fortran, dtype = read_header(stream)
                    arrays[name] = member_rows(path, name, shape, fortran, dtype)
    except BROKEN as error:
        raise DataError(f"{path}: not a numpy file: {error}", remedy="save it with numpy.save or numpy.savez") from None
    if not arrays:
        raise DataError(f"{path} holds no arrays", remedy="save it with numpy.savez")
    return arrays


def member_rows(path: Path, name: str, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]) -> ArrayRows:
    """Return the rows of one member. ValueError for objects, which would need pickle."""
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(
            f"array {name!r} holds {'Python objects' if dtype.hasobject else 'values of no bytes'} ({dtype.str})"
        )
    if fortran or not shape:  # its rows are not contiguous, or it has none: read it whole
        with np.load(path, allow_pickle=False) as archive:
            return MappedRows(archive[name])
    return ZippedRows(path, name, shape, dtype)


def arrays_by_input(
    arrays: Mapping[str, ArrayRows], inputs: Sequence[ModelInput], where: str
) -> Mapping[str, ArrayRows]:
    """Return the array of every input: by name, or the only array there is. DataError."""
    if len(inputs) == 1 and inputs[0].name not in arrays:
        candidates = [name for name in arrays if name.lower() not in LABELS]
        if len(candidates) == 1:
            return {inputs[0].name: arrays[candidates[0]]}
    missing = [i.name for i in inputs if i.name not in arrays]
    if missing:
        raise DataError(
            f"{where} has no array for input {', '.join(map(repr, missing))}; it has {', '.join(map(repr, arrays))}",
            remedy="name the arrays as the model names its inputs (quantkit inspect MODEL)",
        )
    return {i.name: arrays[i.name] for i in inputs}


class ArraySamples:
    """Chosen rows of the arrays of one file, as samples."""

    def __init__(
        self,
        path: Path,
        indices: Sequence[int],
        inputs: Sequence[ModelInput],
        spec: Preprocess | None,
    ) -> None:
        self._path, self._indices, self._inputs, self._spec = path, indices, inputs, spec
        self._rows = arrays_by_input(open_arrays(path), inputs, str(path))
        self.names = [f"{path.name}[{i}]" for i in indices]
        self._digests = DigestMemory()

    def load(self, index: int) -> Batch:
        """Return one row of every array as the network's inputs, without batch axis. DataError, UnreadableError."""
        rows = self._read(index)
        if self._spec is not None:
            return {name: image_input(row, self._spec) for name, row in rows.items()}
        batch = check_batch(
            {name: row[None] for name, row in rows.items()},
            [replace(i, shape=(None, *i.shape[1:])) for i in self._inputs],
            self.names[index],
        )
        return {name: array[0] for name, array in batch.items()}

    def digest(self, index: int) -> bytes:
        """Return the sha256 of the row as it is in the file."""
        if self._digests.get(index) is None:
            self._read(index)
        return (self._digests.get(index) or [])[0]

    def stamps(self) -> tuple[FileStamp, ...]:
        """Return size and times of the file, and a digest of the chosen rows."""
        rows = hashlib.sha256(repr(list(self._indices)).encode()).hexdigest()[:16]
        return (stamp_file(self._path, f"{self._path.name} rows {rows}"),)

    def close(self) -> None:
        """Close the file until the next row."""
        for rows in self._rows.values():
            rows.close()

    def _read(self, index: int) -> dict[str, NDArray[Any]]:
        found = {name: rows.row(self._indices[index]) for name, rows in self._rows.items()}
        self._digests.notice(index, [arrays_digest([found[name] for name in sorted(found)])], self.names[index])
        return found


def row_count(path: Path, inputs: Sequence[ModelInput]) -> int:
    """Return the number of samples in the file. DataError where the arrays disagree."""
    lengths = {
        name: rows.shape[0] if rows.shape else 0
        for name, rows in arrays_by_input(open_arrays(path), inputs, str(path)).items()
    }
    if len(set(lengths.values())) != 1:
        raise DataError(
            f"{path}: the arrays have different lengths: {lengths}",
            remedy="save the same number of rows of each",
        )
    return next(iter(lengths.values()))


def image_input(row: NDArray[Any], spec: Preprocess) -> NDArray[Any]:
    """Convert an image as an array (uint8 [H, W, C] or [H, W], or any number type at the final size) to an input array.

    UnreadableError where it is not an image, or needs resizing without being uint8.
    """
    from PIL import Image

    if row.ndim == 3 and row.shape[0] in (1, 3) and row.shape[2] not in (1, 3):
        row = np.moveaxis(row, 0, 2)
    if row.ndim == 3 and row.shape[2] == 1:
        row = row[..., 0]
    if row.ndim not in (2, 3) or (row.ndim == 3 and row.shape[2] != 3):
        raise UnreadableError(f"is {row.dtype} {list(row.shape)}, not an image [H, W, 3], [3, H, W] or [H, W]")
    if row.dtype.kind not in "iuf":
        raise UnreadableError(f"is {row.dtype} {list(row.shape)}, not numbers")
    if row.dtype == np.uint8:
        return transform(Image.fromarray(np.ascontiguousarray(row)), spec)
    if spec.size != row.shape[:2]:
        raise UnreadableError(f"is {row.dtype} {list(row.shape)}: only uint8 images can be resized")
    if not np.isfinite(row).all():
        raise UnreadableError("holds NaN or Inf")
    pixels = row[..., None] if row.ndim == 2 else row
    if pixels.shape[2] != (1 if spec.channels == "grey" else 3):
        raise UnreadableError(f"has {pixels.shape[2]} channels, the spec says {spec.channels}")
    ordered = pixels[..., ::-1] if spec.channels == "bgr" else pixels
    if row.dtype.kind == "f" and np.dtype(spec.dtype or "float32").kind in "iu":
        refuse_fractions(normalise(ordered, spec.model_copy(update={"dtype": "float64"})), row, spec)
    return normalise(ordered, spec)


def refuse_fractions(values: NDArray[Any], row: NDArray[Any], spec: Preprocess) -> None:
    """Raise UnreadableError where preprocessed values are not integers, as the input's type needs."""
    if np.abs(values - np.rint(values)).max() > WHOLE:
        raise UnreadableError(f"is {row.dtype}, and its values after preprocessing are fractions, not {spec.dtype}")

"""Rows of a Ray dataset as samples: images as bytes of files or as arrays of pixels, or the inputs of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.data import DataOptions, Feed
from quantkit.data.batches import axes_of, check_batch, take_samples
from quantkit.data.declared_labels import DeclaredLabels
from quantkit.data.feed import arrays_digest
from quantkit.data.image_list import given_data
from quantkit.data.opening import open_store
from quantkit.data.sample_feed import SampleFeed
from quantkit.errors import UnreadableError, UsageError
from quantkit.preprocess import Preprocess
from quantkit.regular_file import FileStamp
from quantkit.values import Array, Batch, ModelInput

if TYPE_CHECKING:
    from PIL import Image

PATH = "path"
"""The column of names that Ray's readers add with `include_paths`."""


@dataclass(frozen=True, slots=True)
class RowColumns:
    """The columns of a dataset that are read. image: the one with images; None where each input has its own."""

    image: str | None
    inputs: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    """The column with the names of the rows, if there is one."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that feed the network."""
        return self.inputs if self.image is None else (self.image,)


def choose_columns(known: Mapping[str, Array], inputs: Sequence[ModelInput], column: str | None) -> RowColumns:
    """Return the columns to read. known: some rows. column: the one with images; None looks at the values. UsageError.

    Columns with the names of all inputs feed them as they are, if no other holds images.
    """
    listed = ", ".join(map(repr, known))
    paths = (PATH,) if PATH in known else ()
    if column is not None:
        if column not in known:
            raise UsageError(f"the dataset has no column {column!r}; it has {listed}", remedy="name one of them")
        return RowColumns(column, paths=paths)
    names = tuple(i.name for i in inputs)
    images = image_columns(known)
    if set(names) <= set(known) and not images:
        return RowColumns(None, names, paths)
    if len(images) == 1 and len(names) == 1:
        return RowColumns(images[0], paths=paths)
    raise UsageError(
        f"which column feeds the network is not clear: the dataset has {listed}, the network the inputs "
        f"{', '.join(map(repr, names))}",
        remedy="name the column of images with column=, or give the columns the names of the inputs",
    )


def image_columns(rows: Mapping[str, Array]) -> list[str]:
    """Return the columns that hold images: bytes of files, pixels of 8 bits, or what Hugging Face makes of them."""
    return [name for name, values in rows.items() if len(values) and name != PATH and is_picture(values[0])]


def is_picture(value: Any) -> bool:
    """Return True for the bytes of a file, pixels of 8 bits, and a mapping with bytes."""
    if isinstance(value, Mapping):
        return isinstance(value.get("bytes"), bytes)
    if isinstance(value, np.ndarray):
        return value.dtype == np.uint8 and value.ndim in (2, 3)
    return isinstance(value, bytes)


class RowPictures:
    """The rows of a batch as a store of pictures. rows: bytes of files, or pixels [H, W] or [H, W, C] in 0 … 255."""

    notes: tuple[str, ...] = ()

    def __init__(self, rows: Sequence[Any], names: Sequence[str]) -> None:
        self.count = len(rows)
        self._rows, self._names = rows, names

    def plan(self, indices: Sequence[int]) -> None:
        """Do nothing: the rows are in memory."""

    def name(self, index: int) -> str:
        """Return the path of a row, if the dataset has it."""
        return self._names[index]

    def picture(self, index: int) -> bytes | Image.Image:
        """Return the bytes of a file, or an image. UnreadableError."""
        row = self._rows[index]
        if isinstance(row, Mapping):  # as Hugging Face stores images
            row = row.get("bytes")
        if isinstance(row, (bytes, bytearray, memoryview)):
            return bytes(row)
        return image_of_pixels(row)

    def version(self, index: int) -> None:
        """Return None: the content is looked at."""

    def stamps(self, indices: Sequence[int]) -> tuple[FileStamp, ...]:  # noqa: ARG002
        """Return no files."""
        return ()

    def labels(self, indices: Sequence[int], classes: int | None) -> DeclaredLabels | None:  # noqa: ARG002
        """Return None: calibration has no labels."""
        return None

    def close(self) -> None:
        """Do nothing."""


def image_of_pixels(row: Any) -> Image.Image:
    """Return an array of pixels as an image. UnreadableError where it is none."""
    from PIL import Image

    pixels: Array = np.asarray(row)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise UnreadableError(f"{pixels.dtype} {list(pixels.shape)} is neither a file nor pixels of 8 bits")
    return Image.fromarray(np.ascontiguousarray(pixels))


class RowArrays:
    """The rows of a batch as the inputs of a network, checked one by one."""

    def __init__(self, rows: Mapping[str, Array], inputs: Sequence[ModelInput], names: Sequence[str]) -> None:
        self.names = names
        self._rows, self._inputs = rows, inputs

    def load(self, index: int) -> Batch:
        """Return one row as the network's inputs, without batch axis. DataError."""
        axes = axes_of(self._inputs)
        batch = check_batch(
            {
                name: row if (axis := axes[name]) is None else np.expand_dims(row, axis)
                for name, row in self._row(index)
            },
            [i.with_free_batch() for i in self._inputs],
            self.names[index],
        )
        return {name: take_samples(array, axes[name], 0) for name, array in batch.items()}

    def digest(self, index: int) -> bytes:
        """Return the sha256 of a row."""
        return arrays_digest([row for _, row in sorted(self._row(index))])

    def stamps(self, chosen: range) -> tuple[FileStamp, ...]:  # noqa: ARG002
        """Return no files."""
        return ()

    def size(self, index: int) -> tuple[int, int]:
        """Return the width and the height of a row, as of an image [C, H, W]."""
        height, width = np.shape(next(iter(self._row(index)))[1])[-2:]
        return width, height

    def labels(self, classes: int | None) -> DeclaredLabels | None:  # noqa: ARG002
        """Return None: calibration has no labels."""
        return None

    def close(self) -> None:
        """Do nothing."""

    def _row(self, index: int) -> list[tuple[str, Array]]:
        return [(i.name, np.asarray(self._rows[i.name][index])) for i in self._inputs]


def open_rows(
    rows: Mapping[str, Array],
    columns: RowColumns,
    inputs: Sequence[ModelInput],
    spec: Preprocess,
    options: DataOptions,
) -> Feed:
    """Return some rows as a feed. DataError, PreprocessError."""
    count = len(rows[columns.names[0]])
    names, options = names_of_rows(rows, columns, count), replace(options, limit=count)
    if columns.image is not None:
        return open_store(RowPictures(list(rows[columns.image]), names), inputs, spec, options)[0]
    return SampleFeed(
        "array", RowArrays(rows, inputs, names),
        batch_size=options.batch_size or count, threads=1, axes=axes_of(inputs),
    )  # fmt: skip


def sample_of_kind(rows: Mapping[str, Array], column: str | None) -> Any:
    """Return data of the kind that rows hold, images or arrays, from which the preprocessing is chosen."""
    from PIL import Image

    if column is not None or image_columns(rows):
        return given_data([Image.new("L", (1, 1))])
    return [rows]


def names_of_rows(rows: Mapping[str, Any], columns: RowColumns, count: int) -> list[str]:
    """Return the names of the rows of a batch, each different."""
    if not columns.paths:
        return [f"row {number} of a batch" for number in range(count)]
    names = [str(name) for name in rows[columns.paths[0]]]
    if len(set(names)) < len(names):
        names = [f"{name} (row {number})" for number, name in enumerate(names)]
    return names

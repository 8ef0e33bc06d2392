"""Rows of arrays as samples: the network's inputs as they are, or images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.data.array_files import ArrayPlace, ArrayRows, HeldRows, open_arrays
from quantkit.data.batches import axes_of, check_batch, refuse_missing_inputs, take_samples
from quantkit.data.data_file import place_stamps
from quantkit.data.declared_labels import LABELS
from quantkit.data.feed import DigestMemory, arrays_digest, not_images
from quantkit.data.pixels import has_fractions, normalise, transform
from quantkit.errors import DataError, UnreadableError
from quantkit.preprocess import Preprocess
from quantkit.regular_file import FileStamp
from quantkit.values import Batch, ModelInput


def arrays_by_input(
    arrays: Mapping[str, ArrayRows], inputs: Sequence[ModelInput], where: str
) -> Mapping[str, ArrayRows]:
    """Return the array of every input, with its samples as rows: by name, or the only array there is. DataError."""
    alone = all(i.fixed_batch == 1 for i in inputs if i.batch_axis is not None and i.shape)
    named = match_arrays(arrays, inputs, where)
    return {i.name: rows_along_batch(named[i.name], i, alone, where) for i in inputs}


def match_arrays(arrays: Mapping[str, ArrayRows], inputs: Sequence[ModelInput], where: str) -> Mapping[str, ArrayRows]:
    """Return the array of every input as it is in the file. DataError."""
    if len(inputs) == 1 and inputs[0].name not in arrays:
        candidates = [name for name in arrays if name.lower() not in LABELS]
        if len(candidates) == 1:
            return {inputs[0].name: arrays[candidates[0]]}
    refuse_missing_inputs(arrays, inputs, where)
    return {i.name: arrays[i.name] for i in inputs}


class ArraySamples:
    """Chosen rows of the arrays of one file, as samples."""

    def __init__(
        self,
        path: ArrayPlace,
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
        axes = axes_of(self._inputs)
        batch = check_batch(
            {name: row if (axis := axes[name]) is None else np.expand_dims(row, axis) for name, row in rows.items()},
            [i.with_free_batch() for i in self._inputs],
            self.names[index],
        )
        return {name: take_samples(array, axes[name], 0) for name, array in batch.items()}

    def digest(self, index: int) -> bytes:
        """Return the sha256 of the row as it is in the file."""
        if self._digests.get(index) is None:
            self._read(index)
        return (self._digests.get(index) or [])[0]

    def stamps(self, chosen: range) -> tuple[FileStamp, ...]:
        """Return size and times of the file, and a digest of the chosen rows."""
        rows = hashlib.sha256(repr([self._indices[k] for k in chosen]).encode()).hexdigest()[:16]
        return place_stamps(self._path, f"{self._path.name} rows {rows}")

    def size(self, index: int) -> tuple[int, int]:
        """Raise DataError: the samples are no image files."""
        raise not_images(self.names[index])

    def labels(self, classes: int | None) -> None:
        """Return None: an array of labels is found by its name."""

    def close(self) -> None:
        """Close the file until the next row."""
        for rows in self._rows.values():
            rows.close()

    def _read(self, index: int) -> dict[str, NDArray[Any]]:
        found = {name: rows.row(self._indices[index]) for name, rows in self._rows.items()}
        self._digests.notice(index, [arrays_digest([found[name] for name in sorted(found)])], self.names[index])
        return found


def row_count(path: ArrayPlace, inputs: Sequence[ModelInput]) -> int:
    """Return the number of samples in the file. DataError where the arrays disagree."""
    found = arrays_by_input(open_arrays(path), inputs, str(path))
    rowed = {name: rows for name, rows in found.items() if not isinstance(rows, CommonRows)}
    lengths = {name: rows.shape[0] if rows.shape else 0 for name, rows in rowed.items()} or dict.fromkeys(found, 1)
    if len(set(lengths.values())) > 1:
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
    whole = np.dtype(spec.dtype or "float32").kind in "iu"
    if whole and row.dtype.kind == "f" and has_fractions(ordered, spec):
        raise UnreadableError(f"is {row.dtype}, and its values after preprocessing are fractions, not {spec.dtype}")
    return normalise(ordered, spec)


class CommonRows(HeldRows):
    """An array that belongs to every sample as a whole: each row of it is all of it."""

    def row(self, index: int) -> NDArray[Any]:  # noqa: ARG002 (every sample has the same)
        """Return the whole array."""
        return self.array


def rows_along_batch(rows: ArrayRows, wanted: ModelInput, alone: bool, where: str) -> ArrayRows:
    """Return the rows of an array as samples of an input: along its batch axis, or all of it for an input without one.

    alone: samples are fed one by one, so that an input without a batch axis may have a row for each. DataError.
    """
    axis = wanted.batch_axis if wanted.shape else None
    rank = len(rows.shape)
    if axis == 0 or (axis is None and alone and rank == len(wanted.shape) + 1):
        return rows
    if axis is not None and rank > axis:
        whole = np.moveaxis(rows.whole(), axis, 0)
        rows.close()
        return HeldRows(whole)
    if axis is not None or rank != len(wanted.shape):
        remedy = "save the array with as many dimensions"
        if axis is None:
            remedy = (
                f"{wanted.name!r} has no batch axis and belongs to every batch: save one array of this shape; if it "
                "changes, save a folder of .npz batches"
            )
        raise DataError(
            f"{where}: {wanted.name!r} is {rows.dtype} {list(rows.shape)}, but the model takes {wanted.describe()}",
            remedy=remedy,
        )
    common = CommonRows(rows.whole())
    rows.close()
    return common

"""Feeds of ready-made batches: a folder of `.npz` files, or any Python iterable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from quantkit.data.array_files import ArrayPlace, open_arrays
from quantkit.data.arrays import match_arrays
from quantkit.data.batches import axes_of, check_batch, samples_in, take_samples
from quantkit.data.data_file import place_stamps
from quantkit.data.declared_labels import LABELS
from quantkit.data.feed import DataIdentity, DigestMemory, Feed, Identifier, Portion, not_images, portion_digests
from quantkit.data.image_list import image_of, is_image
from quantkit.data.image_set import ImageSet
from quantkit.data.splitting import HoldoutPart
from quantkit.errors import DataError, QuantkitError
from quantkit.plugin import USER_ERRORS, describe_error, load_plugin, running_user_code, user_frames
from quantkit.regular_file import FileStamp
from quantkit.values import Array, Batch, ModelInput


class BatchFolderFeed:
    """A folder of `.npz` files that each hold one batch, in the order of their names."""

    kind = "batches"
    images: ImageSet | None = None

    def __init__(self, files: Sequence[ArrayPlace], inputs: Sequence[ModelInput], notes: tuple[str, ...] = ()) -> None:
        self._files, self._inputs = files, inputs
        self.samples: int | None = None
        self.batch_size: int | None = None
        self.unreadable: list[str] = []
        self.names: Sequence[str] | None = None
        self.positions: int | None = len(files)
        self.batches: int | None = len(files)
        self.notes = notes
        self._stamps: tuple[FileStamp, ...] | None = None
        self._digests = DigestMemory()

    def stamps(self) -> tuple[FileStamp, ...]:
        """Return size and times of every file at the first call."""
        if self._stamps is None:
            found = [place_stamps(place, place.name) for place in self._files]
            self._stamps = tuple(stamp for stamps in found for stamp in stamps) if all(found) else ()
        return self._stamps

    def identity(self) -> DataIdentity:
        """Return the identity by the content of every sample of every batch."""
        identifier = Identifier()
        for position in range(1, len(self._files) + 1):
            if self._digests.get(position) is None:
                self._read(position)
            if digests := self._digests.get(position):  # a file may hold no samples
                identifier.add(digests)
        return identifier.identity()

    def image_size(self, name: str) -> tuple[int, int]:
        """Raise DataError: the samples are no image files."""
        raise not_images(name)

    def declared(self, classes: int | None) -> None:
        """Return None: labels come with the batches."""

    def portions(self, start: int = 0) -> Iterator[Portion]:
        """Yield one portion per file; positions count files. DataError names the file, also one that changed."""
        for position in range(start + 1, len(self._files) + 1):
            portion = self._read(position)
            if portion.samples:
                yield portion

    def part(self, batches: range) -> Feed:
        """Return a feed of a run of these files alone."""
        return BatchFolderFeed(self._files[batches.start : batches.stop], self._inputs, self.notes)

    def _read(self, position: int) -> Portion:
        path = self._files[position - 1]
        stored = open_arrays(path)
        rows = match_arrays(stored, self._inputs, path.name)
        batch = check_batch({name: found.whole() for name, found in rows.items()}, self._inputs, path.name)
        count = samples_in(batch, self._inputs)
        given = {name: rows.whole() for name, rows in stored.items() if name.lower() in LABELS and count}
        labels = labels_in_mapping(given, self._inputs)
        names = tuple(f"{path.name}[{i}]" for i in range(count))
        portion = Portion(batch, names, position, labels, axes_of(self._inputs))
        self._digests.notice(position, portion_digests(portion), path.name)
        return portion


END = object()
MOST_EMPTY = 1000
"""Batches without samples in a row, after which an iterable is taken for one without end."""


class StreamFeed:
    """Batches from a Python iterable: mappings of arrays, arrays for a single input, or (inputs, labels) pairs.

    They are copied, because batches are kept while others are made, and a generator may reuse one array for all.
    """

    kind = "stream"
    images: ImageSet | None = None

    def __init__(
        self,
        source: Callable[[], Iterable[Any]],
        inputs: Sequence[ModelInput],
        limit: int | None,
        notes: tuple[str, ...] = (),
        part: HoldoutPart | None = None,
    ) -> None:
        self._source, self._inputs, self._limit, self._part = source, inputs, limit, part
        self.samples: int | None = None
        self.batch_size: int | None = None
        self.unreadable: list[str] = []
        self.names: Sequence[str] | None = None
        self.positions: int | None = None
        self.batches: int | None = None
        self.notes = notes

    def part(self, batches: range) -> Feed:
        """Raise DataError: how many batches there are is known only after the whole stream was read."""
        raise DataError(
            f"batches {batches.start} to {batches.stop - 1} of a stream cannot be read alone",
            remedy="save the batches as .npz files, and give their folder",
        )

    def stamps(self) -> tuple[FileStamp, ...]:
        """Return no files."""
        return ()

    def identity(self) -> DataIdentity | None:
        """Return None: the identity is known only after the whole stream was read."""
        return None

    def image_size(self, name: str) -> tuple[int, int]:
        """Raise DataError: the samples are no image files."""
        raise not_images(name)

    def declared(self, classes: int | None) -> None:
        """Return None: labels come with the batches."""

    def portions(self, start: int = 0) -> Iterator[Portion]:
        """Yield one portion per batch; positions count batches. Ends after `limit` samples, even within a batch."""
        taken, empty, axes = 0, 0, axes_of(self._inputs)
        mine = repeat(True) if self._part is None else self._part.members()
        for position, (item, own) in enumerate(zip(self._source(), mine, strict=False), 1):
            where = f"batch {position} of the stream"
            given, labels = read_item(item, self._inputs, where)
            fed = check_batch(given, self._inputs, where)
            batch: Batch = {name: np.array(array, order="C") for name, array in fed.items()}
            count = samples_in(batch, self._inputs)
            if self._limit is not None and taken + count > self._limit:
                if any(i.fixed_batch is not None for i in self._inputs):
                    return  # a batch of fixed size is never cut
                labels = None if labels is None or len(labels) != count else labels[: self._limit - taken]
                count = self._limit - taken
                batch = {n: take_samples(a, axes[n], slice(count)) for n, a in batch.items()}
            taken += count
            empty = 0 if count else empty + 1
            if empty == MOST_EMPTY:
                raise DataError(f"{where}: {MOST_EMPTY:,} batches in a row hold no samples", remedy="end the iterable")
            if count and own and position > start:
                yield Portion(batch, tuple(f"{where}, sample {i}" for i in range(count)), position, labels, axes)
            if self._limit is not None and taken >= self._limit:
                return


def guard_user_code(source: Callable[[], Iterable[Any]], name: str) -> Iterator[Any]:
    """Yield what code named on the command line yields; its exceptions become a DataError with batch and line.

    name: of that code, `module:callable`. Exceptions of iterables that a caller in Python passes are left unchanged.
    """
    position = 0
    try:
        with running_user_code():
            made = source()
        if not hasattr(made, "__iter__"):
            raise DataError(
                f"the data's callable returned a value of type {type(made).__name__}",
                remedy="return an iterable of batches, or yield them",
            )
        with running_user_code():
            batches = iter(made)
        while True:
            with running_user_code():
                item = next(batches, END)
            if item is END:
                return
            position += 1
            yield item
    except QuantkitError:
        raise
    except USER_ERRORS as error:
        raise DataError(
            f"batch {position + 1} of the stream: {describe_error(error)}",
            details=user_frames(error),
            remedy=f"fix the code that makes the batches: {name}",
        ) from error


def read_item(item: Any, inputs: Sequence[ModelInput], where: str) -> tuple[Batch, Array | None]:
    """Return the arrays by input and the labels in an item of an iterable. DataError, also for what is no array."""
    try:
        content, labels = split_labels(item, inputs)
        return as_batch(content, inputs, where), labels
    except QuantkitError:
        raise
    except USER_ERRORS as error:  # rows of different lengths, tensors on a GPU, objects of the user
        raise DataError(
            f"{where}: a value of type {type(item).__name__} cannot be read: {describe_error(error)}",
            remedy="yield numpy arrays",
        ) from error


def split_labels(item: Any, inputs: Sequence[ModelInput]) -> tuple[Any, Array | None]:
    """Return an item of an iterable as inputs and labels: `(inputs, labels)`, or labels by name in a mapping.

    Two arrays for two inputs are inputs.
    """
    if isinstance(item, Mapping):
        return item, labels_in_mapping(item, inputs)
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        return item, None
    if isinstance(item[0], Mapping):
        return item[0], as_labels(item[1])
    return (item[0], as_labels(item[1])) if len(inputs) == 1 else (item, None)


def as_labels(value: Any) -> Array | None:
    """Return labels as an array with a row for each sample; None if they are not labels."""
    try:
        array = np.array(value)
    except USER_ERRORS:  # rows of different lengths, tensors on a GPU
        return None
    return array if array.ndim and array.dtype.kind in "biufUS" else None


def labels_in_mapping(arrays: Mapping[str, Any], inputs: Sequence[ModelInput]) -> Array | None:
    """Return the array that has a name of labels and is not an input; None if there is not exactly one."""
    wanted = {i.name for i in inputs}
    found = [name for name in arrays if str(name).lower() in LABELS and name not in wanted]
    return as_labels(arrays[found[0]]) if len(found) == 1 else None


def as_batch(item: Any, inputs: Sequence[ModelInput], where: str) -> Batch:
    """Return the inputs in an item of an iterable by name. DataError."""
    if is_image(image_of(item)):
        raise DataError(
            f"{where} is an image or a path, and not a batch of arrays",
            remedy="give images as a list, which can be read again: list(…)",
        )
    if isinstance(item, Mapping):
        return match_single_input({str(name): np.asarray(array) for name, array in item.items()}, inputs)
    if isinstance(item, (tuple, list)) and len(inputs) == 1 and len(item) == 2:
        return {inputs[0].name: np.asarray(item[0])}
    if isinstance(item, (tuple, list)) and len(item) == len(inputs):
        return {i.name: np.asarray(array) for i, array in zip(inputs, item, strict=True)}
    if len(inputs) == 1 and hasattr(item, "__array__"):
        return {inputs[0].name: np.asarray(item)}
    names = ", ".join(i.name for i in inputs)
    raise DataError(
        f"{where} is of type {type(item).__name__}",
        remedy=f"yield a mapping from input name ({names}) to array, or an array where there is one input",
    )


def match_single_input(arrays: Mapping[str, Any], inputs: Sequence[ModelInput]) -> Batch:
    """Return the arrays under the inputs' names; a single array is that of a single input."""
    if len(inputs) == 1 and inputs[0].name not in arrays:
        candidates = [name for name in arrays if name.lower() not in LABELS]
        if len(candidates) == 1:
            return {inputs[0].name: arrays[candidates[0]]}
    return arrays


def load_callable(text: str) -> Callable[[], Iterable[Any]]:
    """Import `module:callable`, also from the working directory, and guard it. UsageError."""
    found: Callable[[], Iterable[Any]] = load_plugin(
        text,
        option="--data",
        remedies=(
            "give a path that exists, or module:callable with the module in this directory or installed",
            "name a function that returns an iterable of batches",
        ),
    )
    return lambda: guard_user_code(found, text)

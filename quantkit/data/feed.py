"""The seam of feeds: the chosen samples of a data set as batches in a fixed order, and their identity."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quantkit.data.batches import batch_axis_of, take_samples
from quantkit.data.declared_labels import DeclaredLabels
from quantkit.data.image_set import ImageSet
from quantkit.errors import DataError
from quantkit.regular_file import FileStamp
from quantkit.values import Batch

MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class DataIdentity:
    """The identity of data: `content` depends only on the samples, `order` also on their sequence and batches.

    heads: the first 64 bits of the digest of every sample, in order, without those that a pass skipped; None if the
    samples were not read. chain: the bytes whose sha256 is `order`, so that the order of parts can be computed; empty
    if the samples were not read.
    """

    content: str
    order: str
    samples: int
    heads: tuple[int, ...] | None = field(default=None, compare=False, repr=False)
    chain: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Portion:
    """One batch of a feed: the arrays, the names of its samples, and the position after it in the feed.

    labels: labels that the source provides, a row for each sample; None if it provides none. axes: the batch axis of
    each input, None for one that belongs to every batch as a whole; those that are not named have axis 0.
    """

    batch: Batch
    names: tuple[str, ...]
    stop: int
    labels: NDArray[Any] | None = None
    axes: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """The number of samples (images) in the batch."""
        return len(self.names)

    def sample_of(self, broken: NDArray[np.bool_]) -> str:
        """Return the first sample for which a value of an output is marked; roughly, where axis 0 is not the batch."""
        if broken.ndim and len(broken) == self.samples:
            return self.names[int(np.argmax(broken.reshape(len(broken), -1).any(axis=1)))]
        return f"{self.names[0]} or another sample of its batch"


class Feed(Protocol):
    """The chosen samples of a data set, ready to be streamed as often as needed."""

    kind: str
    """`images`, `array`, `batches` or `stream`."""
    samples: int | None
    """The number of samples; None if it is only known after reading all of them."""
    batch_size: int | None
    """Samples in a full batch; None if the source decides."""
    notes: tuple[str, ...]
    """Remarks for the user about the choice of samples."""
    names: Sequence[str] | None
    """The names of all samples, in order; None if they are only known after reading all of them."""
    positions: int | None
    """The last position of a portion; None if it is only known after reading all of them."""
    batches: int | None
    """The number of batches if nothing is left out; None if it is only known after reading all of them."""
    images: ImageSet | None
    """The images and what their data set declares; None for other data."""

    @property
    def unreadable(self) -> list[str]:
        """The samples that were skipped on request (`skip_corrupt`), with the reason."""

    def stamps(self) -> tuple[FileStamp, ...]:
        """Return the files of the chosen samples, in order, as they were at the first call; empty if there are none."""

    def identity(self) -> DataIdentity | None:
        """Return the identity by content; None if it is only known after reading all samples (see `Identifier`).

        A sample that was read already is not read again.
        """

    def portions(self, start: int = 0) -> Iterator[Portion]:
        """Yield batches from position `start` on. DataError names the faulty sample, also one that changed since it was
        first read."""

    def part(self, batches: range) -> Feed:
        """Return a feed of a run of these batches alone. DataError where batches are only known after reading them."""

    def image_size(self, name: str) -> tuple[int, int]:
        """Return width and height of an image in its upright orientation, before it was resized. DataError."""

    def declared(self, classes: int | None) -> DeclaredLabels | None:
        """Return the labels in the files of the samples, in order; None if they cannot have any. DataError.

        classes: how many the network has.
        """


def describe_left_out(unreadable: Collection[str]) -> tuple[str, ...]:
    """Return a note on the number of samples that were skipped on request; empty if there are none."""
    count = len(unreadable)
    skipped = "1 sample cannot be read and was" if count == 1 else f"{count} samples cannot be read and were"
    return (f"{skipped} left out",) if count else ()


class Identifier:
    """An accumulator of the identity of a data set: a sum of digests without an order, and a chain with one."""

    def __init__(self) -> None:
        self._sum = 0
        self._hash, self._chain = hashlib.sha256(), bytearray()
        self._heads: list[int] = []

    def add(self, digests: Sequence[bytes]) -> None:
        """Add the sha256 digests of one batch of samples, in order."""
        for digest in digests:
            self._sum = (self._sum + int.from_bytes(digest, "big")) % MODULUS
        link = b"".join([*digests, b"|"])
        self._hash.update(link)
        self._chain += link
        self._heads += [int.from_bytes(digest[:8], "big") for digest in digests]

    @property
    def order(self) -> str:
        """The digest of the samples so far in order, batch by batch."""
        return self._hash.hexdigest()

    def identity(self) -> DataIdentity:
        """Return the identity of everything that was added."""
        heads, chain = tuple(self._heads), bytes(self._chain)
        return DataIdentity(format(self._sum, "064x"), self.order, len(heads), heads, chain)


class DigestMemory:
    """The digests of samples as they were first read, by position: what is read later has to be the same."""

    def __init__(self) -> None:
        self._known: dict[int, list[bytes]] = {}

    def get(self, position: int) -> list[bytes] | None:
        """Return the digests of the samples at a position; None if they were not read yet."""
        return self._known.get(position)

    def notice(self, position: int, digests: list[bytes], name: str) -> None:
        """Take the digests of what was read. DataError where it was read before and has changed."""
        if self._known.setdefault(position, digests) != digests:
            raise changed_data(name)


def changed_data(what: str) -> DataError:
    """Return the error for data that changed while it was in use."""
    return DataError(f"{what} changed during the run", remedy="start again when nothing writes to the data any more")


def not_images(name: str) -> DataError:
    """Return the error for samples that are no image files, and have no size."""
    return DataError(f"{name} is no image file", remedy="give image files")


def identity_as_read(feed: Feed, expected: DataIdentity) -> DataIdentity:
    """Return the identity of what a pass read from a feed. DataError unless it is the expected one."""
    found = feed.identity() or expected
    if found != expected:
        raise changed_data("the data")
    return found


MANY_BYTES, HASHING = 1 << 22, 8
"""Bytes from which several threads hash a batch, and how many: a GPU takes batches faster than one core hashes them."""


def arrays_digest(arrays: Sequence[NDArray[Any]]) -> bytes:
    """Return the sha256 over dtype, shape and values of the arrays of one sample."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def portion_digests(portion: Portion) -> list[bytes]:
    """Return a digest for every sample of a portion."""
    names, count = sorted(portion.batch), portion.samples
    axes = {name: batch_axis_of(portion.batch[name], portion.axes.get(name, 0), count) for name in names}

    def digest(i: int) -> bytes:
        return arrays_digest([take_samples(portion.batch[name], axes[name], i) for name in names])

    if sum(array.nbytes for array in portion.batch.values()) < MANY_BYTES:
        return [digest(i) for i in range(count)]
    with ThreadPoolExecutor(min(HASHING, count), "quantkit-hash") as pool:
        return list(pool.map(digest, range(count)))

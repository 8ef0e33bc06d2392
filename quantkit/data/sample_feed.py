"""A feed of samples that are loaded one by one, ahead in threads."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from quantkit.data.batches import stack_samples
from quantkit.data.declared_labels import DeclaredLabels
from quantkit.data.feed import DataIdentity, Feed, Identifier, Portion
from quantkit.data.image_set import ImageSet
from quantkit.errors import DataError, UnreadableError
from quantkit.regular_file import FileStamp
from quantkit.values import Batch

LEFT_OUT = hashlib.sha256(b"left out").digest()
"""Stands for a sample that cannot be read, in the identity of data of which such samples are left out."""


class SampleSource(Protocol):
    """Chosen samples that can be loaded one by one: image files, rows of arrays."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the samples, for errors."""

    def load(self, index: int) -> Batch:
        """Return one sample as the network's inputs, without batch axis. UnreadableError; DataError, also where its
        digest is not that of an earlier call of `load` or `digest`."""

    def digest(self, index: int) -> bytes:
        """Return the sha256 of one sample as it was stored when it was first read. UnreadableError, DataError."""

    def stamps(self, chosen: range) -> tuple[FileStamp, ...]:
        """Return size and times of the files of chosen samples."""

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height of an image in its upright orientation. UnreadableError, DataError."""

    def labels(self, classes: int | None) -> DeclaredLabels | None:
        """Return the labels that lie in the same files; None if there can be none. DataError."""

    def close(self) -> None:
        """Close files until the next sample."""


class SampleRange:
    """A run of the samples of a source, numbered from 0."""

    def __init__(self, source: SampleSource, chosen: range) -> None:
        self.names = source.names[chosen.start : chosen.stop]
        self._source, self._chosen = source, chosen

    def load(self, index: int) -> Batch:
        """Return one sample. UnreadableError, DataError."""
        return self._source.load(self._chosen[index])

    def digest(self, index: int) -> bytes:
        """Return the sha256 of one sample. UnreadableError, DataError."""
        return self._source.digest(self._chosen[index])

    def stamps(self, chosen: range) -> tuple[FileStamp, ...]:
        """Return size and times of the files."""
        return self._source.stamps(self._chosen[chosen.start : chosen.stop])

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height of an image in its upright orientation. UnreadableError, DataError."""
        return self._source.size(self._chosen[index])

    def labels(self, classes: int | None) -> DeclaredLabels | None:
        """Return the labels of the run. DataError."""
        found = self._source.labels(classes)
        return found and replace(found, values=found.values[self._chosen.start : self._chosen.stop])

    def close(self) -> None:
        """Close files until the next sample."""
        self._source.close()


class SampleFeed:
    """A feed of samples in batches, loaded ahead in threads.

    full_batches: the model has a fixed batch size; if samples are skipped, the last ones may not fill a batch. axes: as
    in `Portion`.
    """

    def __init__(
        self,
        kind: str,
        samples: SampleSource,
        *,
        batch_size: int,
        threads: int,
        skip_corrupt: bool = False,
        full_batches: bool = False,
        notes: tuple[str, ...] = (),
        axes: Mapping[str, int | None] | None = None,
        images: ImageSet | None = None,
    ) -> None:
        self.kind, self.images = kind, images
        self._axes = axes or {}
        self.samples: int | None = len(samples.names)
        self.batch_size: int | None = batch_size
        self.unreadable: list[str] = []
        self.notes = notes
        self.names: Sequence[str] | None = samples.names
        self.positions: int | None = len(samples.names)
        self.batches: int | None = -(-len(samples.names) // batch_size)
        self._source, self._names = samples, samples.names
        self._stamps: tuple[FileStamp, ...] | None = None
        self._size, self._threads, self._skip_corrupt = batch_size, threads, skip_corrupt
        self._full_batches = full_batches
        self._places: dict[str, int] = {}

    def stamps(self) -> tuple[FileStamp, ...]:
        """Return size and times of the files at the first call."""
        if self._stamps is None:
            self._stamps = self._source.stamps(range(len(self._names)))
        return self._stamps

    def image_size(self, name: str) -> tuple[int, int]:
        """Return width and height of an image in its upright orientation, before it was resized. DataError."""
        if not self._places:
            self._places.update((known, index) for index, known in enumerate(self._names))
        try:
            return self._source.size(self._places[name])
        except UnreadableError as error:
            raise DataError(f"{name}: {error}", remedy="fix or remove the file") from None

    def declared(self, classes: int | None) -> DeclaredLabels | None:
        """Return the labels in the files of the samples; None if they cannot have any. DataError."""
        return self._source.labels(classes)

    def identity(self) -> DataIdentity:
        """Return the identity by content; decodes nothing. DataError names the unreadable."""
        identifier = Identifier()
        with ThreadPoolExecutor(self._threads, "quantkit-hash") as pool:
            try:
                found = list(pool.map(self._digest, range(len(self._names))))
            finally:
                pool.shutdown(cancel_futures=True)
                self._source.close()
        faults = [fault for _, fault in found if fault]
        if faults and not self._skip_corrupt:
            raise unreadable_samples(faults, len(self._names))
        for start in range(0, len(found), self._size):
            identifier.add([digest for digest, _ in found[start : start + self._size]])
        identity = identifier.identity()
        skipped = names_left_out(self.unreadable, frozenset(self._names))
        heads = zip(self._names, identity.heads or (), strict=True)
        return replace(identity, heads=tuple(head for name, head in heads if name not in skipped))

    def _digest(self, index: int) -> tuple[bytes, str]:
        """Return the digest of one sample, and why it cannot be read: nothing if it can."""
        try:
            return self._source.digest(index), ""
        except UnreadableError as error:
            return LEFT_OUT, f"{self._names[index]}: {error}"

    def portions(self, start: int = 0) -> Iterator[Portion]:
        """Yield full batches from sample `start` on, and a last one that may be smaller."""
        if start == 0:
            self.unreadable.clear()
        batch: list[Batch] = []
        names: list[str] = []
        position = start
        for name, sample in self._loaded(start):
            position += 1
            if sample is not None:
                batch.append(sample)
                names.append(name)
            if len(batch) == self._size:
                yield Portion(stack_samples(batch, self._axes), tuple(names), position, axes=self._axes)
                batch, names = [], []
        if batch and self._full_batches:
            self.unreadable += [f"{name}: left out, the last {len(batch)} do not fill a batch" for name in names]
        elif batch:
            yield Portion(stack_samples(batch, self._axes), tuple(names), position, axes=self._axes)

    def part(self, batches: range) -> Feed:
        """Return a feed of a run of these batches alone."""
        chosen = range(batches.start * self._size, min(batches.stop * self._size, len(self._names)))
        return SampleFeed(
            self.kind, SampleRange(self._source, chosen),
            batch_size=self._size, threads=self._threads, skip_corrupt=self._skip_corrupt,
            full_batches=self._full_batches, notes=self.notes, axes=self._axes, images=self.images,
        )  # fmt: skip

    def _loaded(self, start: int) -> Iterator[tuple[str, Batch | None]]:
        """Yield every sample in order; None for one that is skipped."""
        ahead = 2 * self._threads + self._size
        pending: deque[tuple[int, Future[Batch]]] = deque()
        pool = ThreadPoolExecutor(self._threads, "quantkit-decode")
        try:
            upcoming = iter(range(start, len(self._names)))
            while True:
                for index in upcoming:
                    pending.append((index, pool.submit(self._load, index)))
                    if len(pending) >= ahead:
                        break
                if not pending:
                    return
                index, future = pending.popleft()
                try:
                    yield self._names[index], future.result()
                except UnreadableError as error:
                    if not self._skip_corrupt:
                        raise self._all_unreadable(index, str(error), pool) from None
                    self.unreadable.append(f"{self._names[index]}: {error}")
                    yield self._names[index], None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self._source.close()

    def _load(self, index: int) -> Batch:
        """Return one sample. UnreadableError, also where memory does not suffice."""
        try:
            return self._source.load(index)
        except MemoryError:
            raise UnreadableError("it does not fit into memory") from None

    def _all_unreadable(self, first: int, reason: str, pool: ThreadPoolExecutor) -> DataError:
        """Return one error that names every unreadable sample, not only the first."""

        def fault(index: int) -> str | None:
            try:
                self._load(index)
            except UnreadableError as error:
                return f"{self._names[index]}: {error}"
            return None

        rest = pool.map(fault, range(first + 1, len(self._names)))
        faults = [f"{self._names[first]}: {reason}", *(text for text in rest if text)]
        return unreadable_samples(faults, len(self._names))


def unreadable_samples(faults: Sequence[str], count: int) -> DataError:
    """Return the error for samples that cannot be read, out of `count`."""
    more = [f"… and {len(faults) - 20} more"] if len(faults) > 20 else []
    return DataError(
        f"{len(faults)} of {count} samples cannot be read",
        details=[*faults[:20], *more],
        remedy="fix or remove them, or leave them out with --skip-corrupt",
    )


def names_left_out(unreadable: Iterable[str], names: Collection[str]) -> frozenset[str]:
    """Return the names of skipped samples, from texts of the form `name: reason`."""
    found = set[str]()
    for parts in (text.split(": ") for text in unreadable):  # a name may contain the separator
        prefixes = (": ".join(parts[:count]) for count in range(1, len(parts)))
        found.update(name for name in prefixes if name in names)
    return frozenset(found)

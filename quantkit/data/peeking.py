"""Feeds that are looked at while they are read: the first batch in advance, the first few by the preflight check."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from quantkit.data import DataIdentity, Feed, Portion, preflight
from quantkit.data.declared_labels import DeclaredLabels
from quantkit.data.preflight import WATCHED
from quantkit.preprocess import Preprocess
from quantkit.regular_file import FileStamp


class PeekedFeed:
    """A feed whose first portion is available in advance, without decoding it twice."""

    def __init__(self, feed: Feed) -> None:
        self._feed, self._ahead = feed, feed.portions()
        self.kind, self.samples, self.batch_size = feed.kind, feed.samples, feed.batch_size
        self.notes, self.names, self.positions = feed.notes, feed.names, feed.positions
        self.batches, self.images = feed.batches, feed.images
        self.first: Portion | None = next(self._ahead, None)
        self._fresh = True

    @property
    def unreadable(self) -> list[str]:
        """Samples that were skipped."""
        return self._feed.unreadable

    def stamps(self) -> tuple[FileStamp, ...]:
        """Return the files of the feed."""
        return self._feed.stamps()

    def identity(self) -> DataIdentity | None:
        """Return the identity of the samples."""
        return self._feed.identity()

    def image_size(self, name: str) -> tuple[int, int]:
        """Return width and height of an image before it was resized."""
        return self._feed.image_size(name)

    def declared(self, classes: int | None) -> DeclaredLabels | None:
        """Return the labels in the files of the samples."""
        return self._feed.declared(classes)

    def portions(self, start: int = 0) -> Iterator[Portion]:
        """Yield batches from position `start` on; the first pass begins with the portion that was read in advance."""
        if start or not self._fresh or self.first is None:
            yield from self._feed.portions(start)
            return
        self._fresh = False
        yield self.first
        yield from self._ahead

    def part(self, batches: range) -> Feed:
        """Return a feed of a run of these batches alone."""
        return self._feed.part(batches)

    def close(self) -> None:
        """Stop decoding ahead."""
        close: Callable[[], None] | None = getattr(self._ahead, "close", None)
        if close:
            close()


class DataWatcher:
    """A watcher that keeps the first batches for the preflight check."""

    def __init__(self, spec: Preprocess | None) -> None:
        self._spec = spec
        self._portions: list[Portion] = []
        self._looked = False
        self.warnings: tuple[str, ...] = ()

    def see(self, portion: Portion) -> None:
        """Take a batch."""
        if not self._looked:
            self._portions.append(portion)
            if len(self._portions) == WATCHED:
                self.look()

    def look(self) -> None:
        """Check the batches that were kept; called at the end of the data at the latest."""
        if not self._looked:
            self.warnings = preflight(self._portions, self._spec)
            self._portions.clear()
            self._looked = True

"""TODO docstring."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from quantkit.data import DataIdentity, Feed, FileStamp, Portion, preflight
from quantkit.data.preflight import WATCHED
from quantkit.preprocess import Preprocess
from quantkit.values import Batch


class PeekedFeed:
    """A feed whose first portion was looked at, and is not decoded again for it."""

    def __init__(self, feed: Feed) -> None:
        self._feed, self._ahead = feed, feed.portions()
        self.kind, self.samples, self.batch_size = feed.kind, feed.samples, feed.batch_size
        self.notes, self.names = feed.notes, feed.names
        self.first: Portion | None = next(self._ahead, None)
        self._fresh = True

    @property
    def unreadable(self) -> list[str]:
        """Samples that were left out."""
        return self._feed.unreadable

    def stamps(self) -> tuple[FileStamp, ...]:
        """The files behind it."""
        return self._feed.stamps()

    def identity(self) -> DataIdentity | None:
        """The identity of the samples."""
        return self._feed.identity()

    def portions(self, start: int = 0) -> Iterator[Portion]:
        """Batches from position `start` on; the first pass goes on where the look ended."""
        if start or not self._fresh or self.first is None:
            yield from self._feed.portions(start)
            return
        self._fresh = False
        yield self.first
        yield from self._ahead

    def close(self) -> None:
        """Stop decoding ahead."""
        close: Callable[[], None] | None = getattr(self._ahead, "close", None)
        if close:
            close()


class DataWatcher:
    """Keeps the first batches until the preflight has looked at them."""

    def __init__(self, spec: Preprocess | None) -> None:
        self._spec = spec
        self._batches: list[Batch] = []
        self._looked = False
        self.warnings: tuple[str, ...] = ()

    def see(self, portion: Portion) -> None:
        """A batch goes by."""
        if not self._looked:
            self._batches.append(portion.batch)
            if len(self._batches) == WATCHED:
                self.look()

    def look(self) -> None:
        """Run the preflight on what was kept; at the end of the data at the latest."""
        if not self._looked:
            self.warnings = preflight(self._batches, self._spec)
            self._batches.clear()
            self._looked = True

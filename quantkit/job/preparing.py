"""Which preprocessing is used, and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantkit.data import DataIdentity, Feed, FileStamp, Portion, preflight
from quantkit.data.preflight import WATCHED
from quantkit.graph import Model
from quantkit.preprocess import PRESETS, Preprocess, load_preprocess, metadata_preprocess
from quantkit.values import Batch

BESIDE = "preprocess.toml"


@dataclass(frozen=True, slots=True)
class ChosenSpec:
    """The spec, where it came from, and what was applied after size, layout and dtype were filled in."""

    spec: Preprocess
    source: str
    warning: str | None = None
    applied: Preprocess | None = None

    def with_applied(self, applied: Preprocess | None) -> ChosenSpec:
        """The same choice with what was applied; a warning about images is void where none are decoded."""
        return replace(self, applied=applied, warning=self.warning if applied else None)

    @property
    def document(self) -> dict[str, Any] | None:
        """What was applied, for the record; None where arrays pass unchanged."""
        return None if self.applied is None else self.applied.model_dump(mode="json")


def choose_spec(asked: str | Path | Preprocess | None, model: Model, data: Any) -> ChosenSpec:
    """What the user asked for, else `preprocess.toml` beside the model, else the model's metadata, else a default.

    The default is `raw` for arrays, batches and streams, and `unit` with a warning for images.
    """
    if isinstance(asked, Preprocess):
        return ChosenSpec(asked, "given")
    if asked is not None:
        return ChosenSpec(load_preprocess(asked), f"--preprocess {Path(str(asked)).name}")
    if not feeds_images(data):
        return ChosenSpec(PRESETS["raw"], "arrays are fed as they are")
    beside = model.path.parent / BESIDE
    if beside.exists():
        return ChosenSpec(load_preprocess(beside), f"{BESIDE} beside the model")
    if told := metadata_preprocess(model.metadata):
        return ChosenSpec(told, "the model's metadata")
    return ChosenSpec(
        PRESETS["unit"],
        "default",
        "no preprocessing is known for this network: pixels are divided by 255 (unit); "
        f"if it was trained otherwise, say so with --preprocess ({', '.join(PRESETS)}, or a .toml file)",
    )


def feeds_images(data: Any) -> bool:
    """Whether `data` names images rather than arrays, batches or a stream."""
    if not isinstance(data, (str, os.PathLike)):
        return False
    path = Path(data)
    return (
        path.suffix not in (".npy", ".npz")
        and path.exists()
        and not (path.is_dir() and any(not p.name.startswith(".") for p in path.glob("*.npz")))
    )


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

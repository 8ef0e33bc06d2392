"""The seam between the places where pictures lie and the rest: a store of pictures, and the chosen ones as samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from quantkit.data.declared_labels import DeclaredLabels
from quantkit.data.feed import DigestMemory
from quantkit.data.pixels import sized_pixels, to_input_array, transform, turn_upright
from quantkit.errors import QuantkitError, UnreadableError, first_line
from quantkit.image_file import upright_size
from quantkit.preprocess import Preprocess
from quantkit.regular_file import FileStamp
from quantkit.values import Array, Batch

if TYPE_CHECKING:
    from PIL import Image

Picture: TypeAlias = "bytes | Image.Image"
"""The bytes of an image file, or a decoded image."""


class PictureStore(Protocol):
    """All pictures of a data set, in a fixed order."""

    count: int
    notes: tuple[str, ...]
    """Remarks for the user."""

    def plan(self, indices: Sequence[int]) -> None:
        """Prepare reading these pictures, in about this order."""

    def name(self, index: int) -> str:
        """Return the name of a picture, which no other has: file, member, row or frame."""

    def picture(self, index: int) -> Picture:
        """Return a picture. UnreadableError where it is damaged; DataError where its place cannot be read at all."""

    def version(self, index: int) -> bytes | None:
        """Return a sha256 that changes with the content of a picture, known without reading it; None if the content
        itself has to be read for it."""

    def stamps(self, indices: Sequence[int]) -> tuple[FileStamp, ...]:
        """Return the stamps of the files of these pictures; empty where they have none. DataError."""

    def labels(self, indices: Sequence[int], classes: int | None) -> DeclaredLabels | None:
        """Return the labels of these pictures; None if this kind of store has none. DataError.

        classes: how many the network has, which decides between several kinds of labels.
        """

    def close(self) -> None:
        """Close files until the next picture."""


class PictureSamples:
    """Chosen pictures of a store as samples: decoded for the network, identified, and the same when read again."""

    def __init__(self, store: PictureStore, indices: Sequence[int], input_name: str, spec: Preprocess) -> None:
        self.names: Sequence[str] = [store.name(index) for index in indices]
        self._store, self._indices, self._input, self._spec = store, indices, input_name, spec
        self._contents = DigestMemory()
        self._sizes: dict[int, tuple[int, int]] = {}
        store.plan(indices)

    def load(self, index: int) -> Batch:
        """Return one picture as the network's input, without batch axis. UnreadableError, DataError."""
        picture = self._store.picture(self._indices[index])
        self._contents.notice(index, [picture_digest(picture)], self.names[index])
        found, self._sizes[index] = decoded(picture, self._spec)
        return {self._input: found}

    def digest(self, index: int) -> bytes:
        """Return the sha256 of the picture, or of its version. UnreadableError, DataError."""
        known = self._store.version(self._indices[index])
        if known is not None:
            return known
        if self._contents.get(index) is None:
            picture = self._store.picture(self._indices[index])
            self._contents.notice(index, [picture_digest(picture)], self.names[index])
        return (self._contents.get(index) or [])[0]

    def stamps(self, chosen: range) -> tuple[FileStamp, ...]:
        """Return size and times of the files of chosen pictures."""
        return self._store.stamps([self._indices[k] for k in chosen])

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height of a picture in its upright orientation. UnreadableError, DataError."""
        if index not in self._sizes:
            picture = self._store.picture(self._indices[index])
            self._sizes[index] = upright_size(picture) if isinstance(picture, bytes) else turn_upright(picture).size
        return self._sizes[index]

    def labels(self, classes: int | None) -> DeclaredLabels | None:
        """Return the labels that lie in the same files; None if there can be none. DataError."""
        return self._store.labels(self._indices, classes)

    def close(self) -> None:
        """Close files until the next picture."""
        self._store.close()


def decoded(picture: Picture, spec: Preprocess) -> tuple[Array, tuple[int, int]]:
    """Convert a picture to the input array of one sample, and return its upright width and height. UnreadableError."""
    if isinstance(picture, bytes):
        pixels, size = sized_pixels(picture, spec)
        return to_input_array(pixels, spec), size
    try:
        upright = turn_upright(picture)
        return transform(upright, spec), upright.size
    except (UnreadableError, QuantkitError):
        raise
    except Exception as error:  # a file behind it that is damaged or closed; Pillow raises many kinds
        raise UnreadableError(first_line(error)) from None


def picture_digest(picture: Picture) -> bytes:
    """Return the sha256 of the bytes of a file; of an image in memory over mode, size and pixels. UnreadableError."""
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).digest()
    try:
        image = picture.convert("RGBA") if picture.mode in ("P", "PA") else picture
        return hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).digest()
    except Exception as error:  # as in `decoded`
        raise UnreadableError(first_line(error)) from None

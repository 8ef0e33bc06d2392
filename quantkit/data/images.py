"""Chosen images of a folder as samples, and their stamps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from quantkit.data.feed import DigestMemory
from quantkit.data.pixels import decode
from quantkit.errors import DataError
from quantkit.image_file import image_file_digest, read_image_file
from quantkit.preprocess import Preprocess
from quantkit.regular_file import FileStamp, stamp_of
from quantkit.values import Batch


class ImageSamples:
    """Chosen images of a folder, which are loaded, identified and stamped by index."""

    def __init__(self, root: Path, names: Sequence[str], input_name: str, spec: Preprocess) -> None:
        self.names = names
        self._root, self._input, self._spec = root, input_name, spec
        self._digests = DigestMemory()

    def load(self, index: int) -> Batch:
        """Return one image as the network's input, without batch axis. UnreadableError."""
        content = read_image_file(self._root / self.names[index])
        self._digests.notice(index, [hashlib.sha256(content).digest()], self.names[index])
        return {self._input: decode(content, self._spec)}

    def digest(self, index: int) -> bytes:
        """Return the sha256 of the file. UnreadableError."""
        known = self._digests.get(index)
        if known is None:
            known = [image_file_digest(self._root / self.names[index])]
            self._digests.notice(index, known, self.names[index])
        return known[0]

    def stamps(self, chosen: range) -> tuple[FileStamp, ...]:
        """Return size and times of the files of chosen images."""
        return tuple(stamp_file(self._root / name, name) for name in (self.names[index] for index in chosen))

    def close(self) -> None:
        """Do nothing: every file is closed after reading."""


def stamp_file(path: Path, name: str) -> FileStamp:
    """Return the stamp of one file. DataError where it is gone."""
    try:
        return stamp_of(path, name)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", remedy="check the path") from None

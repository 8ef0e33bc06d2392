"""Image files one by one: objects under URLs, or the paths and URLs of a list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantkit.data.data_file import DataFile
from quantkit.data.declared_labels import DeclaredLabels
from quantkit.data.feed import changed_data
from quantkit.data.pictures.name_classes import labels_in_names
from quantkit.errors import UnreadableError
from quantkit.image_file import LARGEST_FILE, read_image_file
from quantkit.locations import read_object
from quantkit.regular_file import FileStamp


class ImageObjects:
    """Image files by their names; the first folder in a name is the class, if every name has one."""

    notes: tuple[str, ...] = ()

    def __init__(self, files: Sequence[DataFile], source: str) -> None:
        self.count = len(files)
        self._files, self._source = files, source

    def name(self, index: int) -> str:
        """Return the name relative to the data set."""
        return self._files[index].name

    def plan(self, indices: Sequence[int]) -> None:
        """Do nothing: every object is read by itself."""

    def picture(self, index: int) -> bytes:
        """Return the bytes of an object. UnreadableError where it is too large for an image; DataError."""
        file = self._files[index]
        if file.size is not None and file.size > LARGEST_FILE:
            raise UnreadableError(f"larger than {LARGEST_FILE / 2**20:g} MiB")
        if not file.is_remote:
            return read_image_file(Path(file.place))
        content = read_object(file.place)
        if file.size is not None and len(content) != file.size:
            raise changed_data(file.place)
        return content

    def version(self, index: int) -> bytes | None:
        """Return the sha256 of size and version of the object; None if its store names no version."""
        return self._files[index].identify("")

    def stamps(self, indices: Sequence[int]) -> tuple[FileStamp, ...]:
        """Return size and version of every object; empty if the store does not name them."""
        return known_stamps([self._files[i] for i in indices])

    def labels(self, indices: Sequence[int], classes: int | None) -> DeclaredLabels | None:  # noqa: ARG002
        """Return the first folders in the names as classes; None if there are none."""
        return labels_in_names([file.name for file in self._files], indices, self._source)

    def close(self) -> None:
        """Do nothing: nothing stays open."""


def known_stamps(files: Sequence[DataFile]) -> tuple[FileStamp, ...]:
    """Return the stamps of files; empty if one has none."""
    stamps = [file.stamp for file in files if file.stamp is not None]
    return tuple(stamps) if len(stamps) == len(files) else ()

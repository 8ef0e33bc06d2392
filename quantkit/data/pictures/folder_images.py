"""Image files of a folder on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantkit.data.data_file import stamp_file
from quantkit.data.declared_labels import DeclaredLabels
from quantkit.image_file import read_image_file
from quantkit.regular_file import FileStamp


class FolderImages:
    """The images below a folder, by their names relative to it. Their labels are found by others, beside them."""

    notes: tuple[str, ...] = ()

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.count = len(names)
        self._root, self._names = root, names

    def name(self, index: int) -> str:
        """Return the path relative to the folder."""
        return self._names[index]

    def picture(self, index: int) -> bytes:
        """Return the bytes of a file. UnreadableError."""
        return read_image_file(self._root / self._names[index])

    def plan(self, indices: Sequence[int]) -> None:
        """Do nothing: every file is read by itself."""

    def version(self, index: int) -> None:
        """Return None: files on this machine are identified by their content."""

    def stamps(self, indices: Sequence[int]) -> tuple[FileStamp, ...]:
        """Return size and times of every file. DataError where one is gone."""
        return tuple(stamp_file(self._root / self._names[i], self._names[i]) for i in indices)

    def labels(self, indices: Sequence[int], classes: int | None) -> DeclaredLabels | None:  # noqa: ARG002
        """Return None: they lie in other files."""
        return None

    def close(self) -> None:
        """Do nothing: every file is closed after reading."""

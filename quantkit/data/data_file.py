"""A file of a data set: on this machine, or an object under a URL."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, BinaryIO

from quantkit.errors import DataError, QuantkitError
from quantkit.locations import StoredObject, is_url, open_object, read_object
from quantkit.regular_file import FileStamp, file_fault, open_regular, readable_name, stamp_of


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file whose bytes are read in parts. place: path or URL. name: relative to the data set.

    version: what the store says changes with the content; "" for a file on this machine, or where it says nothing.
    """

    name: str
    place: str
    size: int | None
    version: str = ""
    stamp: FileStamp | None = None

    def __str__(self) -> str:
        return self.place

    @property
    def suffix(self) -> str:
        """The suffix of the name, in small letters."""
        return os.path.splitext(self.name)[1].lower()

    @property
    def is_remote(self) -> bool:
        """True for an object under a URL."""
        return is_url(self.place)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`. DataError, also where there are fewer."""
        if self.is_remote:
            return read_object(self.place, start, stop)
        with self.opened() as file:
            file.seek(start)
            content = file.read(stop - start)
        if len(content) < stop - start:
            raise DataError(f"{self.place} ends at byte {start + len(content):,}", remedy="copy the file again")
        return content

    @contextmanager
    def opened(self, block: int = 1 << 20) -> Iterator[IO[bytes]]:
        """Open the file for reading and seeking. DataError, also for what is read from it."""
        try:
            with self.open(block) as file:
                yield file
        except QuantkitError:
            raise
        except OSError as error:
            raise DataError(f"{self.place}: {file_fault(error)}", remedy="check the file") from None

    def open(self, block: int = 1 << 20) -> BinaryIO | IO[bytes]:
        """Open the file; of an object, `block` bytes are read at once. DataError, OSError."""
        return open_object(self.place, self.size, block) if self.is_remote else open_regular(self.place)

    def identify(self, part: str) -> bytes | None:
        """Return a sha256 of a part by the version of the file; None if the store names no version."""
        if not self.version:
            return None
        return hashlib.sha256(f"{self.version}|{self.size}|{part}".encode()).digest()


def file_at(path: str | os.PathLike[str], name: str) -> DataFile:
    """Return a file on this machine. DataError where it is gone."""
    stamp = stamp_file(Path(path), name)
    return DataFile(name, os.fspath(Path(path)), stamp.size, "", stamp)


def file_of(stored: StoredObject, name: str) -> DataFile:
    """Return an object of a store as a file. Its stamp has numbers for its version instead of times."""
    stamp = None
    if stored.version and stored.size is not None:
        number = int.from_bytes(hashlib.sha256(stored.version.encode()).digest()[:6], "big")
        stamp = FileStamp(readable_name(name), stored.size, number, 0, 0)
    return DataFile(name, stored.url, stored.size, stored.version, stamp)


def stamp_file(path: Path, name: str) -> FileStamp:
    """Return the stamp of one file. DataError where it is gone."""
    try:
        return stamp_of(path, name)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", remedy="check the path") from None


def open_place(place: Path | DataFile) -> BinaryIO | IO[bytes]:
    """Open a path or a file of a data set for reading and seeking. OSError, DataError."""
    return place.open() if isinstance(place, DataFile) else open_regular(place)


def place_stamps(place: Path | DataFile, name: str) -> tuple[FileStamp, ...]:
    """Return the stamp of a path or a file of a data set, under a name for records; empty if it has none. DataError."""
    if not isinstance(place, DataFile):
        return (stamp_file(place, name),)
    return () if place.stamp is None else (replace(place.stamp, name=readable_name(name)),)

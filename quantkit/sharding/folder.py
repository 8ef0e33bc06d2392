"""The place of the shards of a run: a folder, or a URL, with one file for each shard, which is there whole or not.

0003-of-0064.stats.safetensors
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from quantkit.artifact import write_whole
from quantkit.errors import OutputError, ShardError, StaleError, UsageError
from quantkit.locations import (
    is_url,
    join_url,
    list_objects,
    object_exists,
    read_object,
    refuse_other_scheme,
    url_name,
    write_object,
)
from quantkit.paths import exists, given_path, is_file, is_folder
from quantkit.regular_file import read_regular
from quantkit.sharding.completeness import missing_shards
from quantkit.sharding.shard import Shard, shard_of_file
from quantkit.staging import claimed_outputs, write_failure

Place: TypeAlias = "str | os.PathLike[str]"
"""A folder or a URL."""


def given_place(value: object, name: str) -> str | Path | None:
    """Return a folder or URL that a caller gave as argument `name`, or None. UsageError for another type, or scheme."""
    refuse_other_scheme(value, UsageError)
    return value if value is None or (isinstance(value, str) and is_url(value)) else given_path(value, name)


class ShardFolder:
    """The shards of a run at a place. suffix: of the files, which says what kind of shards they are."""

    def __init__(self, place: Place, suffix: str) -> None:
        self.place: str | Path = place if isinstance(place, str) and is_url(place) else Path(place)
        self._suffix = suffix

    def file_of(self, shard: Shard) -> str:
        """Return the path or URL of a shard."""
        return self._file(f"{shard.stem}{self._suffix}")

    def shards(self) -> dict[str, Shard]:
        """Return the shards that are there, by path or URL, in the order of their indices; other files are ignored.

        DataError or OutputError where the place cannot be listed.
        """
        if isinstance(self.place, str):
            names = [url_name(stored.url) for stored in list_objects(self.place)]
        else:
            names = [path.name for path in self.place.iterdir()] if is_folder(self.place) else []
        found = [(name, shard_of_file(name)) for name in names if name.endswith(self._suffix)]
        listed = sorted((shard, name) for name, shard in found if shard and name == f"{shard.stem}{self._suffix}")
        return {self._file(name): shard for shard, name in listed}

    def has(self, shard: Shard) -> bool:
        """Return True if a shard is there."""
        file = self.file_of(shard)
        return object_exists(file) if is_url(file) else exists(file)

    def complete(self) -> dict[str, Shard]:
        """Return all shards of one run, as `shards`. ShardError where one is missing, or nothing is there.

        What belongs to another run is only known from the content.
        """
        found = self.shards()
        if not found:
            raise ShardError(
                f"{self.place} holds no shards, files such as 0003-of-0064{self._suffix}",
                remedy="give the place where they were written, or make them with --shard",
            )
        counts = {shard.count for shard in found.values()}
        count = max(counts)
        missing = {*range(count)} - {shard.index for shard in found.values()}
        if len(counts) == 1 and missing:
            raise missing_shards(sorted(missing), count)
        return found

    @contextlib.contextmanager
    def claimed(self, shard: Shard) -> Iterator[None]:
        """Keep a shard for this call until the end of the block, and make the folder if it is missing.

        A folder that was made here goes again where the block ends with an error and nothing else is in it.

        OutputError where another process on this folder makes it, or nothing can be written. Under a URL nothing is
        kept: two that make the same shard write the same content, whole, one after the other. DataError where a store
        cannot be asked.
        """
        if isinstance(self.place, str):
            list_objects(self.place)  # an error now, rather than after the work
            yield
            return
        if is_file(self.place):
            raise OutputError(
                f"{self.place} is a file, and the shards of a run lie in a folder", remedy="give a folder with --output"
            )
        is_new = not exists(self.place)
        try:
            self.place.mkdir(exist_ok=True)
        except OSError as error:
            raise write_failure(self.place, error) from None
        try:
            with claimed_outputs([Path(self.file_of(shard))]):
                yield
        except BaseException:
            if is_new:
                with contextlib.suppress(OSError):  # not empty: another shard is there, or in work
                    self.place.rmdir()
            raise

    def write(self, shard: Shard, content: bytes, *, force: bool) -> None:
        """Write a shard, whole or not at all. OutputError; StaleError if it is there and may not be replaced."""
        file = self.file_of(shard)
        if not is_url(file):
            write_whole(Path(file), content, force=force)
        elif not force and self.has(shard):
            raise StaleError(f"{file} already exists", remedy="another --output keeps both; --force replaces it")
        else:
            write_object(file, content)

    def read_beside(self, name: str) -> bytes | None:
        """Return the content of another file at the place; None if there is none. OSError, DataError."""
        file = self._file(name)
        return read_shard_file(file) if (object_exists(file) if is_url(file) else exists(file)) else None

    def write_beside(self, name: str, content: bytes) -> str:
        """Write another file at the place, whole or not at all, and return its path or URL. OutputError."""
        file = self._file(name)
        if is_url(file):
            write_object(file, content)
        else:
            write_whole(Path(file), content)
        return file

    def _file(self, name: str) -> str:
        return join_url(self.place, name) if isinstance(self.place, str) else str(self.place / name)


def place_of(file: str) -> str:
    """Return the folder or the URL that holds the shard at a path or URL."""
    return file.rpartition("/")[0] if is_url(file) else str(Path(file).parent)


def read_shard_file(file: str) -> bytes:
    """Return the content of a shard at a path or URL. OSError, DataError."""
    return read_object(file) if is_url(file) else read_regular(file)

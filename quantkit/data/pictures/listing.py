"""The files of a data set: below a folder or a URL, or named by a pattern, in one order.

folder, s3://bucket/folder          all files below it
train-{000..099}.tar                one after the other, as WebDataset and bash write them
shards/*.parquet                    those that fit
list.txt                            the paths and URLs in it
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantkit.data.data_file import DataFile, file_at, file_of
from quantkit.data.image_folder import files_below
from quantkit.data.pictures.name_classes import folder_around
from quantkit.errors import DataError
from quantkit.locations import is_url, list_objects, url_name
from quantkit.paths import exists, is_folder

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
MOST_FILES = 10_000_000
"""Files that braces may stand for."""


@dataclass(frozen=True, slots=True)
class FileList:
    """Files in order, by names relative to what is around all of them. source: for messages."""

    source: str
    files: tuple[DataFile, ...]


def is_pattern(source: str) -> bool:
    """Return True for a text with braces, or with the stars and brackets of a pattern of names."""
    return bool(BRACES.search(source) or "*" in source or ("[" in source and not is_url(source)))


def list_files(source: str) -> FileList:
    """Return the files that a path, a URL or a pattern stands for. DataError where there are none."""
    if not is_pattern(source) or (not is_url(source) and exists(source)):
        return listed_below(source)
    places = list(expanded(source))
    found: dict[str, DataFile] = {}
    for file in (file for place in places for file in matching(place, source)):
        if file.place in found:
            raise DataError(f"{source} names {file.place} twice", remedy="name every file once")
        found[file.place] = file
    return FileList(source, relative([*found.values()]))


def listed_below(source: str) -> FileList:
    """Return the files below a folder or a URL, or the one that is there."""
    if is_url(source):
        objects = list_objects(source)
        if not objects:
            raise DataError(f"there is nothing at {source}", remedy="check the address, and what its store lists")
        prefix = source.rstrip("/").split("://")[1].strip("/")
        files = []
        for stored in objects:
            path = stored.url.split("://")[1].strip("/")
            name = path[len(prefix) :].strip("/") if path.startswith(prefix + "/") else url_name(stored.url)
            if not is_hidden(name):
                files.append(file_of(stored, name))
        return FileList(source, tuple(files))
    if is_folder(source):
        names = sorted(name for name in files_below(Path(source)) if not is_hidden(name))
        return FileList(source, tuple(file_at(Path(source, name), name) for name in names))
    return FileList(source, (file_at(source, os.path.basename(source)),))


def is_hidden(name: str) -> bool:
    """Return True if a file, or a folder on the way to it, begins with a dot, and for the cache of `datasets`."""
    parts = name.split("/")
    return any(part.startswith(".") for part in parts) or (parts[-1].startswith("cache-") and name.endswith(".arrow"))


def expanded(source: str) -> Iterator[str]:
    """Yield what braces stand for, as bash expands them: `{08..11}` keeps its zeros. DataError where it is too much."""
    found = BRACES.search(source)
    if found is None:
        yield source
        return
    if found[3] is not None:
        middles: Iterator[str] = iter(found[3].split(","))
    else:
        first, last = int(found[1]), int(found[2])
        if abs(last - first) >= MOST_FILES:
            raise DataError(f"{source} stands for {abs(last - first) + 1:,} files", remedy="correct the numbers")
        zeros = any(text != "0" and text.startswith("0") for text in (found[1], found[2]))
        width = max(len(found[1]), len(found[2])) if zeros else 0
        step = 1 if last >= first else -1
        middles = (f"{number:0{width}d}" for number in range(first, last + step, step))
    for middle in middles:
        yield from expanded(f"{source[: found.start()]}{middle}{source[found.end() :]}")


def matching(place: str, source: str) -> list[DataFile]:
    """Return the files that a path or URL with stars fits, by their places as names. DataError where there are none."""
    if is_url(place):
        folder = re.split(r"\*", place)[0].rpartition("/")[0] if "*" in place else place
        pattern = place.split("://")[1].lstrip("/")
        objects = [o for o in list_objects(folder) if fits(o.url.split("://")[1].lstrip("/"), pattern)]
        files = [file_of(stored, stored.url) for stored in objects]
    elif is_pattern(place):
        import glob

        files = [file_at(path, os.path.abspath(path)) for path in sorted(glob.glob(place, recursive=True))]
    else:
        files = [file_at(place, os.path.abspath(place))] if exists(place) else []
    if not files:
        what = place if place == source else f"{place}, of {source},"
        raise DataError(
            f"{what} does not exist" if not is_pattern(place) else f"{what} fits no file", remedy="check the names"
        )
    return files


def fits(path: str, pattern: str) -> bool:
    """Return True if a path fits a pattern; a star stays within a folder, two go through folders."""
    if "**" in pattern:
        return fnmatch.fnmatchcase(path, pattern.replace("**/", "*"))
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)


def relative(files: Sequence[DataFile]) -> tuple[DataFile, ...]:
    """Return files by names relative to the folder around all of them."""
    length = len(folder_around([file.name for file in files]))
    return tuple(replace(file, name=file.name[length:]) for file in files)

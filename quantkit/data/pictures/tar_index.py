"""The samples of a `.tar` archive in WebDataset's form: the members that belong together, and where they lie.

    n01/0001.jpg   n01/0001.cls   n01/0001.json        one sample, `n01/0001`: same path up to the first dot of the name

An archive has no table of contents: its headers are read once, one after the other, and labels with them.
"""

from __future__ import annotations

import functools
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from quantkit.data.data_file import DataFile
from quantkit.data.declared_labels import CLASSES
from quantkit.errors import DataError, QuantkitError, first_line
from quantkit.image_file import SUFFIXES

CLASS_MEMBERS = ("cls", "cls.txt", "label", "label.txt", "class")
"""Endings of members that hold a class index or a name."""
LARGEST_LABEL = 1 << 20
"""Bytes of a member with a label."""
HEADER_BLOCK = 1 << 23
"""Bytes that are read at once from an object while its headers are read."""
LARGEST_PADDING = 1 << 16
"""Bytes behind the mark of the end that are looked at."""
AGAIN = "write it again, or leave it out"


@dataclass(frozen=True, slots=True)
class TarSample:
    """One sample: the name of its image in the archive, where its bytes lie, and its label (None: it has none)."""

    name: str
    start: int
    stop: int
    label: int | str | None = None


@dataclass(frozen=True, slots=True)
class TarIndex:
    """The samples of an archive, in its order. ended: False where the mark at its end is missing."""

    samples: tuple[TarSample, ...]
    ended: bool


@functools.lru_cache(maxsize=1024)
def index_tar(file: DataFile) -> TarIndex:
    """Return the samples of an archive; one that has not changed is not read again. DataError names the member."""
    with file.opened(HEADER_BLOCK) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                samples = tuple(samples_of(members_of(archive, stream, file), file))
                ended = is_ended(stream, archive.offset, file)
        except QuantkitError:
            raise
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            raise DataError(f"{file.place} is damaged, or no .tar archive: {first_line(error)}", remedy=AGAIN) from None
    return TarIndex(samples, ended)


def is_ended(stream: IO[bytes], place: int, file: DataFile) -> bool:
    """Return True if the mark of the end is where `tarfile` found no more members. DataError where something else is:
    it takes a damaged header for the end, and does not look behind the first of several archives in a file."""
    stream.seek(place)
    end, behind = stream.read(tarfile.BLOCKSIZE), stream.read(LARGEST_PADDING)
    if end.strip(b"\0"):
        fault = "is damaged: no header" if len(end) == tarfile.BLOCKSIZE else "was cut off within the header"
        raise DataError(f"{file.place} {fault} at byte {place:,}", remedy=AGAIN)
    if behind.strip(b"\0"):
        raise DataError(
            f"{file.place} goes on behind its end, at byte {place:,}: it is several archives in one file",
            remedy="name them one by one, {000..003}.tar, or join them with tar -A",
        )
    return len(end) == tarfile.BLOCKSIZE


def members_of(
    archive: tarfile.TarFile, stream: IO[bytes], file: DataFile
) -> Iterator[tuple[str, int, int, int | str | None]]:
    """Yield name, first byte, last byte and label of every regular member. DataError, tarfile.TarError."""
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined] # which would grow with the archive
        if not member.isreg():
            continue
        if member.issparse():
            raise DataError(f"{file.place}, {member.name}: it is stored as a sparse file", remedy=AGAIN)
        start, stop = member.offset_data, member.offset_data + member.size
        if file.size is not None and stop > file.size:
            raise DataError(f"{file.place} ends within {member.name}: the archive was cut off", remedy=AGAIN)
        label = None
        if holds_label(member.name):
            if member.size > LARGEST_LABEL:
                raise DataError(f"{file.place}, {member.name}: {member.size:,} bytes are no label", remedy=AGAIN)
            stream.seek(start)
            label = label_in(stream.read(member.size), member.name, file)
        yield member.name.removeprefix("./"), start, stop, label


def holds_label(name: str) -> bool:
    """Return True if a member may hold a label."""
    ending = split_key(name)[1]
    return ending in CLASS_MEMBERS or ending == "json"


def split_key(name: str) -> tuple[str, str]:
    """Return the key of a member's sample, and the rest of its name in small letters."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def label_in(content: bytes, name: str, file: DataFile) -> int | str | None:
    """Return the class in a member: a number or a name as text, or what a JSON has under a key of labels. DataError."""
    try:
        text = content.decode("utf-8-sig").strip()
        if split_key(name)[1] != "json":
            return as_class(text)
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file.place}, {name}: {first_line(error)}", remedy=AGAIN) from None
    if isinstance(document, dict):
        found = [value for key, value in document.items() if str(key).lower() in CLASSES]
        document = found[0] if len(found) == 1 else None
    return as_class(document) if isinstance(document, (int, str)) and not isinstance(document, bool) else None


def as_class(value: int | str) -> int | str:
    """Return a class index as a number, and a name as it is."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 18 else value


def samples_of(members: Iterator[tuple[str, int, int, int | str | None]], file: DataFile) -> Iterator[TarSample]:
    """Yield the samples with an image; their members follow each other. DataError where a name comes twice."""
    seen: set[str] = set()
    key = ""
    held: list[tuple[str, int, int, int | str | None]] = []
    for member in members:
        mine = split_key(member[0])[0]
        if held and mine != key:
            yield from sample_of(key, held, file, seen)
            held = []
        key = mine
        held.append(member)
    if held:
        yield from sample_of(key, held, file, seen)


def sample_of(
    key: str, members: list[tuple[str, int, int, int | str | None]], file: DataFile, seen: set[str]
) -> Iterator[TarSample]:
    """Yield the sample of these members, if there is an image among them. DataError."""
    endings = [split_key(name)[1] for name, *_ in members]
    images = [m for m, ending in zip(members, endings, strict=True) if f".{ending}" in SUFFIXES]
    images = images or [m for m, e in zip(members, endings, strict=True) if f".{e.rpartition('.')[2]}" in SUFFIXES]
    if not images:
        return
    if len(images) > 1 or key in seen:
        names = " and ".join(name for name, *_ in images[:2]) if len(images) > 1 else key
        fault = "belong to one sample" if len(images) > 1 else "comes twice"
        raise DataError(
            f"{file.place}: {names} {fault}", remedy="give every image a name of its own, up to the first dot"
        )
    seen.add(key)
    by_ending = dict(zip(endings, members, strict=True))
    wanted = next((ending for ending in (*CLASS_MEMBERS, "json") if ending in by_ending), None)
    name, start, stop, _ = images[0]
    yield TarSample(name, start, stop, None if wanted is None else by_ending[wanted][3])

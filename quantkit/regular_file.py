"""Reading files: the one door to what a path names. Only regular files pass, because they alone have an end.

A pipe, a socket, a terminal or a device (`/dev/zero`) under the name of a file would make a reader wait, or read until
memory is full. Everything that is refused is an OSError with a text in `strerror`, as for a missing file, also where
memory does not suffice: callers handle it at once.

A stamp shows whether a file must be read again. A file that was replaced or written keeps size and time of modification
where a tool restores them (`cp -p`, `rsync -t`, `tar -x`, build caches), but then its inode or its time of change
differs; where anything differs, the content decides. A stamp is taken before the content is read: what is written in
between belongs to a later stamp.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LARGEST_WHOLE = 1 << 30
"""Largest file that is read whole unless a caller knows better, in bytes."""
UNBOUNDED = 1 << 62
CHUNK_BYTES = 1 << 20
LONGEST_FAULT = 300
"""Characters of a library's message; some quote the whole file."""

Stamp = tuple[str, int, int, int, int]

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def refuse_irregular(path: str | os.PathLike[str]) -> Path:
    """Return the path of a regular file, for libraries that open files themselves. OSError."""
    try:
        check_kind(os.stat(path), path)
    except ValueError as error:  # a NUL, or a character that no file name can have
        raise OSError(errno.EINVAL, f"not a file name: {error}", os.fspath(path)) from None
    return Path(path)


def check_kind(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Raise OSError unless the status is that of a regular file."""
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        text = f"it is {KINDS.get(kind, 'something else')}, not a regular file"
        raise OSError(errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL, text, os.fspath(path))


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading bytes, through links. OSError for folders, pipes, devices, impossible names."""
    refuse_irregular(path)  # before it is opened: opening a device may already do something

    def descriptor(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # it may be a pipe by now

    file = open(path, "rb", opener=descriptor)  # noqa: SIM115 (the caller closes it)
    try:
        check_kind(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], most: int = LARGEST_WHOLE) -> bytes:
    """Return the bytes of a regular file. OSError, also if it is larger than `most` bytes, or than memory."""
    try:
        with open_regular(path) as file:
            refuse_larger(file, path, most)
            return file.read() if most >= UNBOUNDED else file.read(most)
    except MemoryError:
        raise OSError(errno.ENOMEM, "it does not fit into memory", os.fspath(path)) from None


def refuse_larger(file: BinaryIO, path: str | os.PathLike[str], most: int) -> None:
    """Raise OSError where an open file has more than `most` bytes, before any of them is read."""
    if os.fstat(file.fileno()).st_size > most:
        raise OSError(errno.EFBIG, f"larger than {most / 2**20:g} MiB", os.fspath(path))


def read_regular_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a regular file, without a byte order mark. OSError; UnicodeDecodeError unless it is UTF-8."""
    return read_regular(path).decode("utf-8-sig")


def regular_file_digest(path: str | os.PathLike[str], most: int = UNBOUNDED) -> str:
    """Return the hexadecimal sha256 of a regular file, which is not kept in memory. OSError, also beyond `most`."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        refuse_larger(file, path, most)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def file_fault(error: Exception) -> str:
    """Return the problem with a file that could not be read, in a few words."""
    if isinstance(error, UnicodeDecodeError):
        return "not text in UTF-8"
    return (isinstance(error, OSError) and error.strerror) or str(error)[:LONGEST_FAULT]


@dataclass(frozen=True, slots=True)
class FileStamp:
    """The stamp of one file: if nothing here changed, its content is assumed to be the same.

    modified_ns, changed_ns: times of the last change of the content, and of content or directory entry.
    """

    name: str
    size: int
    modified_ns: int
    inode: int
    changed_ns: int

    @property
    def record(self) -> Stamp:
        """The stamp as records keep it."""
        return self.name, self.size, self.modified_ns, self.inode, self.changed_ns


def readable_name(name: str) -> str:
    r"""Return a file name for records: bytes that are not UTF-8 (surrogates in Python) become `\xe4`."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def stamp_of(path: str | os.PathLike[str], name: str) -> FileStamp:
    """Return the stamp of a file, through links, under its name for records. OSError."""
    status = os.stat(path)
    return FileStamp(readable_name(name), status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)

"""Opening of files that a user names: regular files only, so that a pipe or a device neither blocks nor never ends.

Everything that is refused is an OSError with a text in `strerror`, as for a missing file: callers handle it at once.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

UNBOUNDED = 1 << 62


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading bytes, through links. OSError for folders, pipes, devices, impossible names."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL, or a character that no file name can have
        raise OSError(errno.EINVAL, f"not a file name: {error}", str(path)) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], most: int = UNBOUNDED) -> bytes:
    """Return the bytes of a regular file. OSError, also if it is larger than `most` bytes."""
    with open_regular(path) as file:
        content = file.read() if most >= UNBOUNDED else file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most / 2**20:g} MiB", str(path))
    return content


def refuse_irregular(path: str | os.PathLike[str]) -> Path:
    """Return the path of a regular file, for libraries that open files themselves. OSError."""
    open_regular(path).close()
    return Path(path)

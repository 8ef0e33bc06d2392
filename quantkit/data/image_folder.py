"""Image folders: every image below a folder, sorted; the folder at the first level is the class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quantkit.errors import DataError
from quantkit.image_file import SUFFIXES


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images below `root` by relative path, sorted; `others` counts files that are not images."""

    root: Path
    names: tuple[str, ...]
    others: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class folders in alphabetical order; empty if there are images in `root` itself."""
        parts = [name.split("/") for name in self.names]
        return tuple(sorted({p[0] for p in parts})) if all(len(p) > 1 for p in parts) else ()

    @property
    def labels(self) -> tuple[int, ...]:
        """The class index of every image; empty without class folders."""
        index = {name: i for i, name in enumerate(self.classes)}
        return tuple(index[name.split("/")[0]] for name in self.names) if index else ()


def list_images(root: Path) -> ImageFolder:
    """List all images below `root`, recursively, links included; hidden files and folders are skipped. DataError."""
    found = list(files_below(root))
    names = tuple(sorted(name for name in found if os.path.splitext(name)[1].lower() in SUFFIXES))
    return ImageFolder(root, names, len(found) - len(names))


def files_below(root: Path) -> Iterator[str]:
    """Yield every file below a folder, as its relative path with `/`.

    Links are followed, but no folder is read twice: links to a folder inside `root`, or around it, are skipped.
    DataError.
    """
    home = root.resolve()
    seen: set[tuple[int, int]] = set()
    waiting = [(str(root), "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            inner = []
            for entry in visible_entries(folder):
                if entry.is_dir():
                    if not (entry.is_symlink() and is_read_anyway(Path(entry.path).resolve(), home)):
                        inner.append((entry.path, f"{prefix}{entry.name}/"))
                elif entry.is_file() or os.path.exists(entry.path):  # a pipe is refused when it is read
                    yield prefix + entry.name
            waiting += reversed(inner)
        except OSError as error:
            raise DataError(
                f"{error.filename or folder}: {error.strerror or error}", remedy="make it readable, or move it away"
            ) from None


def visible_entries(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder by name, without hidden ones. OSError."""
    with os.scandir(folder) as entries:  # many times faster than pathlib, which asks for each file separately
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)


def is_read_anyway(real: Path, home: Path) -> bool:
    """Return True if a linked folder is inside the data folder, or around it."""
    return real == home or home in real.parents or real in home.parents


def subfolders(path: Path) -> Iterator[str]:
    """Yield the names of the visible folders in a folder. DataError."""
    try:
        yield from (entry.name for entry in visible_entries(str(path)) if entry.is_dir())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", remedy="make it readable, or move it away") from None

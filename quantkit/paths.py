"""Looking at paths that a user has given.

`Path.exists()` and its like raise OSError for some paths that the system refuses to look at (a name that is too long, a
folder without permission) and return False for others. Here every refusal is an error that names the path.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias, TypeVar

from quantkit.errors import QuantkitError, UsageError
from quantkit.regular_file import file_fault

AnyPath: TypeAlias = str | os.PathLike[str]
T = TypeVar("T")


def file_status(path: AnyPath) -> os.stat_result | None:
    """Return the status of the file or folder that a path leads to; None if there is none.

    QuantkitError if the system refuses to look: the name is too long, a folder may not be entered, links run in a
    circle.
    """
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise path_failure(path, error) from None


def path_failure(path: AnyPath | bytes | int, error: Exception) -> QuantkitError:
    """Return the refusal of a path by the system as an error with a remedy."""
    name = str(path) if isinstance(path, int) else os.fsdecode(path)
    return QuantkitError(f"{name}: {file_fault(error)}", remedy="check the path and its permissions")


def given_path(value: object, name: str, kinds: str = "a str or a pathlib.Path") -> Path:
    """Return a path that a caller gave as argument `name`, with `~` as the home folder, as shells read it. UsageError.

    It is a value of another type, or there is no home folder.
    """
    try:
        return expand_home(Path(value))  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"{name} is of type {type(value).__name__}, not a path", remedy=f"pass {kinds}") from None


def expand_home(path: Path) -> Path:
    """Return a path that begins with `~` from the home folder; a shell leaves it as it is in quotes. UsageError."""
    if path.parts[:1] != ("~",) or exists("~"):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: there is no home folder", remedy="give the path without ~") from None


def given_list(values: Iterable[T] | AnyPath, name: str) -> list[T | AnyPath]:
    """Return several paths that a caller gave as argument `name`, or a single one, as a list. UsageError."""
    if isinstance(values, (str, os.PathLike)):
        return [values]
    try:
        return list(values)
    except TypeError:
        raise UsageError(
            f"{name} is of type {type(values).__name__}, not a list of paths",
            remedy="pass a list of str or pathlib.Path",
        ) from None


def exists(path: AnyPath) -> bool:
    """Return True if a path leads to a file or a folder. QuantkitError as for `file_status`."""
    return file_status(path) is not None


def is_file(path: AnyPath) -> bool:
    """Return True if a path leads to a regular file. QuantkitError as for `file_status`."""
    found = file_status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: AnyPath) -> bool:
    """Return True if a path leads to a folder. QuantkitError as for `file_status`."""
    found = file_status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def beside(path: Path, name: str) -> Path:
    """Return the path of a file in the same folder, also for paths without a name (`.`), which `with_name` refuses."""
    return path.parent / name


def real_path(path: AnyPath) -> Path:
    """Return an absolute path without links. QuantkitError as for `file_status`."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise path_failure(path, error) from None


def same_file(path: AnyPath, other: AnyPath) -> bool:
    """Return True if two paths lead to the same file, or would. QuantkitError as for `file_status`."""
    ours, theirs = file_status(path), file_status(other)
    if ours is None or theirs is None:
        return real_path(path) == real_path(other)
    return os.path.samestat(ours, theirs)

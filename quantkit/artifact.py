"""The files that verbs write: checks before the work, writing, and the texts in them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from quantkit.errors import OutputError, UsageError
from quantkit.paths import exists, is_folder, same_file
from quantkit.staging import OUTPUT, refuse_existing, refuse_non_file, staged_files, staging_folder, write_failure


def write_whole(path: Path, content: bytes, option: str = OUTPUT, *, force: bool = True) -> None:
    """Write `content` to `path` atomically. OutputError where directory, disk or permissions forbid it.

    option: the option that names the path. force: False where no file may lie there, StaleError otherwise.
    """
    write_all({path: content}, option, may_replace=lambda _: force)


def write_all(
    files: Mapping[Path, bytes], option: str = OUTPUT, *, may_replace: Callable[[Path], bool] = lambda _: True
) -> None:
    """Write several files atomically; either all are replaced or, after an error, none is changed. OutputError.

    may_replace: False for a path where no file may lie. StaleError if one appeared there during the work.
    """
    with staged_files(option, may_replace=may_replace) as new:
        for path, content in files.items():
            new.write(path, content)


def refuse_missing_folder(path: Path, option: str = OUTPUT) -> None:
    """Raise OutputError where the folder of a file to write does not exist."""
    if not is_folder(path.absolute().parent):
        raise OutputError(
            f"cannot write {path}: there is no folder {path.parent}",
            remedy=f"create the folder first, or write elsewhere with {option}",
        )


def check_writable(path: Path, option: str = OUTPUT) -> None:
    """Raise OutputError unless a file can be created beside `path`, before any work is done."""
    refuse_missing_folder(path, option)
    refuse_non_file(path, option)
    try:
        with staging_folder(path.parent):
            pass
    except OSError as error:
        raise write_failure(path, error, option) from None


def check_destinations(
    written: Iterable[Path],
    *,
    read: Iterable[object] = (),
    force: bool,
    option: str = OUTPUT,
    ours: Callable[[Path], bool] = lambda _: False,
) -> Callable[[Path], bool]:
    """Check every file that a verb will write, before any work is done; return which may be replaced after it: with
    `force` all of them, otherwise those that exist now.

    read: files that the verb reads; values that are not paths are ignored. ours: True for an existing file that holds
    what only quantkit writes there, so that it may be replaced without `force`. OutputError if a file cannot be
    written, StaleError if one exists, UsageError if one of those that are read would be replaced.
    """
    written = tuple(written)
    for path in written:
        check_writable(path, option)
    refuse_overwriting(written, read, option)
    for path in written:
        refuse_existing(path, force=force or ours(path), option=option)
    there = frozenset(path for path in written if exists(path))
    return lambda path: force or path in there


def refuse_overwriting(written: Iterable[Path], read: Iterable[object], option: str = OUTPUT) -> None:
    """Raise UsageError where a file to write is one of those that are read; values that are not paths are ignored."""
    sources = [Path(source) for source in read if isinstance(source, (str, os.PathLike))]
    for path in written:
        if any(same_file(path, source) for source in sources):
            raise UsageError(f"{path} would replace its own source", remedy=f"give another {option}")


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no optional spaces: the same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def text_bytes(text: str) -> bytes:
    r"""Return text in UTF-8. Bytes of a file name that are not UTF-8 (surrogates in Python) become `\udce4`, as in
    JSON, so that reading restores them."""
    return text.encode("utf-8", "backslashreplace")


def nulls_for_nonfinite(value: Any) -> Any:
    """Return the value with None for floats that JSON cannot represent."""
    if isinstance(value, Mapping):
        return {key: nulls_for_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [nulls_for_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Digest(str):
    """A digest in a description of what something was made from: it is compared, but not shown to users."""

    __slots__ = ()


def sha256_of(content: bytes) -> str:
    """Return the hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()

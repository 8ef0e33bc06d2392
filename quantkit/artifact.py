"""Files that are written atomically: a temporary file beside the target, then a rename.

This is also the one place that turns an OSError of a write into an error with a remedy.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quantkit.errors import OutputError, StaleError, UsageError
from quantkit.regular_file import UNBOUNDED, read_regular

OUTPUT = "--output"
"""The usual option for the path of an output; errors name the option to change."""


def write_whole(path: Path, content: bytes, option: str = OUTPUT) -> None:
    """Write `content` to `path` atomically. OutputError where directory, disk or permissions forbid it.

    option: the option that names the path.
    """
    refuse_non_file(path, option)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        raise write_failure(path, error, option) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_all(files: dict[Path, bytes]) -> None:
    """Write several files atomically; either all are replaced or, after an error, none is changed. OutputError."""
    staged: dict[Path, Path] = {}
    before: dict[Path, bytes | None] = {}
    path = Path()
    for path in files:
        refuse_non_file(path)
    try:
        for path, content in files.items():
            staged[path] = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
            staged[path].write_bytes(content)
        for path, temporary in staged.items():
            before[path] = read_regular(path, most=UNBOUNDED) if path.exists() else None
            os.replace(temporary, path)
    except BaseException as error:
        restore_files(before)
        if isinstance(error, OSError):
            raise write_failure(path, error) from None
        raise
    finally:
        for temporary in staged.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def restore_files(before: dict[Path, bytes | None]) -> None:
    """Restore the previous content of files, as far as possible."""
    for path, content in before.items():
        with contextlib.suppress(OSError, OutputError):
            if content is None:
                path.unlink(missing_ok=True)
            elif read_regular(path, most=UNBOUNDED) != content:
                write_whole(path, content)


def write_failure(path: Path, error: OSError, option: str = OUTPUT) -> OutputError:
    """Return the OSError of a write as an error with a remedy: free space, or another path by `option`."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return OutputError(
        f"cannot write {path}: {error.strerror or error}",
        remedy=f"{'free some space, or ' if full else ''}write elsewhere with {option}",
    )


def refuse_missing_folder(path: Path, option: str = OUTPUT) -> None:
    """Raise OutputError where the folder of a file to write does not exist."""
    if not path.absolute().parent.is_dir():
        raise OutputError(
            f"cannot write {path}: there is no folder {path.parent}",
            remedy=f"create the folder first, or write elsewhere with {option}",
        )


def check_writable(path: Path, option: str = OUTPUT) -> None:
    """Raise OutputError unless a file can be created beside `path`, before any work is done."""
    refuse_missing_folder(path, option)
    refuse_non_file(path, option)
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(probe, "xb"):
            pass
        probe.unlink()
    except OSError as error:
        raise write_failure(path, error, option) from None


def refuse_overwriting(written: Iterable[Path], read: Iterable[object], option: str = OUTPUT) -> None:
    """Raise UsageError where a file to write is one of those that are read; values that are not paths are ignored."""
    sources = [Path(source) for source in read if isinstance(source, (str, os.PathLike))]
    for path in written:
        if any(same_file(path, source) for source in sources):
            raise UsageError(f"{path} would replace its own source", remedy=f"give another {option}")


def same_file(path: Path, other: Path) -> bool:
    """Return True if two paths lead to the same file."""
    try:
        return path.samefile(other)
    except OSError:
        return path.resolve() == other.resolve()


def refuse_non_file(path: Path, option: str = OUTPUT) -> None:
    """Raise OutputError where a rename to `path` would replace a folder, a device or a pipe (/dev/null)."""
    if not path.name or (path.exists() and not path.is_file()):
        kind = "a directory" if path.is_dir() else "a device or a pipe" if path.name else "not a file name"
        raise OutputError(f"cannot write {str(path)!r}: it is {kind}", remedy=f"give the path of a file with {option}")


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no optional spaces: the same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def text_bytes(text: str) -> bytes:
    r"""Return text in UTF-8. Bytes of a file name that are not UTF-8 (surrogates in Python) become `\udce4`, as in
    JSON, so that reading restores them."""
    return text.encode("utf-8", "backslashreplace")


def readable_name(name: str) -> str:
    r"""Return a file name for records: bytes that are not UTF-8 (surrogates in Python) become `\xe4`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


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


def refuse_existing(path: Path, *, force: bool, option: str = OUTPUT) -> None:
    """Raise StaleError where a file exists and must not be replaced; `option` names its path."""
    if path.exists() and not force:
        raise StaleError(f"{path} already exists", remedy=f"--force replaces it, another {option} keeps both")

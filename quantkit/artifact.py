"""Files that land whole or not at all: a temporary file beside the target, then a rename.

Also the one place that turns an OSError of a write into an error that a user can act on.
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

OUTPUT = "--output"
"""The option that names most of what is written: errors tell which one is to be given differently."""


def write_whole(path: Path, content: bytes, option: str = OUTPUT) -> None:
    """Write `content` to `path` atomically. OutputError where the directory, the disk or the rights forbid it; `option`
    is what names the path."""
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
    """Write several files, each whole; either all are replaced or, after an error, all are as they were."""
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
            before[path] = path.read_bytes() if path.exists() else None
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
    """Put files back as they were, as far as that is possible."""
    for path, content in before.items():
        with contextlib.suppress(OSError, OutputError):
            if content is None:
                path.unlink(missing_ok=True)
            elif path.read_bytes() != content:
                write_whole(path, content)


def write_failure(path: Path, error: OSError, option: str = OUTPUT) -> OutputError:
    """The OSError of a write as an error with a remedy: space, or another path by `option`."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return OutputError(
        f"cannot write {path}: {error.strerror or error}",
        remedy=f"{'free some space, or ' if full else ''}write elsewhere with {option}",
    )


def check_writable(path: Path, option: str = OUTPUT) -> None:
    """Fail now rather than after the work: OutputError unless a file can be created beside `path`."""
    refuse_non_file(path, option)
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(probe, "xb"):
            pass
        probe.unlink()
    except OSError as error:
        raise write_failure(path, error, option) from None


def refuse_overwriting(written: Iterable[Path], read: Iterable[object], option: str = OUTPUT) -> None:
    """UsageError where a file that would be written is one of those that are read; what is no path is passed over."""
    sources = [Path(source) for source in read if isinstance(source, (str, os.PathLike))]
    for path in written:
        if any(same_file(path, source) for source in sources):
            raise UsageError(f"{path} would replace what it is made of", remedy=f"give another {option}")


def same_file(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file."""
    try:
        return path.samefile(other)
    except OSError:
        return path.resolve() == other.resolve()


def refuse_non_file(path: Path, option: str = OUTPUT) -> None:
    """OutputError where a rename to `path` would meet a folder, or take the place of a device or a pipe (/dev/null)."""
    if not path.name or (path.exists() and not path.is_file()):
        kind = ", but a directory" if path.is_dir() else ", but a device or a pipe" if path.name else ""
        raise OutputError(
            f"cannot write {str(path)!r}: it names no file{kind}", remedy=f"give a file's path with {option}"
        )


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spare spaces: the same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def text_bytes(text: str) -> bytes:
    r"""Text in UTF-8. Bytes of a file's name that are none (Python holds them as surrogates) become `\udce4`, which is
    what JSON writes for them, so that they are read as they were."""
    return text.encode("utf-8", "backslashreplace")


def readable_name(name: str) -> str:
    r"""A file's name for records: bytes that are no UTF-8 (Python holds them as surrogates) as `\xe4`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def nulls_for_nonfinite(value: Any) -> Any:
    """The value with null where JSON has no number."""
    if isinstance(value, Mapping):
        return {key: nulls_for_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [nulls_for_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_of(content: bytes) -> str:
    """Hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()


def refuse_existing(path: Path, *, force: bool, option: str = OUTPUT) -> None:
    """StaleError where a file is there and may not be replaced; `option` is what names it."""
    if path.exists() and not force:
        raise StaleError(f"{path} is there already", remedy=f"--force replaces it, another {option} keeps both")

"""A model repository on disk: either all models of an export are written or none; existing versions stay.

    repository/NAME/config.pbtxt          platform, tensors, batches
    repository/NAME/labels.txt            names of the classes
    repository/NAME/1/model.plan          version 1

Each model's folder is first built in a temporary folder and then renamed into place; if a later one fails, the previous
folders are restored. Files of other versions are linked into the new folders, not copied.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantkit.artifact import write_failure
from quantkit.errors import OutputError, StaleError, UsageError
from quantkit.export.checking import config_contract, parse_config
from quantkit.regular_file import read_regular

CONFIG = "config.pbtxt"
EMPTY = ".keep"
"""Placeholder file, because object stores and git drop empty folders."""
Content = bytes | Path


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """A model to write: the files of its folder and those of the version's folder; a path is copied."""

    name: str
    own: Mapping[str, Content]
    version: Mapping[str, Content]


def check_name(name: str) -> str:
    """Return the name if it is valid for a folder and a model. UsageError."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*", name):
        raise UsageError(f"--name {name!r} is not a valid model name", remedy="use letters, digits, '_', '-' and '.'")
    return name


def write_repository(root: Path, entries: Sequence[RepositoryEntry], version: int, *, force: bool) -> tuple[Path, ...]:
    """Write all entries as this version and return the files written, without configurations that were kept.

    OutputError if the version exists, unless force is set. StaleError if other versions do not match the configuration.
    BackendError if an existing configuration cannot be read without tritonclient.
    """
    configs = {entry.name: choose_config(root, entry, version, force=force) for entry in entries}
    missing = not root.exists()
    work = root / f".quantkit.{secrets.token_hex(4)}.tmp"
    path = root
    try:
        work.mkdir(parents=True)
        for entry in entries:
            path = root / entry.name
            stage_model(path, work / entry.name, entry, version, configs[entry.name])
        swap_folders(root, work, [entry.name for entry in entries])
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        if missing:
            with contextlib.suppress(OSError):
                root.rmdir()
        if isinstance(error, OSError):
            raise write_failure(path, error) from None
        raise
    shutil.rmtree(work, ignore_errors=True)
    paths = tuple(path for entry in entries for path in entry_files(root / entry.name, entry, version))
    return tuple(p for p in paths if p.name != CONFIG or configs[p.parent.name] == entry_config(entries, p.parent.name))


def entry_files(folder: Path, entry: RepositoryEntry, version: int) -> Iterator[Path]:
    """Yield the paths of the files of an entry."""
    yield from (folder / name for name in entry.own)
    yield from (folder / str(version) / name for name in entry.version)


def entry_config(entries: Sequence[RepositoryEntry], name: str) -> Content:
    """Return the new configuration of a model."""
    return next(entry.own[CONFIG] for entry in entries if entry.name == name)


def choose_config(root: Path, entry: RepositoryEntry, version: int, *, force: bool) -> bytes:
    """Return the configuration to write: the existing one if other versions stay and both are compatible."""
    folder, own = root / entry.name, entry.own[CONFIG]
    assert isinstance(own, bytes), "bug in quantkit: the configuration is text"
    if not folder.exists():
        return own
    if (folder / str(version)).exists() and not force:
        raise OutputError(
            f"{folder / str(version)} already exists",
            remedy=f"add a version (--version {newest_version(folder) + 1}), replace this one (--force), "
            "or use another --name",
        )
    others = [v for v in existing_versions(folder) if v != version]
    there = folder / CONFIG
    if not others or not there.exists():
        return own
    try:
        before = read_regular(there)
    except OSError as error:
        raise OutputError(f"{there}: {error.strerror or error}", remedy="remove it") from None
    if before == own:
        return own
    old = config_contract(parse_config(before.decode(errors="replace"), str(there)))
    new = config_contract(parse_config(own.decode(), f"{entry.name}/{CONFIG}"))
    if changed := [key for key, value in new.items() if old[key] != value]:
        raise StaleError(
            f"version {version} of {entry.name} is incompatible with version {others[-1]}: "
            f"different {', '.join(changed)}",
            remedy="give it another --name, or remove the other versions",
        )
    return own if force else before


def existing_versions(folder: Path) -> list[int]:
    """Return the versions that exist."""
    return sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def newest_version(folder: Path) -> int:
    """Return the newest version that exists, or 0."""
    return max(existing_versions(folder), default=0)


def stage_model(there: Path, work: Path, entry: RepositoryEntry, version: int, config: bytes) -> None:
    """Build the model's new folder in a temporary place."""
    gone = there / str(version)
    if there.exists():
        shutil.copytree(
            there,
            work,
            copy_function=link_or_copy_file,
            ignore=lambda at, names: [n for n in names if Path(at, n) == gone],
        )
    for name, content in {**entry.own, CONFIG: config}.items():
        put_file(work / name, content)
    for name, content in (entry.version or {EMPTY: b""}).items():
        put_file(work / str(version) / name, content)


def link_or_copy_file(source: str, target: str) -> None:
    """Create a hard link, or a copy if the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def put_file(path: Path, content: Content) -> None:
    """Write a file and its folder. An existing file is replaced, because it may be a hard link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)


def swap_folders(root: Path, work: Path, names: Sequence[str]) -> None:
    """Rename all folders into place; after an error restore the previous ones."""
    done: list[str] = []
    try:
        for name in names:
            done.append(name)
            if (root / name).exists():
                os.replace(root / name, work / f"{name}.before")
            os.replace(work / name, root / name)
    except BaseException:
        for name in reversed(done):
            before = work / f"{name}.before"
            if before.exists() or not (work / name).exists():
                with contextlib.suppress(OSError):
                    if (root / name).exists():
                        os.replace(root / name, work / f"{name}.after")
                    if before.exists():
                        os.replace(before, root / name)
        raise

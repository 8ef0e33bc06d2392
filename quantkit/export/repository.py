"""A model repository on disk: either all models of an export are written or none; existing versions stay.

    repository/NAME/config.pbtxt          platform, tensors, batches
    repository/NAME/labels.txt            names of the classes
    repository/NAME/1/model.plan          version 1

Everything is first written to a temporary folder and then renamed into place: a new model or a new version as a folder,
what is replaced file by file; if one fails, all are restored. Other versions and other files are not touched.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from quantkit.errors import OutputError, StaleError, UsageError
from quantkit.export.checking import config_contract, parse_config
from quantkit.paths import exists, is_folder
from quantkit.regular_file import read_regular
from quantkit.staging import replace_all, staging_folder, write_failure

CONFIG = "config.pbtxt"
EMPTY = ".keep"
"""Placeholder file, because object stores and git drop empty folders."""
SIGNED = re.compile(rb"written by quantkit \d", re.IGNORECASE)
"""What quantkit writes into each configuration and client."""
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
    missing = not exists(root)
    path = root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with staging_folder(root) as work:
            for entry in entries:
                path = root / entry.name
                stage_model(work / entry.name, entry, version, configs[entry.name])
            path = root
            replace_all({new: part for entry in entries for new, part in moves(root, work, entry, version)})
    except BaseException as error:
        if missing:
            with contextlib.suppress(OSError):
                root.rmdir()
        if isinstance(error, OSError):
            raise write_failure(path, error) from None
        raise
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
    if not exists(folder):
        return own
    if not is_folder(folder):
        raise OutputError(f"{folder} is a file", remedy="use another --name")
    if exists(folder / str(version)) and not force:
        raise OutputError(
            f"{folder / str(version)} already exists",
            remedy=f"add a version (--version {newest_version(folder) + 1}), replace this one (--force), "
            "or use another --name",
        )
    for name, content in entry.own.items():
        if name != CONFIG and not force:
            refuse_foreign(folder / name, content)
    others = [v for v in existing_versions(folder) if v != version]
    there = folder / CONFIG
    if not others or not exists(there):
        return own if force else refuse_foreign(there, own)
    before = read_own(there)
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


def refuse_foreign(path: Path, content: Content) -> bytes:
    """Return the content to write to a model's folder. StaleError if another file is there, unless quantkit wrote it.

    Names of classes are no exception, because other versions use them too.
    """
    assert isinstance(content, bytes), "bug in quantkit: files of a model's own folder are text"
    if path.is_symlink() or (exists(path) and (there := read_own(path)) != content and not SIGNED.search(there)):
        raise StaleError(f"{path} already exists and differs", remedy="use another --name; --force replaces it")
    return content


def read_own(path: Path) -> bytes:
    """Read a small file of a model's folder. OutputError."""
    try:
        return read_regular(path)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}", remedy="remove it") from None


def existing_versions(folder: Path) -> list[int]:
    """Return the versions that exist."""
    return sorted(int(path.name) for path in folder.iterdir() if is_folder(path) and re.fullmatch("[0-9]+", path.name))


def newest_version(folder: Path) -> int:
    """Return the newest version that exists, or 0."""
    return max(existing_versions(folder), default=0)


def stage_model(work: Path, entry: RepositoryEntry, version: int, config: bytes) -> None:
    """Write the model's new files to a temporary folder. OSError."""
    (work / str(version)).mkdir(parents=True)
    for name, content in {**entry.own, CONFIG: config}.items():
        put_file(work / name, content)
    for name, content in (entry.version or {EMPTY: b""}).items():
        put_file(work / str(version) / name, content)


def put_file(path: Path, content: Content) -> None:
    """Write or copy a file. OSError."""
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)


def moves(root: Path, work: Path, entry: RepositoryEntry, version: int) -> Iterator[tuple[Path, Path]]:
    """Yield what is renamed for a model: its place, and the new file or folder, as large as nothing is there yet."""
    model, there = PurePath(entry.name), PurePath(entry.name, str(version))
    parts = [model]
    if exists(root / model):
        parts = [there, *(model / name for name in entry.own)]
        if exists(root / there):
            parts[:1] = [there / name for name in entry.version or {EMPTY: b""}]
    yield from ((root / part, work / part) for part in parts)

"""A content-addressed build directory: every step has a folder named by the sha256 of the inputs that determine it.

    OUTPUT/steps/table-1f3a…/        the files of the step, and step.json with its inputs and the sha256 of its files
    OUTPUT/steps/statistics.shards/  what workers have done of a step that was interrupted
    OUTPUT/steps/CACHEDIR.TAG        the mark of a folder that quantkit made (https://bford.info/cachedir/)
    OUTPUT/model.calib               a result of the last run, linked from there

A step is reused while its inputs are the same and its files are unchanged. An interrupted step leaves nothing behind:
it works in a temporary folder, which is renamed when the step is complete.

Only what quantkit wrote is ever replaced or removed: an outcome whose record fits the name of its folder, and in the
output folder a file that is the same as the file of that name in an outcome. Links are not followed.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import secrets
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from quantkit._version import __version__
from quantkit.artifact import canonical_json, sha256_of, text_bytes
from quantkit.document import DocumentType
from quantkit.errors import OutputError, QuantkitError
from quantkit.executors.work_folder import remove_shards
from quantkit.frozen_record import FrozenRecord
from quantkit.paths import exists, is_folder
from quantkit.regular_file import read_regular, regular_file_digest
from quantkit.staging import link_or_copy, lock_now, replace_all, staging_folder, write_failure

RECORD = "step.json"
FOLDER = "steps"
PARTS = ".shards"
TAG = "CACHEDIR.TAG"
SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55\n# Outcomes of the steps of quantkit run\n"
KEPT_OUTCOMES = 4
"""Number of outcomes kept per step, so that going back to an earlier option takes no time."""


def check_plain_name(name: str) -> str:
    """Return the name of a file in its folder. ValueError for a path that leads elsewhere."""
    if name != os.path.basename(name) or name in ("", ".", ".."):
        raise ValueError("not the name of a file")
    return name


class StepRecord(FrozenRecord):
    """The record of a step: its inputs, which determine the name of its folder, and the sha256 of its files."""

    step: Annotated[str, AfterValidator(check_plain_name)]
    quantkit: str
    inputs: dict[str, Any]
    files: dict[Annotated[str, AfterValidator(check_plain_name)], str]

    @property
    def folder_name(self) -> str:
        """The name of the step's folder."""
        document = {"step": self.step, "quantkit": self.quantkit, "inputs": self.inputs}
        return f"{self.step}-{sha256_of(text_bytes(canonical_json(document)))[:16]}"


RECORDS: DocumentType[StepRecord] = DocumentType(StepRecord, "the record of a step", OutputError, "run with --clean")


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """The outcome of a step. digest: sha256 over its files, for the steps that read them."""

    name: str
    folder: Path
    digest: str
    reused: bool

    def file(self, name: str) -> Path:
        """Return the path of a file that the step wrote."""
        return self.folder / name


class StepStore:
    """The outcomes of steps in one output folder."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / FOLDER

    @contextlib.contextmanager
    def lock(self, *, clean: bool = False) -> Iterator[None]:
        """Lock the folder for one run at a time; it is removed again if no step completes.

        clean: delete the results of earlier runs first. OutputError, also if another run is using the folder.
        """
        with contextlib.ExitStack() as held:
            try:
                new = [folder for folder in (self.folder, self.output) if not exists(folder)]
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(lock_folder(self.folder))
                refuse_foreign_files(self.output, [])
                held.callback(self.remove_if_empty, new)
                with staging_folder(self.output) as staging:
                    (staging / TAG).write_bytes(SIGNATURE)
                    os.replace(staging / TAG, self.folder / TAG)
            except BlockingIOError:
                raise OutputError(
                    f"another run is using {self.output}", remedy="wait for it to finish, or give another --output"
                ) from None
            except OSError as error:
                raise write_failure(self.folder, error) from None
            if clean:
                self.discard()
            yield

    def remove_if_empty(self, folders: Iterable[Path]) -> None:
        """Remove those of these folders in which there is nothing but the mark."""
        with contextlib.suppress(OSError):
            if os.listdir(self.folder) == [TAG]:
                (self.folder / TAG).unlink()
            for folder in folders:
                folder.rmdir()

    def parts_of(self, name: str) -> Path:
        """Return the folder of the shards of a step that workers have not completed."""
        return self.folder / f"{name}{PARTS}"

    def outcomes(self) -> Iterator[tuple[Path, StepRecord]]:
        """Yield the folders that runs have made, with their records."""
        for folder in self.folder.iterdir():
            if (record := own_record(folder)) is not None:
                yield folder, record

    def discard(self) -> None:
        """Remove all outcomes, and what earlier runs published of them."""
        outcomes = list(self.outcomes())
        for name in {name for _, record in outcomes for name in record.files}:
            if self.is_published(name):
                with contextlib.suppress(OSError):
                    (self.output / name).unlink()
        for folder, record in outcomes:
            remove_outcome(folder, record)
        for parts in self.folder.glob(f"*{PARTS}"):
            remove_shards(parts)

    def execute(self, name: str, inputs: Mapping[str, Any] | None, work: Callable[[Path], None]) -> StepOutcome:
        """Return the outcome of a step: the stored one, or what `work` writes into the folder that it is given.

        inputs: JSON values that determine the outcome; the version of quantkit is added. None: they cannot be known,
        and nothing is reused. Raises OutputError and the errors of `work`.
        """
        unknown = {"nobody knows": secrets.token_hex(16)}
        known = unknown if inputs is None else dict(inputs)
        record = StepRecord.model_construct(step=name, quantkit=__version__, inputs=known, files={})
        folder = self.folder / record.folder_name
        there = stored_digest(folder)
        if there is not None:
            with contextlib.suppress(OSError):
                os.utime(folder)
            return StepOutcome(name, folder, there, True)
        try:
            with staging_folder(self.output) as staging:
                temporary = staging / folder.name
                temporary.mkdir()
                work(temporary)
                files = {path.name: regular_file_digest(path) for path in sorted(temporary.iterdir())}
                text = json.dumps(dict(record) | {"files": files}, indent=2)
                (temporary / RECORD).write_text(text + "\n", encoding="utf-8")
                digest = self.move_into_place(temporary, folder) or digest_files(files)
        except OSError as error:
            raise write_failure(folder, error) from None
        self.prune(name, folder)
        return StepOutcome(name, folder, digest, False)

    def move_into_place(self, temporary: Path, folder: Path) -> str | None:
        """Rename the folder of a completed step; return the digest of what is there if it is another. OSError.

        If another run completed the same step meanwhile, its files stay, because they are in use. The files of a
        damaged outcome are replaced one by one, the record last; others beside them stay.
        """
        try:
            if not os.path.lexists(folder):
                os.rename(temporary, folder)
                return None
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if (there := stored_digest(folder)) is not None:
            return there
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "it is a link")
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == RECORD):
            if is_same(self.output / path.name, folder / path.name):
                (self.output / path.name).unlink()  # once the outcome is another, nothing would show whose file it is
            os.replace(path, folder / path.name)
        there = stored_digest(folder)
        assert there is not None, "bug in quantkit: a new outcome is not whole"
        return there

    def prune(self, name: str, newest: Path) -> None:
        """Remove the oldest outcomes of a step."""
        others = [(f, record) for f, record in self.outcomes() if record.step == name and f != newest]
        others.sort(key=lambda outcome: outcome[0].stat().st_mtime_ns, reverse=True)
        for folder, record in others[KEPT_OUTCOMES - 1 :]:
            remove_outcome(folder, record)

    def publish(self, files: Mapping[str, Path]) -> tuple[Path, ...]:
        """Link files of steps into the output folder under these names, all or none, and return their paths.

        OutputError, also for a file that no run has written.
        """
        targets = {self.output / name: source for name, source in files.items()}
        new = {target: source for target, source in targets.items() if not is_same(target, source)}
        refuse_foreign_files(self.output, [target.name for target in new])
        path = self.output
        try:
            with staging_folder(self.output) as staging:
                staged = {target: staging / str(number) for number, target in enumerate(new)}
                for path, temporary in staged.items():
                    link_or_copy(new[path], temporary)
                replace_all(staged)
        except OSError as error:
            raise write_failure(path, error) from None
        return tuple(targets)

    def withdraw(self, stem: str, kept: Collection[str]) -> None:
        """Remove files that earlier runs published for a model and this one did not, such as engines without a GPU."""
        for path in self.output.glob(f"{glob.escape(stem)}.*"):
            if path.name not in kept and self.is_published(path.name):
                with contextlib.suppress(OSError):
                    path.unlink()

    def is_published(self, name: str) -> bool:
        """Return True if the file of that name in the output folder is that of an outcome, which may be damaged."""
        pattern = f"*-{'[0-9a-f]' * 16}"
        return any(is_same(self.output / name, folder / name) for folder in self.folder.glob(pattern))


def is_same(path: Path, other: Path) -> bool:
    """Return True if two regular files are hard links to one file, or have the same content. Links are not followed."""
    try:
        found = os.lstat(path), os.lstat(other)
        if any(not stat.S_ISREG(status.st_mode) for status in found):
            return False
        return os.path.samestat(*found) or (
            found[0].st_size == found[1].st_size and regular_file_digest(path) == regular_file_digest(other)
        )
    except OSError:
        return False


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock the folder until the end of the block or of the process. BlockingIOError if another process holds the lock.

    Does nothing if the operating system or the file system has no such locks.
    """
    if not hasattr(os, "O_NOFOLLOW"):  # Windows, which opens no folders either
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if lock_now(descriptor) is False:
            raise BlockingIOError
        yield
    finally:
        os.close(descriptor)


def own_record(folder: Path) -> StepRecord | None:
    """Return the record of a folder that a run has made; None for every other folder, and for links."""
    if folder.is_symlink():
        return None
    try:
        record = RECORDS.read(folder / RECORD)
    except QuantkitError:
        return None
    return record if record.folder_name == folder.name else None


def remove_outcome(folder: Path, record: StepRecord) -> None:
    """Remove the files of an outcome, and its folder unless there are others in it."""
    with contextlib.suppress(OSError):
        for name in (*record.files, RECORD):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def stored_digest(folder: Path) -> str | None:
    """Return the digest of a complete outcome; None if there is none or a file was changed."""
    record = own_record(folder)
    try:
        if record is None or any(regular_file_digest(folder / name) != d for name, d in record.files.items()):
            return None
    except OSError:
        return None
    return digest_files(record.files)


def digest_files(files: Mapping[str, str]) -> str:
    """Return the sha256 over the names and digests of files."""
    return sha256_of(text_bytes(canonical_json(dict(files))))


def refuse_foreign_files(output: Path, names: Iterable[str]) -> None:
    """Raise OutputError if the output folder is a file, or holds steps, or files of these names, that no run wrote."""
    remedy = "give a separate folder with --output"
    if exists(output) and not is_folder(output):
        raise OutputError(f"{output} is a file", remedy="give a folder with --output")
    store = StepStore(output)
    if store.folder.is_symlink():
        raise OutputError(f"{store.folder} is a link, which quantkit run did not make", remedy=remedy)
    foreign = [] if is_own(store) else [FOLDER]
    foreign += [name for name in names if os.path.lexists(output / name) and not store.is_published(name)]
    if foreign:
        raise OutputError(f"{output} contains {', '.join(foreign)}, which quantkit run did not write", remedy=remedy)


def is_own(store: StepStore) -> bool:
    """Return True if the folder of the steps is empty or missing, or has the mark or an outcome of a run."""
    folder = store.folder
    if not os.path.lexists(folder):
        return True
    try:
        content = os.listdir(folder)
        return (
            not content
            or (TAG in content and read_regular(folder / TAG, len(SIGNATURE)) == SIGNATURE)
            or any(store.outcomes())
        )
    except OSError:
        return False

"""A content-addressed build directory: every step has a folder named by the sha256 of the inputs that determine it.

    OUTPUT/steps/table-1f3a…/        the files of the step, and step.json with its inputs and the sha256 of its files
    OUTPUT/model.calib               a result of the last run, linked from there

A step is reused while its inputs are the same and its files are unchanged. An interrupted step leaves nothing behind:
it works in a temporary folder, which is renamed when the step is complete.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantkit._version import __version__
from quantkit.artifact import canonical_json, sha256_of, text_bytes, write_failure
from quantkit.errors import OutputError
from quantkit.regular_file import read_regular_text, regular_file_digest

RECORD = "step.json"
FOLDER = "steps"
KEPT_OUTCOMES = 4
"""Number of outcomes kept per step, so that going back to an earlier option takes no time."""


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

        clean: delete all outcomes first. OutputError, also if another run is using the folder.
        """
        with contextlib.ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(lock_folder(self.folder))
            except BlockingIOError:
                raise OutputError(
                    f"another run is using {self.output}", remedy="wait for it to finish, or give another --output"
                ) from None
            except OSError as error:
                raise write_failure(self.folder, error) from None
            held.callback(self.remove_if_empty)
            for left in self.folder.glob("*" if clean else ".*.tmp"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def remove_if_empty(self) -> None:
        """Remove the folders if they are empty."""
        with contextlib.suppress(OSError):  # not empty
            self.folder.rmdir()
            self.output.rmdir()

    def execute(self, name: str, inputs: Mapping[str, Any] | None, work: Callable[[Path], None]) -> StepOutcome:
        """Return the outcome of a step: the stored one, or what `work` writes into the folder that it is given.

        inputs: JSON values that determine the outcome; the version of quantkit is added. None: they cannot be known,
        and nothing is reused. Raises OutputError and the errors of `work`.
        """
        unknown = {"nobody knows": secrets.token_hex(16)}
        document = {"step": name, "quantkit": __version__, "inputs": unknown if inputs is None else inputs}
        folder = self.folder / f"{name}-{sha256_of(text_bytes(canonical_json(document)))[:16]}"
        there = stored_digest(folder)
        if there is not None:
            with contextlib.suppress(OSError):
                os.utime(folder)
            return StepOutcome(name, folder, there, True)
        temporary = self.folder / f".{folder.name}.{secrets.token_hex(4)}.tmp"
        try:
            temporary.mkdir()
            work(temporary)
            files = {path.name: regular_file_digest(path) for path in sorted(temporary.iterdir())}
            (temporary / RECORD).write_text(json.dumps(document | {"files": files}, indent=2) + "\n", encoding="utf-8")
            digest = move_into_place(temporary, folder)
        except OSError as error:
            raise write_failure(folder, error) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self.prune(name, folder)
        return StepOutcome(name, folder, digest, False)

    def prune(self, name: str, newest: Path) -> None:
        """Remove the oldest outcomes of a step."""
        others = [path for path in self.folder.glob(f"{name}-*") if path != newest]
        for path in sorted(others, key=lambda p: p.stat().st_mtime_ns, reverse=True)[KEPT_OUTCOMES - 1 :]:
            shutil.rmtree(path, ignore_errors=True)

    def publish(self, files: Mapping[str, Path]) -> Iterator[Path]:
        """Link files of steps into the output folder under these names, and yield their paths. OutputError."""
        for name, source in files.items():
            target = self.output / name
            temporary = self.output / f".{name}.{secrets.token_hex(4)}.tmp"
            try:
                if not (target.exists() and target.samefile(source)):
                    link_or_copy(source, temporary)
                    os.replace(temporary, target)
            except OSError as error:
                raise write_failure(target, error) from None
            finally:
                temporary.unlink(missing_ok=True)
            yield target

    def withdraw(self, stem: str, kept: Collection[str]) -> None:
        """Remove files that earlier runs published for a model and this one did not, such as engines without a GPU."""
        made = {file_number(path) for path in self.folder.glob("*/*")}
        for path in self.output.glob(f"{glob.escape(stem)}.*"):
            if path.name not in kept and path.is_file() and file_number(path) in made:
                with contextlib.suppress(OSError):
                    path.unlink()


def file_number(path: Path) -> tuple[int, int]:
    """Return device and inode, which all hard links to one file share."""
    status = path.stat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock the folder until the end of the block or of the process. BlockingIOError if another process holds the lock.

    Does nothing if the operating system or the file system has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def stored_digest(folder: Path) -> str | None:
    """Return the digest of a complete outcome; None if there is none or a file was changed."""
    try:
        files: Mapping[str, str] = json.loads(read_regular_text(folder / RECORD))["files"]
        whole = all(regular_file_digest(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return digest_files(files) if whole else None


def move_into_place(temporary: Path, folder: Path) -> str:
    """Rename the folder of a completed step and return its digest. OSError.

    If another run completed the same step meanwhile, its files stay, because they are in use; damaged ones are removed.
    """
    while (there := stored_digest(folder)) is None:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.replace(temporary, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or stored_digest(folder) is None:
                raise
    return there


def digest_files(files: Mapping[str, str]) -> str:
    """Return the sha256 over the names and digests of files."""
    return sha256_of(text_bytes(canonical_json(dict(files))))


def link_or_copy(source: Path, target: Path) -> None:
    """Create a hard link, or a copy if that is impossible. `stored_digest` detects edits through the link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def refuse_foreign_files(output: Path, names: Iterable[str]) -> None:
    """Raise OutputError if the output folder is a file, or holds files of these names that no run has written."""
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file", remedy="give a folder with --output")
    if (output / FOLDER).is_dir():
        return
    there = [name for name in names if (output / name).exists()]
    if there:
        raise OutputError(
            f"{output} contains {', '.join(there)}, which quantkit run did not write",
            remedy="give a separate folder with --output",
        )

"""Files are written whole or not at all: prepared in a folder beside their place, then renamed.

    .quantkit.1f3a9c04.tmp/          new files, and a mark, which the process that writes them keeps locked

A process that is killed leaves its folder behind. The next one that writes beside it recognizes the mark, finds it
unlocked, and removes the folder. What has no mark is left alone. A verb that works for long also claims its outputs
there, so that a second one for the same outputs is refused before it begins.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from quantkit.errors import OutputError, StaleError
from quantkit.paths import exists, file_status
from quantkit.regular_file import open_regular, read_regular, regular_file_digest

OUTPUT = "--output"
"""The usual option for the path of an output; errors name the option to change."""
MARK = ".quantkit"
CLAIMS = ".claims"
"""File with the names of the outputs that its process will write, one per line."""
SIGNATURE = b"quantkit is writing the files in this folder; if it was killed, the next run removes them\n"
LOCK = ".quantkit.lock"
PATTERN = ".quantkit.*.tmp"


def write_failure(path: Path, error: OSError, option: str = OUTPUT) -> OutputError:
    """Return the OSError of a write as an error with a remedy: free space, or another path by `option`."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return OutputError(
        f"cannot write {path}: {error.strerror or error}",
        remedy=f"{'free some space, or ' if full else ''}write elsewhere with {option}",
    )


def refuse_non_file(path: Path, option: str = OUTPUT) -> None:
    """Raise OutputError where a rename to `path` would replace a folder, a device, a pipe (/dev/null), or a link whose
    target is missing, perhaps because its disk is not there at the moment."""
    there = file_status(path)
    dangling = there is None and path.is_symlink()
    if path.name and not dangling and (there is None or stat.S_ISREG(there.st_mode)):
        return
    kind = "a link to something that does not exist" if dangling else "not a file name"
    if there is not None:
        kind = "a directory" if stat.S_ISDIR(there.st_mode) else "a device or a pipe"
    raise OutputError(f"cannot write {str(path)!r}: it is {kind}", remedy=f"give the path of a file with {option}")


def refuse_existing(path: Path, *, force: bool, option: str = OUTPUT) -> None:
    """Raise StaleError where a file exists and must not be replaced; `option` names its path."""
    if not force and exists(path):
        raise StaleError(f"{path} already exists", remedy=f"another {option} keeps both; --force replaces it")


@contextlib.contextmanager
def claimed_outputs(paths: Iterable[Path], option: str = OUTPUT) -> Iterator[None]:
    """Keep outputs for this call until the end of the block. OutputError if another process, or another call of this
    one, holds one of them, or if nothing can be written beside them."""
    names: dict[Path, list[str]] = {}
    for path in paths:
        names.setdefault(path.parent, []).append(path.name)
    with contextlib.ExitStack() as held:
        for parent, claims in names.items():
            try:
                held.enter_context(staging_folder(parent, claims))
            except OSError as error:
                raise write_failure(parent / claims[0], error, option) from None
        yield


@contextlib.contextmanager
def staging_folder(parent: Path, claims: Collection[str] = ()) -> Iterator[Path]:
    """Create a folder for unfinished files in `parent`, and remove it at the end of the block. OSError.

    claims: names of files in `parent` that no other process may claim meanwhile. OutputError if one does already.
    """
    folder = parent / f".quantkit.{secrets.token_hex(4)}.tmp"
    with contextlib.ExitStack() as held:
        with locked_folders([parent]):
            refuse_claimed(parent, claims)
            folder.mkdir()
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            mark = held.enter_context(open(folder / MARK, "xb", buffering=0))
            lock_now(mark.fileno())
            mark.write(SIGNATURE)
            if claims:
                (folder / CLAIMS).write_bytes(b"\n".join(map(os.fsencode, claims)))
        yield folder


def refuse_claimed(parent: Path, claims: Collection[str]) -> None:
    """Remove the staging folders of processes that no longer run. OutputError if one that runs has such a claim."""
    for folder in parent.glob(PATTERN):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or not folder.is_dir():
                continue
            try:
                with open_regular(folder / MARK) as mark:
                    signed = mark.read(len(SIGNATURE) + 1)
                    if signed != SIGNATURE and (signed or os.listdir(folder) != [MARK]):
                        continue
                    free = lock_now(mark.fileno())
                    if free:
                        shutil.rmtree(folder, ignore_errors=True)
                    elif claims and free is not None:
                        theirs = read_regular(folder / CLAIMS).split(b"\n")
                        for name in {*map(os.fsencode, claims)} & {*theirs}:
                            raise OutputError(
                                f"another process is writing {parent / os.fsdecode(name)}",
                                remedy="wait until it has finished, or write elsewhere",
                            )
            except FileNotFoundError:
                folder.rmdir()  # killed before the mark was written: the folder is empty, or somebody else's


def lock_now(descriptor: int) -> bool | None:
    """Lock an open file until it is closed; False if another holds the lock, None if the file system has no locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


@contextlib.contextmanager
def locked_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Wait for and lock folders, so that files that belong together are replaced by one process at a time.

    The lock is a file `.quantkit.lock`, which is removed afterwards: the folder itself may be locked by the program
    that started this one. Does nothing if the operating system or the file system has no such locks.
    """
    with contextlib.ExitStack() as held:
        for folder in sorted({os.path.realpath(folder) for folder in folders}):  # in one order: no deadlock
            with contextlib.suppress(ImportError, OSError):
                while not lock_file(Path(folder, LOCK), held):
                    continue  # its owner has removed it: this call creates another
        yield


@contextlib.contextmanager
def removed_at_end(path: Path) -> Iterator[None]:
    """Remove a file at the end of the block, if that is possible."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def lock_file(path: Path, held: contextlib.ExitStack) -> bool:
    """Create a file if there is none, and lock it until `held` is closed; False if it was removed meanwhile.

    An empty file is removed at the end. OSError if it cannot be opened or locked; ImportError without locks.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        ours = os.fstat(descriptor)
        try:
            if not os.path.samestat(ours, os.lstat(path)):
                return False
        except FileNotFoundError:
            return False
        if stat.S_ISREG(ours.st_mode) and ours.st_size == 0:
            opened.enter_context(removed_at_end(path))  # before it is unlocked
        held.push(opened.pop_all())
    return True


class StagedFiles:
    """New files, each still beside its place."""

    def __init__(self, option: str, may_replace: Callable[[Path], bool]) -> None:
        self.option, self._may_replace = option, may_replace
        self.staged: dict[Path, Path] = {}
        self.current = Path()
        """The file that an error is about."""
        self._folders: dict[Path, Path] = {}
        self._held = contextlib.ExitStack()

    def place(self, path: Path) -> Path:
        """Return the path to which the new content of `path` is to be written. OSError, OutputError."""
        self.current = path
        refuse_non_file(path, self.option)
        if path.parent not in self._folders:
            self._folders[path.parent] = self._held.enter_context(staging_folder(path.parent))
        return self.staged.setdefault(path, self._folders[path.parent] / str(len(self.staged)))

    def write(self, path: Path, content: bytes) -> None:
        """Write the new content of `path`. OSError."""
        self.place(path).write_bytes(content)

    def digests(self) -> dict[str, str]:
        """Return file name → sha256 of everything that was written so far. OSError."""
        return {path.name: regular_file_digest(new) for path, new in self.staged.items()}

    def put_into_place(self) -> None:
        """Rename all files. OSError, or StaleError, after which everything is as it was."""
        with locked_folders(self._folders):
            for path in self.staged:
                refuse_existing(path, force=self._may_replace(path), option=self.option)
            replace_all(self.staged)

    def close(self) -> None:
        """Remove the staging folders."""
        self._held.close()


def replace_all(staged: Mapping[Path, Path]) -> None:
    """Rename new files and folders into place. OSError, after which everything is as it was.

    staged: path → what becomes it, in a staging folder, where the previous content is kept meanwhile.
    """
    before: dict[Path, Path] = {}
    try:
        if len(staged) > 1:
            for path, new in staged.items():
                if os.path.lexists(path):
                    before[path] = new.with_name(f"{new.name}.before")
                    keep_previous(path, before[path])
            if os.path.lexists(path):
                path.unlink()  # the last file never lies beside companions of another, even after a kill
        for path, new in staged.items():
            os.replace(new, path)
    except BaseException:
        for path, new in reversed(list(staged.items())):
            with contextlib.suppress(OSError):
                if not os.path.lexists(new):
                    os.rename(path, new)
            with contextlib.suppress(OSError):
                if path in before:
                    os.rename(before[path], path)
        raise


def keep_previous(path: Path, kept: Path) -> None:
    """Keep the file or folder at `path`, which is to be replaced, at `kept` too; a folder is moved. OSError."""
    if path.is_dir() and not path.is_symlink():
        os.replace(path, kept)
    else:
        link_or_copy(path, kept)


def link_or_copy(source: Path, target: Path) -> None:
    """Create a hard link, or a copy if that is impossible. A link to a file stays a link. OSError."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copyfile(source, target, follow_symlinks=False)


@contextlib.contextmanager
def staged_files(
    option: str = OUTPUT, *, may_replace: Callable[[Path], bool] = lambda _: True
) -> Iterator[StagedFiles]:
    """Give a place for new files, which are renamed at the end of the block: all of them, or none after an error.

    option: the option that names the output. may_replace: False for a path where no file may lie at the end, although
    none was there when the work began. OutputError where directory, disk or permissions forbid it, StaleError.
    """
    files = StagedFiles(option, may_replace)
    try:
        yield files
        files.put_into_place()
    except OSError as error:
        named = {error.filename, error.filename2}
        path = next((path for path in files.staged if named & {path, str(path)}), files.current)
        raise write_failure(path, error, option) from None
    finally:
        files.close()

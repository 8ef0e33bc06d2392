"""The folder beside an output in which the results of shards wait until all are there.

    model.calib                                         the output
    model.calib.shards/0003-of-0064.stats.safetensors   a result, which lands whole or not at all

A command that was killed leaves it behind. The same command goes on with what is there; what belongs to another run is
refused, with what is different, or replaced with --force.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from quantkit.errors import QuantkitError, StaleError
from quantkit.paths import beside, exists
from quantkit.regular_file import read_regular
from quantkit.sharding import RunIdentity, Shard, ShardRecord
from quantkit.sharding.completeness import describe_differences
from quantkit.sharding.folder import ShardFolder
from quantkit.sharding.record import run_of_count
from quantkit.sharding.shard import shard_of_file
from quantkit.staging import staging_folder, write_failure

REMEDY = "use the options of that run, or start again with --force"


def work_path(output: Path) -> Path:
    """Return the folder of an output: `x.calib` → `x.calib.shards`."""
    return beside(output, f"{output.name}.shards")


class WorkFolder:
    """Results of the shards of one run. suffix: of their files. read: returns the record in a file's content."""

    def __init__(self, path: Path, suffix: str, read: Callable[[bytes, str], ShardRecord]) -> None:
        self.path, self._read = path, read
        self._folder = ShardFolder(path, suffix)

    def place(self, shard: Shard) -> Path:
        """Return the path of a shard's file."""
        return Path(self._folder.file_of(shard))

    def write(self, shard: Shard, content: bytes) -> None:
        """Write the result of a shard, whole or not at all. OutputError."""
        self._folder.write(shard, content, force=True)

    def content(self, shard: Shard) -> bytes:
        """Return the result of a shard. OSError."""
        return read_regular(self.place(shard))

    def open(self, run: RunIdentity, count: int, fits: Callable[[ShardRecord], bool], *, force: bool) -> set[Shard]:
        """Create the folder, and return the shards whose results are there, and are right.

        run: what the shards have in common. fits: whether a result is of the samples as they are now; otherwise it is
        made again. StaleError where the folder holds another run; with `force` it is removed. OutputError.
        """
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise write_failure(self.path, error) from None
        ours, found = run_of_count(run, count), set()
        for file, shard in self._folder.shards().items():
            try:
                record = self._read(read_regular(file), file)
                if record.shard != shard or record.identity.digest != ours.digest:
                    raise other_run(self.path, record, ours)
            except (QuantkitError, OSError) as error:
                if not force:
                    raise error if isinstance(error, StaleError) else damaged(file) from None
                self.discard([shard])
                continue
            if fits(record):
                found.add(shard)
        return found

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.path.rmdir()  # if it is empty: nothing was done

    def discard(self, shards: Iterable[Shard]) -> None:
        """Remove the results of shards that are to be run again."""
        for shard in shards:
            self.place(shard).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the results, and the folder if nothing else is in it."""
        remove_shards(self.path)


def other_run(folder: Path, record: ShardRecord, ours: RunIdentity) -> StaleError:
    """Return the error for results of another run."""
    changed = describe_differences(record.identity, ours) or "its shards"
    return StaleError(f"{folder} holds shards of an interrupted run that differs: {changed}", remedy=REMEDY)


def damaged(path: str) -> StaleError:
    """Return the error for a file that is no result of a shard."""
    return StaleError(f"{path} is damaged, or something else", remedy="start again with --force, or remove it")


def settle_interrupted_shards(output: Path, *, force: bool) -> None:
    """Raise StaleError where a run that was divided among workers was interrupted; with `force` remove its shards."""
    folder = work_path(output)
    if force:
        remove_shards(folder)
    elif exists(folder):
        raise StaleError(
            f"{folder} holds the shards of an interrupted run",
            remedy="continue that run with the same --workers or --on, or start again with --force",
        )


def remove_shards(folder: Path) -> None:
    """Remove the files of shards in a folder, and the folder if nothing else is in it."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if shard_of_file(path.name) is not None:
                path.unlink()
        with staging_folder(folder):  # removes what killed commands have left
            pass
        folder.rmdir()


def missing_shards_of(count: int, done: Collection[Shard]) -> list[Shard]:
    """Return the shards of a run that have no result, in order."""
    return [shard for index in range(count) if (shard := Shard(index, count)) not in done]

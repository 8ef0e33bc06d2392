"""Lines about one shard of a run: its file, and how many of the run are there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quantkit.cli.terminal.console import note, print_fields, print_line

if TYPE_CHECKING:
    from quantkit.sharding import ShardRecord


class ShardOfTotals(Protocol):
    """The common part of what `evaluate_shard` and `layers_shard` return."""

    @property
    def record(self) -> ShardRecord:
        """The part of the run."""

    @property
    def file(self) -> str:
        """The path or the URL of its totals."""

    @property
    def reused(self) -> bool:
        """True if it was there, and nothing changed."""

    @property
    def seconds(self) -> float:
        """The time that it took."""


def print_shard_of_totals(made: ShardOfTotals, about: Sequence[tuple[str, str]], suffix: str) -> None:
    """Print what a shard was made from, and how many of the run are there. about: what it holds."""
    if made.reused:
        note("nothing changed: the existing shard is reused")
    print_fields([*about, ("shard", describe_shard(made.record)), ("time", f"{made.seconds:.1f} s")])
    merging = "the same command with --merge {} instead of --shard"
    print_shard_file(made.file, made.record, suffix, merging, reused=made.reused)


def describe_shard(record: ShardRecord) -> str:
    """Return which part of the run a shard is."""
    return f"{record.shard}, batches {record.start} to {record.stop - 1} of the run"


def shard_fields(record: ShardRecord, file: str, *, reused: bool) -> dict[str, Any]:
    """Return one shard for programs."""
    return {
        "shard": str(record.shard),
        "file": file,
        "reused": reused,
        "batches": record.stop - record.start,
    }


def print_shard_file(file: str | Path, record: ShardRecord, suffix: str, merging: str, *, reused: bool) -> None:
    """Print the file of a shard, and how to merge when all are there. merging: the command, with {} for the place."""
    from quantkit.sharding.folder import ShardFolder

    print_line(f"{'file' if reused else 'wrote'}  {file}")
    place = str(file).rpartition("/")[0] or "."
    found = [shard.count for shard in ShardFolder(place, suffix).shards().values()]
    there = found.count(record.count)
    if there < record.count:
        print_line(f"{there} of {record.count} shards {'is' if there == 1 else 'are'} there")
    elif other := next((count for count in found if count != record.count), None):
        print_line(f"all shards are there, but so are some of {other}: remove those of one run before you merge")
    else:
        print_line(f"all shards are there; merge them: {merging.format(shlex.quote(place))}")

"""Lines about one shard of a run: its file, and how many of the run are there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit.cli.terminal.console import print_line

if TYPE_CHECKING:
    from quantkit.sharding import ShardRecord


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

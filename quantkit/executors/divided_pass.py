"""A pass that is divided among workers: the shards that have no result yet are run, and each result is kept at once."""

from __future__ import annotations

from collections.abc import Collection

from quantkit.errors import Interrupted
from quantkit.executors.dispatch import run_shards
from quantkit.executors.engines import open_crew
from quantkit.executors.placement import Placement
from quantkit.executors.task import ShardTask
from quantkit.executors.work_folder import WorkFolder
from quantkit.progress import Progress
from quantkit.sharding import Shard

MOST_SHARDS = 256
"""Shards of a pass: enough that a lost one costs little, and few enough that their results take little room."""


def number_of_shards(batches: int) -> int:
    """Return how many shards a pass of so many batches has, whatever the number of workers."""
    return max(1, min(batches, MOST_SHARDS))


def run_missing(
    task: ShardTask,
    placement: Placement,
    folder: WorkFolder,
    missing: Collection[Shard],
    progress: Progress,
    *,
    threads: int,
    kept: bool,
) -> None:
    """Run shards, and write each result into the folder as it comes. The progress has begun.

    threads: of all workers on this machine. kept: the folder outlives the command. Interrupted if the user stops it,
    after all workers have ended; OutputError, and the error of a worker.
    """
    if not missing:
        return
    left = len(missing)
    with open_crew(task, placement, threads) as crew:
        for shard, result in run_shards(crew, missing, progress.stopped):
            folder.write(shard, result.content)
            progress.advance(result.samples)
            left -= 1
    if left:
        count = next(iter(missing)).count
        raise Interrupted(
            f"stopped after {count - left} of {count} shards",
            remedy="the same command goes on" if kept else "start again",
        )

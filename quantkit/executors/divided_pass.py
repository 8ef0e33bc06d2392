"""A pass that is divided among workers: the shards that have no result yet are run, and each result is kept at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quantkit.errors import Interrupted
from quantkit.executors.dispatch import run_shards
from quantkit.executors.engines import open_crew
from quantkit.executors.placement import Placement
from quantkit.executors.task import ShardTask
from quantkit.executors.work_folder import WorkFolder, missing_shards_of
from quantkit.progress import Progress
from quantkit.sharding import Shard

MOST_SHARDS = 256
"""Shards of a pass: enough that a lost one costs little, and few enough that their results take little room."""


def number_of_shards(batches: int, most: int = MOST_SHARDS) -> int:
    """Return how many shards a pass of so many batches has, whatever the number of workers. most: at the most."""
    return max(1, min(batches, most, MOST_SHARDS))


@dataclass(frozen=True, slots=True)
class DividedPass:
    """A pass over data that is divided into `count` shards.

    samples: of the whole pass, and samples_of: of a shard, for the progress; None and 0 if they are not known. threads:
    of all workers on this machine together. kept: the folder outlives the command.
    """

    placement: Placement
    folder: WorkFolder
    count: int
    samples: int | None
    samples_of: Callable[[Shard], int | None]
    threads: int
    kept: bool

    def run(self, task: ShardTask, done: set[Shard], progress: Progress) -> None:
        """Run the shards that are not in `done`, and add them; each result is written into the folder as it comes.

        Interrupted if the user stops it, after all workers have ended; OutputError, and the error of a worker.
        """
        progress.start(self.samples, 1, sum(self.samples_of(shard) or 0 for shard in done))
        try:
            self._run_missing(task, done, progress)
        finally:
            progress.close()

    def _run_missing(self, task: ShardTask, done: set[Shard], progress: Progress) -> None:
        missing = missing_shards_of(self.count, done)
        if not missing:
            return
        with open_crew(task, self.placement, self.threads) as crew:
            for shard, result in run_shards(crew, missing, progress.stopped):
                self.folder.write(shard, result.content)
                done.add(shard)
                progress.advance(result.samples)
        if len(done) < self.count:
            raise Interrupted(
                f"stopped after {len(done)} of {self.count} shards",
                remedy="the same command goes on" if self.kept else "start again",
            )

"""A pass by several workers: each runs shards of it, and their totals add up to those of one run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from quantkit.data import DataOptions, Feed
from quantkit.data.opening import default_threads
from quantkit.executors import Placement, ShardTask
from quantkit.executors.divided_pass import DividedPass, number_of_shards
from quantkit.executors.work_folder import WorkFolder, missing_shards_of
from quantkit.progress import Progress
from quantkit.sharding import Shard, ShardRecord
from quantkit.sharding.data_parts import digest_stamps, shard_batches
from quantkit.staging import claimed_outputs
from quantkit.totals.shard_files import ShardMaker
from quantkit.totals.tree_file import TotalsFormat


@dataclass(frozen=True, slots=True)
class Division:
    """How a pass is divided. parts: folder in which results wait, which stays; None: a temporary one.

    data: the options of reading. force: replace the results of another run. shard_samples: about as many as a shard
    has at least, where it costs much to begin one.
    """

    placement: Placement
    data: DataOptions
    parts: str | Path | None
    force: bool
    shard_samples: int = 1


@contextlib.contextmanager
def run_by_workers(
    maker: ShardMaker, form: TotalsFormat, task: ShardTask, division: Division, progress: Progress
) -> Iterator[Iterator[tuple[str, bytes]]]:
    """Run what is missing of the shards, and yield name and content of the results of all, to be read one at a time.

    maker: of this process, which knows the run. The folder `parts` stays, for the caller to remove when the result is
    safe. Raises the error of a worker, StaleError, DataError, UsageError, Interrupted, OutputError.
    """
    division.placement.refuse_threads(division.data.threads, default_threads())
    feed, kept = maker.feed, division.parts is not None
    shard_batches(feed, Shard(0, 1))  # refuses data that cannot be divided
    count = number_of_shards(feed.batches or 0, samples_of_pass(feed) // division.shard_samples)
    with ExitStack() as held:
        place = Path(division.parts or Path(held.enter_context(tempfile.TemporaryDirectory()), "work"))
        held.enter_context(claimed_outputs([place]))
        folder = held.enter_context(
            WorkFolder(place, form.suffix, lambda content, name: form.parse(content, name).shard)
        )

        def is_fresh(record: ShardRecord) -> bool:
            unchanged = record.files and record.files == digest_stamps(feed.part(shard_batches(feed, record.shard)))
            if not unchanged or (record.skipped and not division.data.skip_corrupt):
                return False
            return not maker.reason_to_renew(form.parse(folder.content(record.shard), str(record.shard)))

        done = folder.open(maker.run, count, is_fresh, force=division.force)
        pass_ = DividedPass(
            division.placement,
            folder,
            count,
            feed.samples,
            lambda shard: feed.part(shard_batches(feed, shard)).samples,
            division.data.threads,
            kept,
        )
        pass_.run(task, done, progress)
        yield read_parts(folder, count)


def samples_of_pass(feed: Feed) -> int:
    """Return the number of samples; of batches whose sizes are not known, as if all were full."""
    return feed.samples if feed.samples is not None else (feed.batches or 0) * (feed.batch_size or 1)


def read_parts(folder: WorkFolder, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the results of all shards, one at a time."""
    for shard in missing_shards_of(count, ()):
        yield str(folder.place(shard)), folder.content(shard)

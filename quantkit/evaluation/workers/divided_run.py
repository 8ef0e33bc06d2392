"""Evaluation by several workers: each runs shards of the pass, and their totals add up to those of one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from quantkit.data.opening import default_threads
from quantkit.evaluation.options import EvaluateOptions
from quantkit.evaluation.result import Evaluation
from quantkit.evaluation.shards.evaluator import ShardEvaluator
from quantkit.evaluation.shards.files import SUFFIX
from quantkit.evaluation.shards.merge import merge_evaluations
from quantkit.evaluation.shards.tree_file import parse_totals
from quantkit.evaluation.workers.task import EvaluationTask
from quantkit.executors.divided_pass import DividedPass, number_of_shards
from quantkit.executors.work_folder import WorkFolder, missing_shards_of
from quantkit.progress import Progress
from quantkit.sharding import ShardRecord
from quantkit.sharding.data_parts import digest_stamps, shard_batches
from quantkit.staging import claimed_outputs


def evaluate_by_workers(
    evaluator: ShardEvaluator, task: EvaluationTask, options: EvaluateOptions, progress: Progress, started: float
) -> Evaluation:
    """Run what is missing of the shards, and add up all. Raises what `evaluate` raises.

    evaluator: of this process, which runs the first batch alone. The folder `options.parts` stays, for the caller to
    remove when the result is safe.
    """
    options.placement.refuse_threads(options.data.threads, default_threads())
    feed, count = evaluator.feed, number_of_shards(evaluator.feed.batches or 0)
    with ExitStack() as held:
        kept = options.parts is not None
        place = Path(options.parts) if options.parts is not None else None
        if place is None:
            place = Path(held.enter_context(tempfile.TemporaryDirectory()), "work")
        held.enter_context(claimed_outputs([place]))
        folder = held.enter_context(WorkFolder(place, SUFFIX, read_record))

        def is_fresh(record: ShardRecord) -> bool:
            unchanged = record.files and record.files == digest_stamps(feed.part(shard_batches(feed, record.shard)))
            if not unchanged or (record.skipped and not options.data.skip_corrupt):
                return False
            return not evaluator.has_other_labels(parse_totals(folder.content(record.shard), str(record.shard)))

        done = folder.open(evaluator.run, count, is_fresh, force=options.force)
        pass_ = DividedPass(
            options.placement,
            folder,
            count,
            feed.samples,
            lambda shard: feed.part(shard_batches(feed, shard)).samples,
            options.data.threads,
            kept,
        )
        pass_.run(task, done, progress)
        result = merge_evaluations(evaluator, read_parts(folder, count))
    return replace(result, seconds=time.monotonic() - started)


def read_record(content: bytes, name: str) -> ShardRecord:
    """Return the record in the content of a shard's file. ShardError."""
    return parse_totals(content, name).shard


def read_parts(folder: WorkFolder, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the results of all shards, one at a time."""
    for shard in missing_shards_of(count, ()):
        yield str(folder.place(shard)), folder.content(shard)

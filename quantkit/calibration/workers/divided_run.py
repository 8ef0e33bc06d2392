"""Calibration by several workers: each runs shards of the pass, and their statistics merge to those of one run."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantkit.calibration.files import PassCounts
from quantkit.calibration.job import CalibrationJob
from quantkit.calibration.onnxruntime_run import complete_calibration
from quantkit.calibration.result import Calibration
from quantkit.calibration.shard_files import SUFFIX
from quantkit.calibration.shard_run import identify_run
from quantkit.calibration.tables import describe_few
from quantkit.calibration.unscalable import describe_unscalable
from quantkit.calibration.workers.task import CalibrationTask
from quantkit.data import DataIdentity, Feed
from quantkit.data.opening import default_threads
from quantkit.data.peeking import DataWatcher
from quantkit.data.preflight import WATCHED
from quantkit.errors import ShardError
from quantkit.executors.divided_pass import DividedPass, number_of_shards
from quantkit.executors.work_folder import WorkFolder, missing_shards_of, work_path
from quantkit.graph import refuse_changed_weights
from quantkit.progress import Progress
from quantkit.sharding import Shard, ShardRecord
from quantkit.sharding.data_parts import digest_stamps, shard_batches
from quantkit.statistics import Statistics, parse_statistics
from quantkit.statistics.grids import OtherRangesError
from quantkit.statistics.shard_merging import ShardMerger


def calibrate_by_workers(
    job: CalibrationJob, given: tuple[Any, Any], progress: Progress, started: float, why: tuple[str, ...] = ()
) -> Calibration:
    """Run what is missing of the shards, merge all, and write the results. Raises what `calibrate` raises.

    given: model and data, as `calibrate` was given them.
    """
    job.options.placement.refuse_threads(job.options.data.threads, default_threads())
    run, task = identify_run(job), CalibrationTask.of(job, *given)
    shard_batches(job.feed, Shard(0, 1))  # refuses data that cannot be divided
    count = number_of_shards(job.feed.batches or 0)
    with ExitStack() as held:
        chosen = job.options.parts or (work_path(job.output) if job.output else None)
        place = Path(chosen or Path(held.enter_context(tempfile.TemporaryDirectory()), "work"))
        folder = held.enter_context(WorkFolder(place, SUFFIX, read_record))
        done = folder.open(run, count, lambda record: is_fresh(job, record), force=job.options.force)
        pass_ = DividedPass(
            job.options.placement,
            folder,
            count,
            job.feed.samples,
            lambda shard: part_of(job, shard).samples,
            job.options.data.threads,
            kept=chosen is not None,
        )
        pass_.run(task, done, progress)
        try:
            merged = merge_folder(folder, count)
        except OtherRangesError as error:
            # A tensor was zero in all leading batches: some shards could not know its first range, and do now.
            again = {Shard.named(name) for name in error.shards}
            folder.discard(again)
            pass_.run(replace(task, first_ranges=error.first_ranges), done - again, progress)
            merged = merge_folder(folder, count)
        refuse_changed_weights(job.model)
        result = complete_divided(job, merged, started, why)
        if job.options.parts is None:
            folder.remove()
    return result


@dataclass(frozen=True, slots=True)
class MergedShards:
    """The statistics of all shards, the digest of the samples in order, and those that were skipped, with reasons."""

    statistics: Statistics
    order: str
    skipped: tuple[str, ...]


def merge_folder(folder: WorkFolder, count: int) -> MergedShards:
    """Merge the results of all shards; one is held at a time. StatisticsError, OtherRangesError."""
    merger, skipped = ShardMerger(), list[str]()
    for shard in missing_shards_of(count, ()):
        part = parse_statistics(folder.content(shard), str(folder.place(shard)))
        skipped += record_of(part).skipped
        merger.add(str(shard), part)
    return MergedShards(merger.merged(), merger.order(), tuple(skipped))


def complete_divided(job: CalibrationJob, merged: MergedShards, started: float, why: tuple[str, ...]) -> Calibration:
    """Write the results of merged statistics, as one run would."""
    feed, origin = job.feed, merged.statistics.origin
    watcher = DataWatcher(job.spec.applied)
    for portion in feed.part(range(min(WATCHED, feed.batches or 0))).portions():
        watcher.see(portion)
    watcher.look()
    feed.unreadable[:] = merged.skipped
    batches = feed.batches or 0
    if feed.batch_size is not None:
        batches = -(-origin.samples // feed.batch_size)
    chosen = origin.samples if feed.samples is None else feed.samples
    identity = DataIdentity(origin.data, merged.order, chosen)
    counted = PassCounts(identity, origin.samples, batches, origin.backend, origin.slice)
    notes = (*why, *feed.notes, *describe_unscalable(merged.statistics), *describe_few(job.rules, origin.samples))
    return complete_calibration(job, merged.statistics, counted, started, notes, watcher.warnings)


def read_record(content: bytes, name: str) -> ShardRecord:
    """Return the record in the content of a shard's file. StatisticsError."""
    return record_of(parse_statistics(content, name))


def record_of(part: Statistics) -> ShardRecord:
    """Return the record of a shard's statistics. ShardError where they are of no shard."""
    if part.shard is None:
        raise ShardError("it is no shard", remedy="remove it")
    return part.shard


def is_fresh(job: CalibrationJob, record: ShardRecord) -> bool:
    """Return True if the files of a shard are as they were, and it left out nothing that may not be left out."""
    unchanged = record.files and record.files == digest_stamps(part_of(job, record.shard))
    return bool(unchanged) and (job.options.data.skip_corrupt or not record.skipped)


def part_of(job: CalibrationJob, shard: Shard) -> Feed:
    """Return the samples of a shard."""
    return job.feed.part(shard_batches(job.feed, shard))

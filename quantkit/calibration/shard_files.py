"""Shards of a calibration as files: made once, reused if nothing changed, and merged into the statistics of the run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from quantkit.calibration.first_ranges import counted_from, read_first_ranges
from quantkit.calibration.job import CalibrationJob
from quantkit.calibration.result import Calibration, CalibrationFigures, summarize_calibration
from quantkit.calibration.shard_run import CollectedShard, ShardCollector, identify_run
from quantkit.errors import ShardError, StatisticsError
from quantkit.progress import Progress
from quantkit.sharding import Shard
from quantkit.sharding.data_parts import refuse_other_shard, replaced_by_force
from quantkit.sharding.folder import Place, ShardFolder, read_shard_file
from quantkit.sharding.record import run_of_count
from quantkit.statistics import Statistics, parse_statistics, statistics_bytes

SUFFIX = ".stats.safetensors"
NamedStatistics: TypeAlias = "tuple[str, Statistics]"


def calibrate_shard(
    job: CalibrationJob, shard: Shard, place: Place | None, progress: Progress, started: float
) -> Calibration:
    """Run one shard of a calibration, and write its statistics to `place`, unless they are there already.

    Raises what `calibrate` raises; StaleError where the file of another run is there.
    """
    if place is None:
        return summarize_shard(job, ShardCollector(job).collect(shard, progress), started)
    folder, force = ShardFolder(place, SUFFIX), job.options.force
    with folder.claimed(shard):
        replaced: tuple[str, ...] = ()
        first_ranges = read_first_ranges(folder, run_of_count(identify_run(job), shard.count))
        if not force and folder.has(shard):
            with replaced_by_force():
                there = read_shard(folder.file_of(shard))
            refuse_other_statistics(folder.file_of(shard), there, job, shard)
            if counted_from(there, first_ranges):
                note = "nothing changed: the existing shard is reused"
                return summarize_shard(job, CollectedShard(there, (note,)), started, folder, reused=True)
            force, replaced = True, ("replaces a shard that was counted from other first ranges than the run's",)
        made = ShardCollector(job, first_ranges).collect(shard, progress)
        folder.write(shard, statistics_bytes(made.statistics), force=force)
    return summarize_shard(job, replace(made, notes=(*made.notes, *replaced)), started, folder)


def read_shard(file: str) -> Statistics:
    """Return the statistics of a shard at a path or URL. StatisticsError, DataError; ShardError if it is no shard."""
    try:
        statistics = parse_statistics(read_shard_file(file), file)
    except OSError as error:
        raise StatisticsError(f"{file}: {error.strerror or error}", remedy="check the path") from None
    if statistics.shard is None:
        raise ShardError(f"{file} holds the statistics of a whole run, and no shard", remedy="remove it")
    return statistics


def refuse_other_statistics(file: str, there: Statistics, job: CalibrationJob, shard: Shard) -> None:
    """Raise StaleError unless an existing shard is the one that this run would make."""
    assert there.shard is not None
    skip = job.options.data.skip_corrupt
    refuse_other_shard(file, there.shard, there.origin.data, identify_run(job), shard, job.feed, skip_corrupt=skip)


def shards_at(place: Place) -> Iterator[NamedStatistics]:
    """Yield the shards of a calibration at a place, in the order of the data, each with its path or URL.

    One is read after the other. ShardError where one is missing, or holds another than its name says.
    """
    return read_shards(ShardFolder(place, SUFFIX).complete())


def read_shards(files: Mapping[str, Shard]) -> Iterator[NamedStatistics]:
    """Yield the statistics in files of shards. ShardError where one is another than its name says."""
    for file, shard in files.items():
        statistics = read_shard(file)
        assert statistics.shard is not None
        if statistics.shard.shard != shard:
            raise ShardError(
                f"{file} holds shard {statistics.shard.shard}", remedy="give it back its name, or make it again"
            )
        yield file, statistics


def summarize_shard(
    job: CalibrationJob,
    made: CollectedShard,
    started: float,
    folder: ShardFolder | None = None,
    *,
    reused: bool = False,
) -> Calibration:
    """Return the result of one shard, which has statistics and no tables."""
    record = made.statistics.shard
    assert record is not None
    files = () if folder is None else (folder.file_of(record.shard),)
    figures = CalibrationFigures(
        made.statistics.origin.samples,
        record.stop - record.start,
        time.monotonic() - started,
        reused,
        files,
        record.skipped,
        not reused,
    )
    return summarize_calibration(job, made.statistics, {}, figures, made.notes, made.warnings, None)

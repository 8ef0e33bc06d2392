"""The verbs of `quantkit stats`: merge statistics files, and make tables from one, without data and without a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantkit._version import __version__
from quantkit.artifact import check_destinations, sha256_of, write_all, write_whole
from quantkit.calibration.first_ranges import leave_first_ranges
from quantkit.calibration.shard_files import NamedStatistics, read_shards, shards_at
from quantkit.calibration.tables import header_for, make_tables, refuse_without_gains, table_paths
from quantkit.errors import ShardError
from quantkit.keywords.option_fields import takes_fields
from quantkit.locations import is_url, url_name
from quantkit.paths import given_list, given_path, is_folder
from quantkit.provenance import (
    DataRecord,
    ModelRecord,
    Provenance,
    RunRecord,
    TableRecord,
    check_tables_writable,
    provenance_bytes,
    provenance_path,
)
from quantkit.rules import Rule, as_rules
from quantkit.sharding.folder import Place
from quantkit.sharding.shard import shard_of_file
from quantkit.statistics import Statistics, given_statistics, merge_statistics, read_statistics, statistics_bytes
from quantkit.statistics.grids import OtherRangesError
from quantkit.statistics.shard_merging import merge_shards
from quantkit.table import Algorithm, CalibrationTable, table_bytes
from quantkit.tensorrt_version import target_version


def merge(
    parts: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    allow_duplicates: bool = False,
    force: bool = False,
) -> Statistics:
    """Merge statistics into one file: all shards of a run, or files of `invariant` mode.

    parts: the folder or the URL of the shards, or files. allow_duplicates: a sample that is in several files counts
    once for each of them, instead of being refused. StatisticsError, ShardError, StaleError, OutputError, UsageError.
    """
    return merge_parts(parts, output, allow_duplicates=allow_duplicates, force=force).statistics


@dataclass(frozen=True, slots=True)
class MergedParts:
    """Merged statistics. skipped: samples that the shards of a run left out (`--skip-corrupt`), with the reason."""

    statistics: Statistics
    skipped: tuple[str, ...]


def merge_parts(
    parts: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    allow_duplicates: bool,
    force: bool,
) -> MergedParts:
    """Merge statistics into one file, as `merge`, and return what was left out as well."""
    skipped: list[str] = []
    output = given_path(output, "output")
    parts = [part if is_url(part) else given_path(part, "parts") for part in given_list(parts, "parts")]
    may_replace = check_destinations([output], read=parts, force=force)
    try:
        shards = given_shards(parts)
        merged = merge_shards(noting(shards, skipped)) if shards else merge_files(parts, allow_duplicates)
    except OtherRangesError as error:
        raise leave_first_ranges(error) from None
    write_whole(output, statistics_bytes(merged), force=may_replace(output))
    return MergedParts(merged, tuple(skipped))


def noting(shards: Iterable[NamedStatistics], skipped: list[str]) -> Iterator[NamedStatistics]:
    """Yield shards, and add the samples that they left out to `skipped`."""
    for name, statistics in shards:
        if statistics.shard is not None:
            skipped += statistics.shard.skipped
        yield name, statistics


def given_shards(parts: Sequence[Place]) -> Iterable[NamedStatistics] | None:
    """Return the shards of a run in the order of the data, if parts are their place or their files; else None."""
    if len(parts) == 1 and (is_url(parts[0]) or is_folder(parts[0])):
        return shards_at(parts[0])
    files = [os.fsdecode(part) for part in parts]
    named = {file: shard_of_file(url_name(file) if is_url(file) else Path(file).name) for file in files}
    found = {file: shard for file, shard in named.items() if shard}
    if not found:
        return None
    if others := [file for file in files if file not in found]:
        raise ShardError(f"{others[0]} is no shard", remedy="merge either the shards of one run, or whole statistics")
    return read_shards(dict(sorted(found.items(), key=lambda item: item[1])))


def merge_files(parts: Sequence[Place], allow_duplicates: bool) -> Statistics:
    """Return the statistics in files of `invariant` mode together. StatisticsError."""
    return merge_statistics(
        [read_statistics(part) for part in parts],
        allow_duplicates=allow_duplicates,
        names=[os.fsdecode(part) for part in parts],
    )


@takes_fields()
def tables_from(
    source: str | os.PathLike[str] | Statistics,
    rule: str | Rule | Sequence[Rule],
    *,
    output: str | os.PathLike[str] | None = None,
    tensorrt_version: str | None = None,
    algorithm: Algorithm | None = None,
    force: bool = False,
) -> Mapping[str, CalibrationTable]:
    """Return tables by rule name; write them to `output` (the first rule) and beside it, if one is given.

    rule: one or several, as for `calibrate`.

    StatisticsError, TableError, StaleError, OutputError, UsageError.
    """
    chosen = as_rules(rule)
    version = target_version(tensorrt_version).number
    headers = {rule: header_for(rule, version, algorithm) for rule in chosen}
    statistics = given_statistics(source)
    name = "statistics" if isinstance(source, Statistics) else Path(source).name
    refuse_without_gains(statistics, chosen, name)
    paths = table_paths(Path(output), chosen) if output else {}
    may_replace = check_tables_writable(paths, read=[source], force=force)
    tables = make_tables(statistics, headers)
    files: dict[Path, bytes] = {}
    for path, rule in paths.items():
        content = table_bytes(tables[rule.name])
        record = statistics_provenance(statistics, name, path, content, tables[rule.name], rule)
        files |= {path: content, provenance_path(path): provenance_bytes(record)}
    write_all(files, may_replace=may_replace)
    return tables


def statistics_provenance(
    statistics: Statistics,
    source: str,
    path: Path,
    content: bytes,
    table: CalibrationTable,
    rule: Rule,
) -> Provenance:
    """Return the provenance record of a table that was made from a statistics file."""
    origin = statistics.origin
    return Provenance(
        quantkit=__version__,
        table=TableRecord(
            file=path.name,
            sha256=sha256_of(content),
            header=table.header.text,
            tensors=len(table),
            without_scale=statistics.unscalable or None,
        ),
        model=ModelRecord(file="", sha256=origin.model),
        rule=rule.name,
        data=DataRecord(
            source=source,
            kind="statistics",
            samples=origin.samples,
            chosen=origin.samples,
            content=origin.data,
            order=origin.order,
            limit=None,
            shuffle=False,
            seed=0,
        ),
        preprocess=origin.preprocess,
        run=RunRecord(
            histogram=origin.histogram,
            backend=origin.backend,
            batch_size=origin.batch_size,
            batches=origin.batches or 0,
            slice=origin.slice,
        ),
    )

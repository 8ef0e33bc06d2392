"""The verbs of `quantkit stats`: merge statistics files, and make tables from one, without data and without a GPU."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from quantkit._version import __version__
from quantkit.artifact import check_destinations, sha256_of, write_all, write_whole
from quantkit.calibration.tables import header_for, make_tables, table_paths
from quantkit.keywords.option_fields import takes_fields
from quantkit.paths import given_list, given_path
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
from quantkit.statistics import Statistics, merge_statistics, read_statistics, statistics_bytes
from quantkit.table import Algorithm, CalibrationTable, table_bytes
from quantkit.tensorrt_version import target_version


def merge(
    parts: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    allow_duplicates: bool = False,
    force: bool = False,
) -> Statistics:
    """Merge statistics files of `invariant` mode into one file. StatisticsError, StaleError, OutputError, UsageError.

    allow_duplicates: a sample that is in several parts counts once for each of them, instead of being refused.
    """
    output, parts = given_path(output, "output"), given_list(parts, "parts")
    may_replace = check_destinations([output], read=parts, force=force)
    merged = merge_statistics(
        [read_statistics(part) for part in parts],
        allow_duplicates=allow_duplicates,
        names=[os.fsdecode(part) for part in parts],
    )
    write_whole(output, statistics_bytes(merged), force=may_replace(output))
    return merged


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
    statistics = source if isinstance(source, Statistics) else read_statistics(source)
    paths = table_paths(Path(output), chosen) if output else {}
    may_replace = check_tables_writable(paths, read=[source], force=force)
    tables = make_tables(statistics, headers)
    name = "statistics" if isinstance(source, Statistics) else Path(source).name
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

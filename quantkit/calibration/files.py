"""The files of a calibration: tables, their provenance records, the statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantkit._version import __version__
from quantkit.artifact import sha256_of, write_all
from quantkit.calibration.job import CalibrationJob
from quantkit.calibration.tables import checkpoint_path, statistics_path
from quantkit.data import DataIdentity
from quantkit.provenance import (
    DataRecord,
    ModelRecord,
    Provenance,
    RunRecord,
    TableRecord,
    provenance_bytes,
    provenance_path,
)
from quantkit.rules import Rule
from quantkit.statistics import Statistics, statistics_bytes
from quantkit.table import CalibrationTable, table_bytes


@dataclass(frozen=True, slots=True)
class PassCounts:
    """Counts of a pass, its backend, and the number of samples per slice (0: whole batches)."""

    identity: DataIdentity
    samples: int
    batches: int
    backend: str
    slice: int = 0


def write_calibration(
    job: CalibrationJob,
    statistics: Statistics | None,
    tables: Mapping[str, CalibrationTable],
    counted: PassCounts,
    skipped: Sequence[str] = (),
) -> tuple[Path, ...]:
    """Write tables, provenance and statistics, all or none, and remove the checkpoint.

    statistics: None if there are none, or if they are there already, which do not record the memory they were made in.
    skipped: samples that were left out before. OutputError; StaleError if a file appeared in the place of one of them
    during the work.
    """
    assert job.output is not None
    data = DataRecord(
        source=job.source,
        kind=job.feed.kind,
        samples=counted.samples,
        chosen=counted.identity.samples,
        content=counted.identity.content,
        order=counted.identity.order,
        limit=job.options.data.limit,
        shuffle=job.options.data.shuffle,
        seed=job.options.data.seed,
        skipped=(*skipped, *job.feed.unreadable),
        files=tuple(stamp.record for stamp in job.feed.stamps()),
    )
    run = RunRecord(
        histogram=job.options.histogram,
        backend=counted.backend,
        batch_size=job.feed.batch_size,
        batches=counted.batches,
        slice=counted.slice,
        exclude=tuple(sorted(job.excluded)),
        max_memory=None if statistics is None else job.options.memory,
    )
    files: dict[Path, bytes] = {}
    if statistics is not None:
        files[statistics_path(job.output)] = statistics_bytes(statistics)
    for path, rule in job.paths().items():
        files |= table_with_provenance(job, path, rule, tables[rule.name], data, run)
    write_all(files, may_replace=job.may_replace)
    checkpoint_path(job.output).unlink(missing_ok=True)
    return tuple(files)


def table_with_provenance(
    job: CalibrationJob, path: Path, rule: Rule, table: CalibrationTable, data: DataRecord, run: RunRecord
) -> dict[Path, bytes]:
    """Return the content of a table's file and of its provenance record, by path."""
    content = table_bytes(table)
    provenance = Provenance(
        quantkit=__version__,
        table=TableRecord(
            file=path.name,
            sha256=sha256_of(content),
            header=table.header.text,
            tensors=len(table),
            without_scale=tuple(name for name in job.watch.tensors if name not in table.scales) or None,
        ),
        model=ModelRecord(file=job.model.path.name, sha256=job.model.sha256),
        rule=rule.name,
        data=data,
        preprocess=job.spec.document,
        preprocess_from=job.spec.source,
        run=run,
    )
    return {path: content, provenance_path(path): provenance_bytes(provenance)}

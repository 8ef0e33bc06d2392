"""What a calibration writes: tables, their provenance, the statistics, and checkpoints on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantkit._version import __version__
from quantkit.artifact import sha256_of, write_all
from quantkit.data import DataIdentity
from quantkit.errors import UsageError
from quantkit.pipeline.job import Job, backend_version
from quantkit.pipeline.observing import Checkpoints, Observed
from quantkit.pipeline.plan import Plan
from quantkit.pipeline.tables import checkpoint_path, statistics_path
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


def checkpoints(job: Job, identity: DataIdentity | None, plan: Plan) -> Checkpoints:
    """Where the run's state goes, and what it belongs to."""
    options = job.options
    if job.output is None:
        if options.resume:
            raise UsageError(
                "nothing to resume without an output",
                remedy="give the output of the interrupted run",
            )
        return Checkpoints()
    known = identity or DataIdentity("", "", 0)
    # The position in the feed means nothing in another order, also where the order does not decide about the result.
    parts = {
        **job.request(known).parts,
        "order of the data": known.order,
        "batch size": job.feed.batch_size,
        "slice": plan.slice,
        "backend": backend_version(options),
        "quantkit": __version__,
        "tensors": sha256_of(repr(plan.passes).encode()),
    }
    return Checkpoints(checkpoint_path(job.output), options.checkpoint_every, parts, options.resume)


def written(
    job: Job,
    statistics: Statistics,
    tables: Mapping[str, CalibrationTable],
    observed: Observed,
    plan: Plan,
) -> tuple[Path, ...]:
    """Write tables, provenance and statistics, all or none; the checkpoint goes."""
    assert job.output is not None
    data = DataRecord(
        source=job.source,
        kind=job.feed.kind,
        samples=observed.samples,
        chosen=observed.identity.samples,
        content=observed.identity.content,
        order=observed.identity.order,
        limit=job.options.data.limit,
        shuffle=job.options.data.shuffle,
        seed=job.options.data.seed,
        skipped=tuple(job.feed.unreadable),
        files=tuple((s.name, s.size, s.modified_ns) for s in job.feed.stamps()),
    )
    run = RunRecord(
        histogram=job.options.histogram,
        backend=statistics.origin.backend,
        batch_size=job.feed.batch_size,
        batches=observed.batches,
        slice=plan.slice,
        max_memory=job.options.max_memory,
    )
    files = {statistics_path(job.output): statistics_bytes(statistics)}
    for path, rule in job.paths().items():
        files |= table_files(job, path, rule, tables[rule.name], data, run)
    write_all(files)
    checkpoint_path(job.output).unlink(missing_ok=True)
    return tuple(files)


def table_files(
    job: Job, path: Path, rule: Rule, table: CalibrationTable, data: DataRecord, run: RunRecord
) -> dict[Path, bytes]:
    """A table and its provenance."""
    content = table_bytes(table)
    provenance = Provenance(
        quantkit=__version__,
        table=TableRecord(file=path.name, sha256=sha256_of(content), header=table.header.text, tensors=len(table)),
        model=ModelRecord(file=job.model.path.name, sha256=job.model.sha256),
        rule=rule.name,
        data=data,
        preprocess=job.spec.document,
        preprocess_from=job.spec.source,
        run=run,
    )
    return {path: content, provenance_path(path): provenance_bytes(provenance)}

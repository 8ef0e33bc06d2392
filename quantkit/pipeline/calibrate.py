"""calibrate: a model and data in, statistics and calibration tables out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantkit.artifact import check_writable, write_all
from quantkit.data import DataIdentity
from quantkit.errors import DataError, ModelError, StaleError
from quantkit.histogram import HistogramMode
from quantkit.pipeline.job import Job, backend_version, opened, prepared
from quantkit.pipeline.learning import Curve, CurveRecorder
from quantkit.pipeline.observing import Hooks, Observed, Progress, Run, Silent, new_collectors
from quantkit.pipeline.options import CalibrateOptions
from quantkit.pipeline.outputs import checkpoints, table_files, written
from quantkit.pipeline.plan import Plan
from quantkit.pipeline.preparing import ChosenSpec, DataWatcher, PeekedFeed
from quantkit.pipeline.reuse import Found, found, known_identity, matching_statistics
from quantkit.pipeline.slicing import planned
from quantkit.pipeline.tables import (
    Finding,
    checkpoint_path,
    make_tables,
    statistics_path,
    suspicious,
    thresholds,
)
from quantkit.preprocess import Preprocess
from quantkit.provenance import provenance_path, read_provenance
from quantkit.rules import Rule
from quantkit.statistics import Origin, Statistics
from quantkit.table import CalibrationTable, read_table


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration gives. `tables` is by rule name, in the order of the rules."""

    statistics: Statistics | None
    """None only where tables are reused whose statistics file is gone."""
    tables: Mapping[str, CalibrationTable]
    files: tuple[Path, ...]
    reused: bool
    target: str
    """TensorRT's version in the first table's header, and where it came from."""
    target_source: str
    preprocess: ChosenSpec
    inputs: tuple[str, ...]
    samples: int
    batches: int
    seconds: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    unwatched: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Watched tensors that never had a value."""
    curve: Curve | None = None
    decoded: bool = True
    """Whether data went through the network; tables can come from the statistics that are there."""

    @property
    def table(self) -> CalibrationTable:
        """The table of the first rule."""
        return next(iter(self.tables.values()))

    def _repr_html_(self) -> str:
        return f"<p>{self.samples} samples, {self.batches} batches</p>{self.table._repr_html_()}"


def calibrate(
    model: str | os.PathLike[str],
    data: Any,
    *,
    rules: str | Rule | Sequence[Rule] = "entropy",
    preprocess: str | Path | Preprocess | None = None,
    output: str | os.PathLike[str] | None = None,
    options: CalibrateOptions | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Calibrate an ONNX model on real data: one pass, statistics, and a table for every rule.

    model: path of the ONNX file. data: folder of images, `.npy`, `.npz`, folder of `.npz` batches, `module:callable`,
    or an iterable of batches (input name → array [N, …]). rules: `"entropy,minmax,percentile:99.99,mse"` or rule
    values. preprocess: preset, path of a TOML file, or a `Preprocess`; None looks beside the model. output: path of
    the first rule's table; None writes nothing.

    The histogram and the entropy search are TensorRT's own (docs/decisions/0002-entropy-search.md). Raises
    ModelError, DataError, PreprocessError, StaleError (something else lies at `output`), OutputError, BackendError,
    Interrupted, UsageError.
    """
    options = options or CalibrateOptions()
    started = time.monotonic()
    job = prepared(model, data, rules, preprocess, output, options)
    places = [*job.paths(), statistics_path(job.output)] if job.output else []
    occupied = not options.force and any(path.exists() for path in places)
    previous = read_provenance(provenance_path(job.output)) if occupied and job.output else None
    identity = known_identity(job.feed, previous, needed=occupied)
    if occupied and job.output and identity:
        request = job.request(identity)
        there = found(job.paths(), request)
        statistics = matching_statistics(job.output, request, tables=bool(there.tables))
        if there.tables and (statistics or len(there.tables) == len(job.rules)):
            return reused(job, statistics, there, started)
    if job.output:
        check_writable(job.output)
    return from_data(job, identity, progress or Silent(), started)


def from_data(job: Job, identity: DataIdentity | None, progress: Progress, started: float) -> Calibration:
    """The streaming pass, and all that is written after it."""
    options = job.options
    feed = PeekedFeed(job.feed)
    try:
        if feed.first is None:
            raise DataError("the data yields no samples", remedy="give at least one readable sample")
        plan, session, notes = planned(job, feed.first)
        if job.output and checkpoint_path(job.output).exists() and not options.resume:
            notes += ("an interrupted run is replaced; --resume would have continued it",)
        watcher = DataWatcher(job.spec.applied)
        recorder = CurveRecorder(job.rules[0]) if options.learning_curve else None
        views: dict[str, list[int]] = {}
        for view in job.watch.channels:
            views.setdefault(view.tensor, []).append(view.axis)
        run = Run(
            feed,
            plan,
            new_collectors(plan, views, options.histogram),
            checkpoints(job, identity, plan),
            progress,
            Hooks(identity, watcher.see, recorder.take if recorder else None),
        )
        observed = run.observe(lambda number: opened(job, plan.passes[number], plan) if number else session)
        watcher.look()
    except (DataError, ModelError):
        if job.output:
            checkpoint_path(job.output).unlink(missing_ok=True)  # mended data or a mended model is another run
        raise
    finally:
        feed.close()
    statistics = collected(job, observed, plan)
    tables = make_tables(statistics, {rule: job.headers[rule.name] for rule in job.rules})
    curve = None
    if recorder:
        curve = recorder.curve(observed.samples, thresholds(statistics.histograms, job.rules[0]))
    files: tuple[Path, ...] = ()
    if job.output is not None:
        files = written(job, statistics, tables, observed, plan)
    made = Made(
        observed.samples, observed.batches, time.monotonic() - started, False, files, tuple(job.feed.unreadable), True
    )
    return summed_up(job, statistics, tables, made, (*feed.notes, *notes), watcher.warnings, curve)


def collected(job: Job, observed: Observed, plan: Plan) -> Statistics:
    """The statistics of all passes together, with their origin."""
    ordered = job.options.histogram is HistogramMode.TENSORRT
    origin = Origin(
        model=job.model.sha256,
        data=observed.identity.content,
        samples=observed.samples,
        preprocess=job.spec.document,
        histogram=job.options.histogram,
        backend=backend_version(job.options),
        slice=plan.slice,
        order=observed.identity.order if ordered else None,
        batch_size=job.feed.batch_size if ordered else None,
        batches=observed.batches if ordered else None,
    )
    parts = [c.statistics(job.watch.shared, origin) for c in observed.collectors]
    return Statistics(
        {name: h for part in parts for name, h in part.histograms.items()},
        tuple(view for part in parts for view in part.channels),
        job.watch.shared,
        origin,
    )


def reused(job: Job, statistics: Statistics | None, there: Found, started: float) -> Calibration:
    """Reuse the tables that are there; those that are missing come from the statistics, without the data."""
    assert there.provenance is not None
    data, run = there.provenance.data, there.provenance.run
    assert data is not None
    assert run is not None
    if data.skipped and not job.options.data.skip_corrupt:
        raise StaleError(
            f"{job.output} was made without {len(data.skipped)} samples that cannot be read",
            remedy="--skip-corrupt accepts that; otherwise mend them",
        )
    missing = {rule: job.headers[rule.name] for rule in job.rules if rule.name not in there.tables}
    made_now = make_tables(statistics, missing) if statistics else {}
    tables: dict[str, CalibrationTable] = {}
    new: dict[Path, bytes] = {}
    for path, rule in job.paths().items():
        if rule.name in made_now:
            tables[rule.name] = made_now[rule.name]
            new |= table_files(job, path, rule, tables[rule.name], data, run)
        else:
            tables[rule.name] = read_table(path)
    write_all(new)
    made = Made(
        data.samples,
        run.batches,
        time.monotonic() - started,
        not new,
        tuple(new) or tuple(job.paths()),
        data.skipped,
        False,
    )
    notes = ["nothing changed: the tables that are there are reused"]
    if new:
        notes = ["new tables come from the statistics that are there, without the data"]
    if job.options.learning_curve:
        notes.append("no learning curve: it needs the pass over the data, which --force repeats")
    return summed_up(job, statistics, tables, made, tuple(notes), (), None)


@dataclass(frozen=True, slots=True)
class Made:
    """Figures of what was done."""

    samples: int
    batches: int
    seconds: float
    reused: bool
    files: tuple[Path, ...]
    skipped: tuple[str, ...]
    decoded: bool


def summed_up(
    job: Job,
    statistics: Statistics | None,
    tables: Mapping[str, CalibrationTable],
    made: Made,
    notes: tuple[str, ...],
    warnings: tuple[str, ...],
    curve: Curve | None,
) -> Calibration:
    """The result."""
    about_spec = (job.spec.warning,) if job.spec.warning else ()
    return Calibration(
        statistics=statistics,
        tables=tables,
        files=made.files,
        reused=made.reused,
        target=job.headers[job.rules[0].name].version_text,
        target_source=job.target.source,
        preprocess=job.spec,
        inputs=tuple(i.describe() for i in job.model.inputs),
        samples=made.samples,
        batches=made.batches,
        seconds=made.seconds,
        notes=notes,
        warnings=(*about_spec, *warnings),
        findings=suspicious(statistics) if statistics else (),
        unwatched=job.watch.unwatched,
        skipped=made.skipped,
        missing=tuple(n for n in job.watch.tensors if n not in next(iter(tables.values())).scales),
        curve=curve,
        decoded=made.decoded,
    )

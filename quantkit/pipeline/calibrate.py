"""calibrate: a model and data in, statistics and calibration tables out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from quantkit._version import __version__
from quantkit.artifact import check_writable, sha256_of, write_all
from quantkit.backends.session import Session
from quantkit.data import DataIdentity, DataOptions, Feed, Portion, open_data
from quantkit.errors import BackendError, DataError, ModelError, OutputError, UsageError
from quantkit.graph import Model, Watch, load_model, watched_tensors
from quantkit.histogram import HistogramMode
from quantkit.pipeline.learning import Curve, CurveRecorder
from quantkit.pipeline.observing import (
    Checkpoints,
    Hooks,
    Observed,
    Progress,
    Run,
    Silent,
    new_collectors,
)
from quantkit.pipeline.plan import DEFAULT_MEMORY, Plan, make_plan, sliced
from quantkit.pipeline.preparing import ChosenSpec, DataWatcher, PeekedFeed, choose_spec
from quantkit.pipeline.reuse import Found, Request, found, known_identity, matching_statistics
from quantkit.pipeline.tables import (
    Finding,
    checkpoint_path,
    header_for,
    make_table,
    statistics_path,
    suspicious,
    table_paths,
    thresholds,
)
from quantkit.pipeline.target import target_version
from quantkit.preprocess import Preprocess
from quantkit.provenance import (
    DataRecord,
    ModelRecord,
    Provenance,
    RunRecord,
    TableRecord,
    provenance_bytes,
    provenance_path,
    read_provenance,
)
from quantkit.rules import Entropy, Rule, parse_rules
from quantkit.statistics import Origin, Statistics, statistics_bytes
from quantkit.table import Algorithm, CalibrationTable, Header, read_table, table_bytes
from quantkit.tensorrt_version import TargetVersion


@dataclass(frozen=True, slots=True)
class CalibrateOptions:
    """How a calibration runs. Defaults suit most networks."""

    data: DataOptions = field(default_factory=DataOptions)
    histogram: HistogramMode = HistogramMode.TENSORRT
    algorithm: Algorithm | None = None
    """The header's algorithm; by default that of the rule."""
    tensorrt_version: str | None = None
    """For example `10.13.3`; by default the installed library's, else `DEFAULT_VERSION`."""
    backend: str = "auto"
    provider: str = "cpu"
    max_memory: int = DEFAULT_MEMORY
    """Bytes of activations that are held at once."""
    force: bool = False
    """Replace what is there."""
    resume: bool = False
    checkpoint_every: int = 16
    """Batches between checkpoints."""
    learning_curve: bool = False

    def __post_init__(self) -> None:
        if self.backend not in ("auto", "onnxruntime", "tensorrt"):
            raise UsageError(f"unknown backend {self.backend!r}", remedy="one of auto, onnxruntime, tensorrt")
        if self.provider not in ("cpu", "cuda"):
            raise UsageError(f"unknown provider {self.provider!r}", remedy="one of cpu, cuda")
        if self.checkpoint_every < 1 or self.max_memory < 1:
            raise UsageError("checkpoint_every and max_memory are at least 1", remedy="give a positive number")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration gives. `tables` is by rule name, in the order of the rules."""

    statistics: Statistics
    tables: Mapping[str, CalibrationTable]
    files: tuple[Path, ...]
    reused: bool
    target: str
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
    curve: Curve | None = None

    @property
    def table(self) -> CalibrationTable:
        """The table of the first rule."""
        return next(iter(self.tables.values()))

    def _repr_html_(self) -> str:
        return f"<p>{self.samples} samples, {len(self.statistics)} tensors</p>{self.table._repr_html_()}"


def calibrate(
    model: str | os.PathLike[str],
    data: Any,
    *,
    rules: str | Sequence[Rule] = (Entropy(),),
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
    previous = read_provenance(provenance_path(job.output)) if job.output and not options.force else None
    identity = known_identity(job.feed, previous)
    if job.output is not None and not options.force and identity is not None:
        request = job.request(identity)
        there = found(table_paths(job.output, job.rules), request)
        if there.tables and (statistics := matching_statistics(job.output, request)):
            return from_statistics(job, statistics, there, started)
    if job.output is not None:
        check_writable(job.output)
    return from_data(job, identity, progress or Silent(), started)


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that is settled before data is looked at."""

    model: Model
    watch: Watch
    rules: tuple[Rule, ...]
    headers: Mapping[str, Header]
    target: TargetVersion
    source: str
    feed: Feed
    spec: ChosenSpec
    output: Path | None
    options: CalibrateOptions

    def request(self, identity: DataIdentity) -> Request:
        """What decides about the tables."""
        options = self.options
        ordered = options.histogram is HistogramMode.TENSORRT
        parts = {
            "model": self.model.sha256,
            "data": identity.content,
            "samples": identity.samples,
            "order of the data": identity.order if ordered else None,
            "batch size": self.feed.batch_size if ordered else None,
            "preprocessing": self.spec.document,
            "histogram": options.histogram.value,
            "max memory": options.max_memory,
            "provider": options.provider,
        }
        return Request(parts, self.headers)

    def paths(self) -> dict[Path, Rule]:
        """Where the tables go; nowhere without an output."""
        return table_paths(self.output, self.rules) if self.output else {}


def prepared(
    model: str | os.PathLike[str],
    data: Any,
    rules: str | Sequence[Rule],
    preprocess: str | Path | Preprocess | None,
    output: str | os.PathLike[str] | None,
    options: CalibrateOptions,
) -> Job:
    """Check the arguments, read the model, open the data."""
    chosen_rules = parse_rules(rules) if isinstance(rules, str) else tuple(rules)
    if not chosen_rules:
        raise UsageError("no rule is given", remedy="for example --rule entropy")
    if options.backend == "tensorrt":
        raise BackendError(
            "this quantkit does not calibrate on TensorRT itself",
            remedy="--backend onnxruntime: it writes the table that TensorRT would have written",
        )
    target = target_version(options.tensorrt_version)
    headers = {r.name: header_for(r, target.number, options.algorithm) for r in chosen_rules}
    loaded = load_model(model)
    watch = watched_tensors(loaded)
    if not watch.tensors:
        raise ModelError(f"{loaded.path} has no float tensors", remedy="give a float32 or float16 network")
    spec = choose_spec(preprocess, loaded, data)
    feed, applied = open_data(data, loaded.inputs, spec.spec, options.data)
    source = Path(data).resolve().name if isinstance(data, (str, os.PathLike)) else type(data).__name__
    place = None if output is None else placed(Path(output), loaded.path)
    return Job(
        loaded,
        watch,
        chosen_rules,
        headers,
        target,
        source,
        feed,
        spec.with_applied(applied),
        place,
        options,
    )


def placed(output: Path, model: Path) -> Path:
    """Where the first table goes: `output`, or below it where it is a folder. OutputError."""
    path = output / f"{model.stem}.calib" if output.is_dir() else output
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}", remedy="make the folder first")
    return path


def from_data(job: Job, identity: DataIdentity | None, progress: Progress, started: float) -> Calibration:
    """The streaming pass, and all that is written after it."""
    options = job.options
    feed = PeekedFeed(job.feed)
    try:
        if feed.first is None:
            raise DataError("the data yields no samples", remedy="give at least one readable sample")
        plan, notes = planned(job, feed.first)
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
        observed = run.observe(lambda tensors: opened(job, tensors, options.provider, plan))
        watcher.look()
    finally:
        feed.close()
    statistics = collected(job, observed, plan)
    tables = {r.name: make_table(statistics, r, job.headers[r.name]) for r in job.rules}
    curve = None
    if recorder:
        curve = recorder.curve(observed.samples, thresholds(statistics.histograms, job.rules[0]))
    files: tuple[Path, ...] = ()
    if job.output is not None:
        files = written(job, statistics, tables, observed, plan)
    made = Made(observed.samples, observed.batches, time.monotonic() - started, False, files)
    return summed_up(job, statistics, tables, made, (*feed.notes, *notes), watcher.warnings, curve)


def planned(job: Job, first: Portion) -> tuple[Plan, tuple[str, ...]]:
    """The plan; batches stay whole where the model is fixed to them or its samples are not independent."""
    fixed = any(i.fixed_batch is not None for i in job.model.inputs)
    options = job.options

    def plan(whole: bool) -> Plan:
        return make_plan(
            job.model, job.watch, first.batch, first.samples,
            max_memory=options.max_memory, workers=options.data.workers, whole=whole,
        )  # fmt: skip

    chosen = plan(fixed)
    if fixed or first.samples == 1 or independent(job, chosen, first):
        return chosen, ()
    return plan(True), ("the network mixes the samples of a batch, so batches are run whole",)


def independent(job: Job, plan: Plan, first: Portion) -> bool:
    """Whether the network treats samples on their own: two at once give what each gives alone."""
    names = [name for name in job.model.outputs if name in job.watch.tensors]
    run = opened(job, tuple(names), job.options.provider, replace(plan, runners=1)).runner()
    (pair, _), *_ = sliced(first.batch, first.samples, 2)
    singles = sliced(pair, 2, 1)
    try:
        alone = [{n: a.copy() for n, a in run(feeds).items()} for feeds, _ in singles]
        together = run(pair)
    except ModelError:
        return False
    return all(
        together[n].shape[:1] == (2,)
        and np.allclose(
            together[n],
            np.concatenate([a[n] for a in alone]),
            rtol=1e-2,
            atol=1e-3 * np.abs(together[n]).max(),
        )
        for n in names
    )


def opened(job: Job, tensors: tuple[str, ...], provider: str, plan: Plan) -> Session:
    """An onnxruntime session that watches `tensors`."""
    from quantkit.backends.onnxruntime import OnnxRuntimeSession

    alone = plan.runners == 1
    return OnnxRuntimeSession(
        job.model,
        tensors,
        provider=provider,
        threads=job.options.data.workers if alone else 1,
        fixed_shapes=job.watch.fixed_shapes,
    )


def backend_version(options: CalibrateOptions) -> str:
    """Library and provider."""
    from quantkit.backends.onnxruntime import version

    return version(options.provider)


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
    parts = {**job.request(known).parts, "slice": plan.slice, "backend": backend_version(options)}
    return Checkpoints(checkpoint_path(job.output), options.checkpoint_every, parts, options.resume)


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


def from_statistics(job: Job, statistics: Statistics, there: Found, started: float) -> Calibration:
    """Reuse the tables that are there; those that are missing come from the statistics, without the data."""
    assert there.provenance is not None
    data, run = there.provenance.data, there.provenance.run
    assert data is not None
    assert run is not None
    tables: dict[str, CalibrationTable] = {}
    new: dict[Path, bytes] = {}
    for path, rule in job.paths().items():
        if rule.name in there.tables:
            tables[rule.name] = read_table(path)
        else:
            tables[rule.name] = make_table(statistics, rule, job.headers[rule.name])
            new |= table_files(job, path, rule, tables[rule.name], data, run)
    write_all(new)
    made = Made(
        data.samples,
        run.batches,
        time.monotonic() - started,
        not new,
        tuple(new) or tuple(job.paths()),
    )
    note = (
        "new tables come from the statistics that are there, without the data"
        if new
        else "nothing changed: the tables that are there are reused"
    )
    return summed_up(job, statistics, tables, made, (note,), (), None)


@dataclass(frozen=True, slots=True)
class Made:
    """Figures of what was done."""

    samples: int
    batches: int
    seconds: float
    reused: bool
    files: tuple[Path, ...]


def summed_up(
    job: Job,
    statistics: Statistics,
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
        target=f"{job.headers[job.rules[0].name].version_text} ({job.target.source})",
        preprocess=job.spec,
        inputs=tuple(i.describe() for i in job.model.inputs),
        samples=made.samples,
        batches=made.batches,
        seconds=made.seconds,
        notes=notes,
        warnings=(*about_spec, *warnings),
        findings=suspicious(statistics),
        unwatched=job.watch.unwatched,
        skipped=tuple(job.feed.unreadable),
        curve=curve,
    )

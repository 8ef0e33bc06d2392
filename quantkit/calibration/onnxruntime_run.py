"""Calibration by watching: the network runs on onnxruntime, and one pass gives statistics and every rule's table."""

from __future__ import annotations

import time
from pathlib import Path

from quantkit._version import __version__
from quantkit.artifact import sha256_of
from quantkit.calibration.batch_slicing import backend_version, opened, planned
from quantkit.calibration.files import Counted, written
from quantkit.calibration.job import Job
from quantkit.calibration.learning_curve import CurveRecorder
from quantkit.calibration.memory_plan import Plan
from quantkit.calibration.result import Calibration, Made, summed_up
from quantkit.calibration.streaming_pass import Checkpoints, Hooks, Observed, Run, new_collectors
from quantkit.calibration.tables import checkpoint_path, make_tables, thresholds
from quantkit.data import DataIdentity
from quantkit.data.peeking import DataWatcher, PeekedFeed
from quantkit.errors import DataError, ModelError, UsageError
from quantkit.histogram import HistogramMode
from quantkit.progress import Progress
from quantkit.statistics import Origin, Statistics


def from_data(
    job: Job, identity: DataIdentity | None, progress: Progress, started: float, why: tuple[str, ...] = ()
) -> Calibration:
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
        counted = Counted(observed.identity, observed.samples, observed.batches, statistics.origin.backend, plan.slice)
        files = written(job, statistics, tables, counted)
    made = Made(
        observed.samples, observed.batches, time.monotonic() - started, False, files, tuple(job.feed.unreadable), True
    )
    return summed_up(job, statistics, tables, made, (*why, *feed.notes, *notes), watcher.warnings, curve)


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

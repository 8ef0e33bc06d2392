"""Calibration by watching: the network runs in a session, and one pass yields the statistics and every rule's table."""

from __future__ import annotations

import time

import numpy as np

from quantkit._version import __version__
from quantkit.artifact import sha256_of
from quantkit.calibration.batch_slicing import backend_version, open_watching_session, plan_batches
from quantkit.calibration.files import PassCounts, write_calibration
from quantkit.calibration.job import CalibrationJob
from quantkit.calibration.learning_curve import CurveRecorder, LearningCurve
from quantkit.calibration.memory_plan import MemoryPlan
from quantkit.calibration.result import Calibration, CalibrationFigures, summarize_calibration
from quantkit.calibration.streaming_pass import CheckpointPlan, PassHooks, PassResult, StreamingPass, new_collectors
from quantkit.calibration.tables import (
    checkpoint_path,
    compute_thresholds,
    describe_few,
    gains_by_place,
    make_tables,
    weighed,
)
from quantkit.calibration.unscalable import ScaleNeeds, describe_unscalable, leave_out_masks
from quantkit.data import DataIdentity
from quantkit.data.peeking import DataWatcher, PeekedFeed
from quantkit.errors import DataError, UsageError
from quantkit.graph import refuse_changed_weights
from quantkit.histogram import HistogramMode
from quantkit.progress import Progress
from quantkit.statistics import Origin, Statistics


def calibrate_by_watching(
    job: CalibrationJob, identity: DataIdentity | None, progress: Progress, started: float, why: tuple[str, ...] = ()
) -> Calibration:
    """Run the streaming pass, and write its results. Raises what `calibrate` raises."""
    options = job.options
    feed = PeekedFeed(job.feed)
    try:
        if feed.first is None:
            raise DataError("the data yields no samples", remedy="give at least one readable sample")
        plan, session, notes = plan_batches(job, feed.first)
        watcher = DataWatcher(job.spec.applied)
        recorder = CurveRecorder(job.rules[0], gains_by_place(job.model)) if options.learning_curve else None
        views: dict[str, list[int]] = {}
        for view in job.watch.channels:
            views.setdefault(view.tensor, []).append(view.axis)
        needs = ScaleNeeds(job.model, job.watch.tensors, job.excluded)
        run = StreamingPass(
            feed,
            plan,
            new_collectors(plan, views, options.histogram, job.first_ranges),
            plan_checkpoints(job, identity, plan),
            progress,
            PassHooks(identity, watcher.see, recorder.take if recorder else None, needs.check),
        )
        observed = run.observe(
            lambda number: open_watching_session(job, plan.passes[number], plan) if number else session
        )
        watcher.look()
        refuse_changed_weights(job.model)
    finally:
        feed.close()
    statistics = leave_out_masks(collect_statistics(job, observed, plan), job.model, needs)
    curve = None
    if recorder:
        curve = recorder.curve(observed.samples, compute_thresholds(statistics.histograms, job.rules[0]))
    counted = PassCounts(observed.identity, observed.samples, observed.batches, statistics.origin.backend, plan.slice)
    notes = (*why, *feed.notes, *notes, *describe_unscalable(statistics), *describe_few(job.rules, observed.samples))
    return complete_calibration(job, statistics, counted, started, notes, watcher.warnings, curve)


def complete_calibration(
    job: CalibrationJob,
    statistics: Statistics,
    counted: PassCounts,
    started: float,
    notes: tuple[str, ...],
    warnings: tuple[str, ...],
    curve: LearningCurve | None = None,
) -> Calibration:
    """Make the tables, write all files if there is an output, and return the result. OutputError, StaleError."""
    tables = make_tables(statistics, {rule: job.headers[rule.name] for rule in job.rules})
    files = () if job.output is None else write_calibration(job, statistics, tables, counted)
    seconds = time.monotonic() - started
    made = CalibrationFigures(counted.samples, counted.batches, seconds, False, files, tuple(job.feed.unreadable), True)
    return summarize_calibration(job, statistics, tables, made, notes, warnings, curve)


def collect_statistics(job: CalibrationJob, observed: PassResult, plan: MemoryPlan) -> Statistics:
    """Return the statistics of all passes together, with their origin."""
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
    heads = None if ordered else observed.identity.heads
    whole = Statistics(
        {name: h for part in parts for name, h in part.histograms.items()},
        tuple(view for part in parts for view in part.channels),
        job.watch.shared,
        origin,
        None if heads is None else np.array(sorted(heads), np.uint64),
    )
    whole = weighed(whole, job.model)
    gone = [name for part in parts for name in part.unscalable]
    return whole.without(gone) if gone else whole


def plan_checkpoints(job: CalibrationJob, identity: DataIdentity | None, plan: MemoryPlan) -> CheckpointPlan:
    """Return where the state of the run is written, and which run it belongs to. UsageError."""
    options = job.options
    if job.output is None:
        if options.resume:
            raise UsageError(
                "without an output there is nothing to resume",
                remedy="give the output of the interrupted run",
            )
        return CheckpointPlan()
    known = identity or DataIdentity("", "", 0)
    # A position in the feed is only valid in the same order, even where the order does not affect the result.
    parts = {
        **job.request(known).parts,
        "order of the data": known.order,
        "batch size": job.feed.batch_size,
        "slice": plan.slice,
        "backend": backend_version(options),
        "quantkit": __version__,
        "tensors": sha256_of(repr(plan.passes).encode()),
    }
    return CheckpointPlan(checkpoint_path(job.output), options.checkpoint_every, parts, options.resume)

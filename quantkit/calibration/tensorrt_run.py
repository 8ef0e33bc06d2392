"""Calibration by TensorRT's calibrators: the table is TensorRT's own, and there are no statistics."""

from __future__ import annotations

import time

from quantkit.calibration.files import write_calibration
from quantkit.calibration.job import CalibrationJob
from quantkit.calibration.result import Calibration, CalibrationFigures, summarize_calibration
from quantkit.calibration.tensorrt.calibration_build import calibrate_on_tensorrt
from quantkit.data import DataIdentity
from quantkit.data.peeking import DataWatcher
from quantkit.errors import Interrupted
from quantkit.graph import refuse_changed_weights
from quantkit.progress import Progress


def calibrate_by_calibrator(
    job: CalibrationJob, identity: DataIdentity | None, progress: Progress, started: float, why: tuple[str, ...] = ()
) -> Calibration:
    """Run one build on the GPU, which ends when the table exists. Raises what `calibrate` raises."""
    watcher = DataWatcher(job.spec.applied)

    def stopped() -> Interrupted | None:
        return Interrupted("stopped", remedy="start again; nothing was written") if progress.stopped() else None

    progress.start(job.feed.samples, 1, 0)
    try:
        made = calibrate_on_tensorrt(job, identity, see=watcher.see, advance=progress.advance, stopped=stopped)
    finally:
        progress.close()
    watcher.look()
    refuse_changed_weights(job.model)
    tables = {job.rules[0].name: made.table}
    files = write_calibration(job, None, tables, made.counted) if job.output is not None else ()
    notes = [*why, *job.feed.notes]
    if made.repeated:
        notes.append(
            f"the last batch was padded with {made.repeated} of its own samples, which count twice: "
            "TensorRT calibrates with one shape"
        )
    counts = made.counted
    result = CalibrationFigures(
        counts.samples, counts.batches, time.monotonic() - started, False, files, tuple(job.feed.unreadable), True
    )
    warnings = (*watcher.warnings, *(f"TensorRT: {text}" for text in made.warnings))
    return summarize_calibration(job, None, tables, result, tuple(notes), warnings, None)

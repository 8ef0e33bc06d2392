"""A calibration table made by TensorRT: a build whose engine is not needed, ended as soon as the table exists."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quantkit.backends.tensorrt.background import AbandonedBuild, run_in_background
from quantkit.backends.tensorrt.messages import Messages, capture_messages, make_or_raise
from quantkit.backends.tensorrt.network import calibration_profile, parse_model
from quantkit.backends.tensorrt.versions import (
    calibrator_base,
    end_early,
    network_flags,
    set_flag,
    tensorrt,
)
from quantkit.calibration.files import PassCounts
from quantkit.calibration.job import CalibrationJob
from quantkit.calibration.tensorrt.batch_source import BatchSource
from quantkit.calibration.tensorrt.calibrators import CalibratorData, calibrator_for, check_header
from quantkit.data import DataIdentity, Portion
from quantkit.errors import BackendError, Interrupted
from quantkit.table import CalibrationTable, parse_table


@dataclass(frozen=True, slots=True)
class CalibrationBuild:
    """TensorRT's table, the data that it was made from, and TensorRT's warnings. seconds: of the build alone."""

    table: CalibrationTable
    counted: PassCounts
    repeated: int
    calls: int
    device_bytes: int
    seconds: float
    warnings: tuple[str, ...]


def calibrate_on_tensorrt(
    job: CalibrationJob,
    identity: DataIdentity | None,
    *,
    see: Callable[[Portion], None] | None = None,
    advance: Callable[[int], None] | None = None,
    stopped: Callable[[], BaseException | None] | None = None,
    device: int = 0,
) -> CalibrationBuild:
    """Calibrate the job's network with TensorRT's own calibrator, in float32 without TF32.

    see: called with every batch. advance: called with the number of samples. stopped: returns an error to stop with.
    Raises errors in the data, BackendError, ModelError (operators that TensorRT cannot parse), Interrupted.
    """
    calibrator_base(tensorrt(), job.headers[job.rules[0].name].algorithm)
    source = CalibratorData(job, identity, see, device)
    stopping = threading.Event()

    def ended() -> BaseException | None:
        if stopping.is_set():
            return Interrupted("stopped", remedy="start again; nothing was written")
        return stopped() if stopped else None

    streaming = BatchSource(source.gpu, source.portions, None, advance, ended)
    try:
        shapes = {name: array.shape for name, array in streaming.first().batch.items()}
        with source.gpu().current():
            pass  # the primary context exists before TensorRT looks for one
        made_now = run_in_background(
            lambda: run_calibration_build(source, streaming, shapes, stopping),
            stopping.set,
            waits=True,
            asked=lambda: stopped is not None and stopped() is not None,
        )
    except AbandonedBuild:
        raise  # TensorRT still reads memory that the batch source holds
    except BaseException:
        streaming.close()
        raise
    streaming.close()
    return made_now


def run_calibration_build(
    source: CalibratorData, streaming: BatchSource, shapes: dict[str, tuple[int, ...]], stopping: threading.Event
) -> CalibrationBuild:
    """Run the build, in the thread that TensorRT blocks."""
    messages, job = Messages(), source.job
    with source.gpu().current(), capture_messages(tensorrt(), messages) as log:
        seconds = build_until_table(source, streaming, shapes, stopping, log, messages)
    outcome = streaming.outcome() if streaming.over else None
    if outcome is None:
        said = list(messages.errors) or ["it gives no reason"]
        problem = f"TensorRT could not calibrate {job.model.path}"
        raise BackendError(problem, details=said, remedy="see its errors above")
    table = parse_table(outcome.table, "TensorRT's table")
    check_header(job, table)
    return CalibrationBuild(
        table,
        source.counted(outcome),
        outcome.seen.repeated,
        outcome.calls,
        streaming.device_bytes,
        seconds,
        messages.warnings,
    )


def build_until_table(
    source: CalibratorData,
    streaming: BatchSource,
    shapes: dict[str, tuple[int, ...]],
    stopping: threading.Event,
    log: Any,
    messages: Messages,
) -> float:
    """Build until the table exists; TensorRT's objects are freed before their context is. Return the seconds."""
    trt = tensorrt()
    trt.init_libnvinfer_plugins(log, "")
    builder = make_or_raise(lambda: trt.Builder(log), messages)
    network = builder.create_network(network_flags(trt, strongly_typed=False))
    parser = parse_model(trt, network, source.job.model, log, messages)
    config = builder.create_builder_config()
    config.builder_optimization_level = 0
    config.clear_flag(trt.BuilderFlag.TF32)
    set_flag(trt, config, "INT8")
    profile = calibration_profile(builder, network, shapes)
    if profile is not None:
        config.add_optimization_profile(profile)
    calibrator = calibrator_for(source, streaming)
    calibrator.attach(builder, network, config)
    over = end_early(trt, config, lambda: streaming.over or stopping.is_set())
    started = time.monotonic()
    builder.build_serialized_network(network, config)
    seconds = time.monotonic() - started
    del over, parser, calibrator
    return seconds

"""bench: how fast engines of every precision are, side by side; without a GPU, onnxruntime's figures."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.errors import BackendError, ModelError, UsageError
from quantkit.graph import Model, has_qdq, load_model
from quantkit.pipeline.build import build, scales_for
from quantkit.pipeline.measuring import Bench, Latency, Subject, Throughput
from quantkit.tensorrt_version import has_driver

if TYPE_CHECKING:
    from quantkit.backends.tensorrt.engine import Engine
    from quantkit.backends.tensorrt.options import BuildOptions
    from quantkit.pipeline.build import BuiltEngine

ENGINES = frozenset({".engine", ".plan", ".trt"})
DEFAULT_BATCHES = (1, 8, 32)
DEFAULT_STREAMS = (1, 2)
PRECISIONS = ("fp32", "tf32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What is measured. seconds: for each figure."""

    batches: tuple[int, ...] = DEFAULT_BATCHES
    streams: tuple[int, ...] = DEFAULT_STREAMS
    graphs: tuple[bool, ...] = (False, True)
    seconds: float = 1.0
    precisions: tuple[str, ...] = PRECISIONS
    device: int = 0

    def __post_init__(self) -> None:
        if not self.batches or not self.streams or min(*self.batches, *self.streams, 1) < 1:
            raise UsageError("batches and streams are at least 1", remedy="for example --batch 1,32 --streams 1,2")
        if not 0.0 < self.seconds <= 3600.0:
            raise UsageError(f"{self.seconds} seconds for a figure", remedy="for example --seconds 1")
        if unknown := [p for p in self.precisions if p not in (*PRECISIONS, "best")]:
            raise UsageError(f"unknown precision {unknown[0]!r}", remedy=f"of {', '.join(PRECISIONS)}, best")


def bench(
    subjects: Sequence[str | os.PathLike[str]],
    *,
    options: BenchOptions | None = None,
    build_options: BuildOptions | None = None,
    table: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    phase: Callable[[str], None] | None = None,
) -> Bench:
    """Measure engines, or build engines of every precision from one ONNX model and measure those.

    subjects: engine files, or ONNX models. build_options, table, output: as `build` takes them, for a model. Without a
    GPU or TensorRT the models run on onnxruntime, and the result says so. phase: told what is going on.

    Raises BackendError, ModelError, UsageError, and what `build` raises.
    """
    options = options or BenchOptions()
    say = phase or print_nothing
    if not subjects:
        raise UsageError("nothing to measure", remedy="give engines, or an ONNX model")
    paths = [Path(subject) for subject in subjects]
    engines = [path for path in paths if path.suffix in ENGINES]
    models = [path for path in paths if path.suffix not in ENGINES]
    reason = why_no_gpu()
    if reason is not None:
        if engines:
            raise BackendError(
                f"{engines[0]} cannot be run: {reason}", remedy="run it on the GPU that it was built for"
            )
        return on_processor([load_model(path) for path in models], options, say, reason)
    return on_gpu(engines, models, options, build_options, table, output, say)


def print_nothing(text: str) -> None:
    """Says nothing."""


def why_no_gpu() -> str | None:
    """Why engines cannot be run here; None where they can."""
    if not has_driver():
        return "there is no NVIDIA driver"
    from quantkit.backends.tensorrt.device import open_device
    from quantkit.backends.tensorrt.versions import tensorrt

    try:
        tensorrt()
        open_device()
    except BackendError as error:
        return error.problem
    return None


def on_gpu(
    engines: Sequence[Path],
    models: Sequence[Path],
    options: BenchOptions,
    build_options: BuildOptions | None,
    table: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
    say: Callable[[str], None],
) -> Bench:
    """Figures of TensorRT."""
    from quantkit.backends.tensorrt.building import kernels_loaded
    from quantkit.backends.tensorrt.device import open_device
    from quantkit.backends.tensorrt.engine import Engine
    from quantkit.backends.tensorrt.versions import features, tensorrt
    from quantkit.engine_record import read_record

    notes: list[str] = []
    chosen: list[tuple[Path, Subject]] = []
    for path in engines:
        record = read_record(path)
        size = path.stat().st_size if path.exists() else 0
        counts = counts_of(record.layers) if record else {}
        chosen.append((path, Subject(path.name, record.precision if record else "?", size, None, None, counts)))
    with kernels_loaded() if models else nullcontext():
        for path in models:
            built, said = of_every_precision(load_model(path), options, build_options, table, output, say)
            notes += said
            chosen += [(made.path, subject_of(made)) for made in built]
    subjects, latencies, throughputs = [], [], []
    for path, subject in chosen:
        with Engine.load(path, options.device) as engine:
            subjects.append(replace(subject, memory=engine.memory))
            found = measured(engine, subject.name, options, say)
            latencies += found[0]
            throughputs += found[1]
            notes += found[2]
    machine = f"{open_device(options.device).name}, TensorRT {features(tensorrt()).version}"
    return Bench(machine, True, tuple(subjects), tuple(latencies), tuple(throughputs), tuple(dict.fromkeys(notes)))


def of_every_precision(
    model: Model,
    options: BenchOptions,
    build_options: BuildOptions | None,
    table: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
    say: Callable[[str], None],
) -> tuple[list[BuiltEngine], list[str]]:
    """Engines of one model; those that are there are reused."""
    from quantkit.backends.tensorrt.options import BuildOptions, Precision

    base = build_options or BuildOptions()
    if not base.shapes:
        base = replace(base, shapes=shapes_over(model, options.batches))
    notes: list[str] = []
    built: list[BuiltEngine] = []
    for name in options.precisions:
        chosen = replace(base, precision=Precision.named(name))
        if has_qdq(model) and not chosen.int8:
            continue
        if chosen.precision is Precision.INT8 and not has_qdq(model) and scales_for(model, chosen, table) is None:
            notes.append(f"no INT8 engine of {model.path.name}: there is no calibration table (quantkit calibrate)")
            continue
        try:
            made = build(
                model.path,
                options=chosen,
                table=table if chosen.int8 else None,
                output=output,
                phase=partial(told, say, name),
            )
        except BackendError as error:
            notes.append(f"no {name} engine: {error.problem}")
            continue
        built.append(made)
        notes += [f"{name}: {text}" for text in made.warnings]
    return built, notes


def told(say: Callable[[str], None], name: str, text: str) -> None:
    """A phase, with what it is about."""
    say(f"{name}: {text}")


def shapes_over(model: Model, batches: Sequence[int]) -> tuple[str, ...]:
    """Shape ranges that hold all batch sizes, tuned for the largest."""
    return tuple(
        f"{i.name}={min(batches)}:{max(batches)}:{max(batches)}"
        for i in model.inputs
        if i.shape and i.fixed_batch is None
    )


def subject_of(made: BuiltEngine) -> Subject:
    """What is known of an engine that was built."""
    record = made.record
    return Subject(made.path.name, record.precision, record.bytes, record.seconds, record.device_memory, made.counts)


def counts_of(layers: Sequence[Any]) -> dict[str, int]:
    """Precision → layers, from a record."""
    from quantkit.backends.tensorrt.layers import Layer, precision_counts

    return precision_counts([Layer(**layer.model_dump()) for layer in layers])


def measured(
    engine: Engine, name: str, options: BenchOptions, say: Callable[[str], None]
) -> tuple[list[Latency], list[Throughput], list[str]]:
    """The figures of one engine."""
    from quantkit.backends.tensorrt.timing import fits, latencies, throughput

    alone: list[Latency] = []
    together: list[Throughput] = []
    notes: list[str] = []
    for batch in batches_for(engine, options):
        if not fits(engine, batch):
            notes.append(f"{name} was not built for batch {batch}")
            continue
        for graph in options.graphs:
            with_graph = " with a CUDA graph" if graph else ""
            say(f"{name}: batch {batch}{with_graph}")
            alone.append(summed_up(name, batch, latencies(engine, batch, seconds=options.seconds, graph=graph), graph))
            for streams in options.streams:
                rate = throughput(engine, batch, streams=streams, seconds=options.seconds, graph=graph)
                together.append(Throughput(name, batch, streams, graph, rate))
    return alone, together, notes


def batches_for(engine: Engine, options: BenchOptions) -> tuple[int, ...]:
    """The batch sizes that are asked for, or the one that the engine is fixed to."""
    fixed = next((i.fixed_batch for i in engine.inputs if i.fixed_batch is not None), None)
    return options.batches if fixed is None else (fixed,)


def summed_up(name: str, batch: int, times: Sequence[float], graph: bool) -> Latency:
    """Percentiles."""
    median, p90, p99 = np.percentile(np.asarray(times), [50, 90, 99])
    return Latency(name, batch, graph, float(median), float(p90), float(p99), len(times))


def on_processor(models: Sequence[Model], options: BenchOptions, say: Callable[[str], None], reason: str) -> Bench:
    """Figures of onnxruntime on the processor."""
    from quantkit.backends.onnxruntime import OnnxRuntimeSession, version

    threads = os.cpu_count() or 1
    subjects, latencies = [], []
    for model in models:
        name = model.path.name
        session = OnnxRuntimeSession(model, model.outputs, threads=threads)
        run = session.runner()
        size = model.path.stat().st_size
        subjects.append(Subject(name, "int8" if has_qdq(model) else "fp32", size))
        fixed = next((i.fixed_batch for i in model.inputs if i.fixed_batch is not None), None)
        for batch in options.batches if fixed is None else (fixed,):
            say(f"{name}: batch {batch} on onnxruntime")
            feeds = made_up(model, batch)
            run(feeds)
            times: list[float] = []
            end = time.monotonic() + options.seconds
            while not times or time.monotonic() < end:
                started = time.perf_counter()
                run(feeds)
                times.append(1000.0 * (time.perf_counter() - started))
            latencies.append(summed_up(name, batch, times, graph=False))
    machine = f"{platform.processor() or platform.machine()} ({threads} threads), {version('cpu')}"
    return Bench(machine, False, tuple(subjects), tuple(latencies), (), (f"onnxruntime on the processor: {reason}",))


def made_up(model: Model, batch: int) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs for timing, seeded: how fast a network is does not depend on values, as a rule. ModelError."""
    random = np.random.default_rng(0)
    feeds = {}
    for i in model.inputs:
        shape = [batch if k == 0 and not isinstance(s, int) else s for k, s in enumerate(i.shape)]
        if not all(isinstance(size, int) for size in shape):
            raise ModelError(
                f"input {i.describe()} is dynamic in more than its batch", remedy="export the model with a fixed size"
            )
        values = random.random([int(str(size)) for size in shape], np.float32)
        feeds[i.name] = values.astype(i.dtype) if i.dtype.startswith("float") else np.zeros(values.shape, i.dtype)
    return feeds

"""bench: compare the speed of engines of every precision; without a GPU, measure onnxruntime on the CPU."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from quantkit.backends.engine_record import is_engine, precision_counts, read_engine_record
from quantkit.backends.session import (
    DEFAULT_PROVIDER,
    SessionOpener,
    backend_label,
    default_backend,
    open_session,
)
from quantkit.backends.tensorrt.messages import ignore_phase
from quantkit.engines.bench_builds import EngineSources, build_every_precision, machine_name, shapes_for_batches
from quantkit.engines.bench_result import BenchResult, BenchSubject, Latency, Throughput
from quantkit.errors import BackendError, ModelError, OutputError, UsageError
from quantkit.graph import Model, load_model
from quantkit.keywords.option_fields import takes_fields
from quantkit.paths import exists, given_list, given_path, is_file, is_folder
from quantkit.qdq.reader import has_qdq
from quantkit.regular_file import regular_file_digest
from quantkit.tensorrt_version import has_driver
from quantkit.values import check_number, checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from quantkit.backends.tensorrt.engine import Engine
    from quantkit.backends.tensorrt.options import BuildOptions
    from quantkit.engines.built_engine import BuiltEngine

DEFAULT_BATCHES = (1, 8, 32)
DEFAULT_STREAMS = (1, 2)
MOST_STREAMS = 1024
PRECISIONS = ("fp32", "tf32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """A frozen choice of what to measure. seconds: measuring time for each figure."""

    batches: tuple[int, ...] = DEFAULT_BATCHES
    streams: tuple[int, ...] = DEFAULT_STREAMS
    graphs: tuple[bool, ...] = (False, True)
    seconds: float = 1.0
    precisions: tuple[str, ...] = PRECISIONS
    device: int = 0
    allow_code: bool = False
    """Allow version-compatible engines to run the code that they contain."""

    def __post_init__(self) -> None:
        for name in ("batches", "streams", "graphs", "precisions"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        if not self.batches or not self.streams:
            raise UsageError("no batches or no streams to time", remedy="for example --batch 1,32 --streams 1,2")
        for batch in self.batches:
            check_number("batch", batch, 1)
        for streams in self.streams:
            check_number("streams", streams, 1, MOST_STREAMS)
        check_number("seconds", self.seconds, 0.001, 3600.0, whole=False)
        check_number("device", self.device, 0)
        if unknown := [p for p in self.precisions if p not in (*PRECISIONS, "best")]:
            raise UsageError(f"unknown precision {unknown[0]!r}", remedy=f"use one of {', '.join(PRECISIONS)}, best")


class BenchFields(TypedDict, total=False):
    """The keywords of `bench` that are fields of `BenchOptions`."""

    batches: int | Sequence[int]
    streams: int | Sequence[int]
    graphs: bool | Sequence[bool]
    seconds: float
    precisions: str | Sequence[str]
    device: int
    allow_code: bool


@takes_fields(BenchOptions)
def bench(
    subjects: Sequence[str | os.PathLike[str]],
    *,
    options: BenchOptions | None = None,
    build_options: BuildOptions | None = None,
    table: str | os.PathLike[str] | None = None,
    tuned: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    phase: Callable[[str], None] | None = None,
    **_: Unpack[BenchFields],
) -> BenchResult:
    """Measure engines, or build engines of every precision from an ONNX model and measure those.

    subjects: engine files, or ONNX models. build_options, table, tuned, output: as `build` takes them, for a model; the
    choice of a tuning is measured beside the precisions. Without a GPU or TensorRT the models run on onnxruntime, and
    the result says so. phase: receives progress messages.

    Raises BackendError, ModelError, UsageError, and what `build` raises.
    """
    options = checked_options(options, BenchOptions)
    say = phase or ignore_phase
    if output is not None and not is_folder(output):
        raise OutputError(
            f"{output} is not a folder",
            remedy="create it first: engines of several precisions are written into a folder",
        )
    paths = list(dict.fromkeys(given_path(subject, "a model") for subject in given_list(subjects, "subjects")))
    if not paths:
        raise UsageError("nothing to measure", remedy="give engines or an ONNX model")
    engines = [path for path in paths if is_engine(path)]
    models = [path for path in paths if not is_engine(path)]
    reason = explain_no_gpu(options.device)
    if reason is not None:
        if engines:
            raise BackendError(f"cannot run {engines[0]}: {reason}", remedy="run it on the GPU that it was built for")
        if tuned is not None:
            raise BackendError(
                f"cannot build the engine that a tuning chose: {reason}",
                remedy="run it on the GPU that it was tuned on, or leave out --tuned",
            )
        return bench_on_cpu([load_model(path) for path in models], options, say, reason)
    return bench_on_gpu(engines, models, options, build_options, EngineSources(table, tuned, output), say)


def explain_no_gpu(device: int) -> str | None:
    """Return why engines cannot run here; None if they can."""
    if not has_driver():
        return "there is no NVIDIA driver"
    from quantkit.backends.tensorrt.device import open_device
    from quantkit.backends.tensorrt.versions import tensorrt

    try:
        tensorrt()
        open_device(device)
    except BackendError as error:
        return error.summary
    return None


def bench_on_gpu(
    engines: Sequence[Path],
    models: Sequence[Path],
    options: BenchOptions,
    build_options: BuildOptions | None,
    sources: EngineSources,
    say: Callable[[str], None],
) -> BenchResult:
    """Measure engines with TensorRT, after building those of the models."""
    from quantkit.backends.tensorrt.build import kernels_loaded
    from quantkit.backends.tensorrt.engine import Engine

    notes: list[str] = []
    chosen: list[tuple[Path, BenchSubject]] = []
    for path in engines:
        subject, said = read_engine_subject(path)
        chosen.append((path, subject))
        notes += said
    with kernels_loaded(options.device) if models else nullcontext():
        for path in models:
            model = load_model(path)
            base = bench_build_options(model, options, build_options)
            built, said = build_every_precision(model, options.precisions, base, sources, say)
            notes += said
            chosen += [(made.path, replace(built_engine_subject(made), model=model.sha256)) for made in built]
    subjects, latencies, throughputs = [], [], []
    for (path, subject), name in zip(chosen, distinct_names([path for path, _ in chosen]), strict=True):
        with Engine.load(path, options.device, allow_code=options.allow_code) as engine:
            subjects.append(replace(subject, name=name, memory=engine.memory))
            found = measure_engine(engine, name, options, say)
            latencies += found[0]
            throughputs += found[1]
            notes += found[2]
    if not latencies:
        reasons = "; ".join(dict.fromkeys(notes)) or "there is no engine"
        raise UsageError(f"nothing could be measured: {reasons}", remedy="give other --batch sizes, or build again")
    return BenchResult(
        machine_name(options.device),
        True,
        tuple(subjects),
        tuple(latencies),
        tuple(throughputs),
        tuple(dict.fromkeys(notes)),
    )


def bench_build_options(model: Model, options: BenchOptions, given: BuildOptions | None) -> BuildOptions:
    """Return the options of the builds: for all batch sizes that are timed, unless shapes are given."""
    from quantkit.backends.tensorrt.options import BuildOptions

    base = given or BuildOptions(device=options.device)
    return base if base.shapes else replace(base, shapes=shapes_for_batches(model, options.batches))


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the files' names, with their folders where two names are the same."""
    names = [path.name for path in paths]
    return [str(path) if names.count(path.name) > 1 else path.name for path in paths]


def read_engine_subject(path: Path) -> tuple[BenchSubject, list[str]]:
    """Return a subject from the record beside an engine, and notes; a record of another engine is not used."""
    record = read_engine_record(path)
    size = path.stat().st_size if exists(path) else 0
    if record is None or not is_file(path):
        return BenchSubject(path.name, "?", size), []
    if regular_file_digest(path) != record.sha256:
        return BenchSubject(path.name, "?", size), [
            f"the record beside {path.name} belongs to another engine and is not used"
        ]
    counts = precision_counts(record.layers)
    return BenchSubject(path.name, record.precision, size, record.model.sha256, record.seconds, None, counts), []


def built_engine_subject(made: BuiltEngine) -> BenchSubject:
    """Return the subject of an engine that was just built."""
    record = made.record
    return BenchSubject(
        made.path.name,
        record.precision,
        record.bytes,
        record.model.sha256,
        record.seconds,
        record.device_memory,
        made.counts,
    )


def measure_engine(
    engine: Engine, name: str, options: BenchOptions, say: Callable[[str], None]
) -> tuple[list[Latency], list[Throughput], list[str]]:
    """Measure one engine; return latencies, throughputs and notes."""
    from quantkit.backends.tensorrt.timing import measure_latencies, measure_throughput, takes_batch

    alone: list[Latency] = []
    together: list[Throughput] = []
    notes: list[str] = []
    for batch in bench_batches(engine, options):
        if not takes_batch(engine, batch):
            notes.append(f"{name} was not built for batch {batch}")
            continue
        for graph in options.graphs:
            with_graph = " with a CUDA graph" if graph else ""
            say(f"{name}: batch {batch}{with_graph}")
            try:
                times = measure_latencies(engine, batch, seconds=options.seconds, graph=graph)
                if not times:
                    notes.append(f"{name}: no CUDA graph, because the shape of an output depends on the data")
                    continue
                alone.append(latency_percentiles(name, batch, times, graph))
                for streams in options.streams:
                    rate = measure_throughput(engine, batch, streams=streams, seconds=options.seconds, graph=graph)
                    together.append(Throughput(name, batch, streams, graph, rate))
            except BackendError as error:
                if not graph:
                    raise
                notes.append(f"{name}: no CUDA graph at batch {batch}: {error.summary}")
    return alone, together, notes


def bench_batches(engine: Engine, options: BenchOptions) -> tuple[int, ...]:
    """Return the requested batch sizes, or the one that the engine is fixed to."""
    fixed = next((i.fixed_batch for i in engine.inputs if i.fixed_batch is not None), None)
    return options.batches if fixed is None else (fixed,)


def latency_percentiles(name: str, batch: int, times: Sequence[float], graph: bool) -> Latency:
    """Return median, p90 and p99 of times in milliseconds."""
    median, p90, p99 = np.percentile(np.asarray(times), [50, 90, 99])
    return Latency(name, batch, graph, float(median), float(p90), float(p99), len(times))


def bench_on_cpu(
    models: Sequence[Model],
    options: BenchOptions,
    say: Callable[[str], None],
    reason: str,
    open_session: SessionOpener = open_session,
) -> BenchResult:
    """Measure models with onnxruntime on the CPU."""
    threads = os.cpu_count() or 1
    subjects, latencies = [], []
    for model, name in zip(models, distinct_names([model.path for model in models]), strict=True):
        session = open_session(model, model.outputs, threads=threads)
        run = session.runner()
        size = model.path.stat().st_size
        subjects.append(BenchSubject(name, "int8" if has_qdq(model) else "fp32", size, model.sha256))
        fixed = next((i.fixed_batch for i in model.inputs if i.fixed_batch is not None), None)
        for batch in options.batches if fixed is None else (fixed,):
            say(f"{name}: batch {batch} on onnxruntime")
            feeds = random_feeds(model, batch)
            run(feeds)
            times: list[float] = []
            end = time.monotonic() + options.seconds
            while not times or time.monotonic() < end:
                started = time.perf_counter()
                run(feeds)
                times.append(1000.0 * (time.perf_counter() - started))
            latencies.append(latency_percentiles(name, batch, times, graph=False))
    library = backend_label(default_backend(), DEFAULT_PROVIDER)
    machine = f"{platform.processor() or platform.machine()} ({threads} threads), {library}"
    return BenchResult(machine, False, tuple(subjects), tuple(latencies), (), (f"onnxruntime on the CPU: {reason}",))


def random_feeds(model: Model, batch: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return seeded random inputs for timing, whose values rarely matter for speed. ModelError."""
    random = np.random.default_rng(0)
    feeds = {}
    for i in model.inputs:
        shape = [batch if k == 0 and not isinstance(s, int) else s for k, s in enumerate(i.shape)]
        if not all(isinstance(size, int) for size in shape):
            raise ModelError(
                f"input {i.describe()} has dynamic axes besides the batch", remedy="export the model with a fixed size"
            )
        values = random.random([int(str(size)) for size in shape], np.float32)
        feeds[i.name] = values.astype(i.dtype) if i.dtype.startswith("float") else np.zeros(values.shape, i.dtype)
    return feeds

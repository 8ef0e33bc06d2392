"""The build of a serialized engine from an ONNX model, and what is known about the engine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantkit.backends.engine_record import EngineLayer
from quantkit.backends.tensorrt.background import run_in_background
from quantkit.backends.tensorrt.build_context import BuildContext
from quantkit.backends.tensorrt.device import open_device
from quantkit.backends.tensorrt.engine_layers import LayerContext
from quantkit.backends.tensorrt.inspection import EngineTensor, inspect_engine
from quantkit.backends.tensorrt.limits import NetworkTraits, refuse_impossible
from quantkit.backends.tensorrt.messages import Messages, Phase, capture_messages, ignore_phase, make_or_raise
from quantkit.backends.tensorrt.network import add_profile, layers_by_name, parse_model
from quantkit.backends.tensorrt.options import BuildOptions, Verbosity
from quantkit.backends.tensorrt.shapes import ShapeRange
from quantkit.backends.tensorrt.table_coverage import CompletedTable
from quantkit.backends.tensorrt.table_input import cover_network, insert_table_as_qdq, table_calibrator
from quantkit.backends.tensorrt.timing_cache import shared_times, times_bytes, use_times
from quantkit.backends.tensorrt.versions import (
    build_stopper,
    fp8_flags,
    keep_precision,
    network_flags,
    set_calibration,
    set_flag,
    share_profile,
    tensorrt,
)
from quantkit.errors import BackendError, ModelError, QuantkitError, TableError
from quantkit.graph import Model, refuse_changed_weights
from quantkit.graph.node_selection import node_names, select_nodes
from quantkit.qdq.insert import is_half
from quantkit.table import CalibrationTable

INT8_WEIGHTS = "convertMyelinWeightsToFp32"
"""The function of TensorRT 8.6 that fails if weights of a matrix product are stored as INT8 (measured)."""
NOTHING_FITS = ("Could not find any implementation for node", "insufficient workspace", "OutOfMemory", "out of memory")

REJECTED = "TensorRT rejects the existing timing cache; this build measures again"


@dataclass(frozen=True, slots=True)
class EngineBuild:
    """An engine and what is known about it."""

    plan: bytes
    seconds: float
    version: str
    gpu: str
    layers: tuple[EngineLayer, ...]
    memory: int
    covered: CompletedTable | None
    timing_cache: bytes | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    """Nodes that were excluded from INT8."""
    converted: bool = False
    """True if the scales of the table were inserted as Q/DQ pairs."""
    bound: tuple[EngineTensor, ...] = ()


def build_engine(
    model: Model,
    options: BuildOptions,
    ranges: Mapping[str, ShapeRange],
    *,
    table: CalibrationTable | None = None,
    rule: str | None = None,
    timing_cache: bytes | None = None,
    phase: Phase = ignore_phase,
) -> EngineBuild:
    """Build an engine.

    ranges: the shape range of every input. table: scales for a network without Q/DQ; rule: that of the table.
    timing_cache: measurements of an earlier build. phase: called with the current phase.

    Raises BackendError (no TensorRT, no GPU, a feature this version does not have, no kernel fits), ModelError (with
    every operator that TensorRT cannot parse), TableError (a table for another version, or of low coverage),
    Interrupted at Ctrl-C.
    """
    build = BuildContext(model, options, ranges, phase)
    kinds = NetworkTraits(explicit=build.explicit, half=is_half(model), has_table=table is not None)
    refuse_impossible(options, build.features, build.device, kinds)
    if table is not None and build.strong:
        insert_table_as_qdq(build, table, rule)
        table = None
    with build.device.current():
        pass  # the primary context exists before TensorRT looks for one
    return run_in_background(
        lambda: run_build(build, table, rule, timing_cache), build.stopping.set, waits=build.features.progress
    )


@contextlib.contextmanager
def kernels_loaded(number: int = 0) -> Iterator[None]:
    """Keep TensorRT's kernels loaded between builds, which takes 3 … 10 s each time, and share their measured times."""
    trt, device = tensorrt(), open_device(number)
    messages = Messages()
    with capture_messages(trt, messages) as log, device.current():
        builder = make_or_raise(lambda: trt.Builder(log), messages)
        config = builder.create_builder_config()
    try:
        with shared_times(config, number):
            yield
    finally:
        with device.current():
            del config, builder


def run_build(
    build: BuildContext, table: CalibrationTable | None, rule: str | None, timing_cache: bytes | None
) -> EngineBuild:
    """Run the build, and inspect the engine."""
    build.phase("starting TensorRT")
    with build.device.current(), capture_messages(build.trt, build.messages) as log:
        made_now = serialize_engine(
            build, log, table, rule, timing_cache
        )  # builder and network are freed before their context
        refuse_changed_weights(build.model)
        build.phase("inspecting the engine")
        context = LayerContext(
            operators=node_names(build.model),
            int8=build.options.int8 and (build.explicit or build.covered is not None),
            table=build.covered is not None and not build.explicit,
            unscaled=frozenset(build.messages.unscaled) | frozenset(build.covered.unscaled if build.covered else ()),
            excluded=build.kept,
            tuning=build.messages.tuning,
            measured_anew=build.measured_anew,
        )
        inspection = inspect_engine(build.trt, log, build.messages, made_now.plan, build.ranges, context)
    return EngineBuild(
        plan=made_now.plan,
        seconds=made_now.seconds,
        version=build.features.version,
        gpu=build.device.name,
        layers=inspection.layers,
        memory=inspection.memory,
        covered=build.covered,
        timing_cache=made_now.timing_cache,
        warnings=build.messages.warnings,
        notes=(*build.notes, *([inspection.silent] if inspection.silent else [])),
        kept=tuple(sorted(build.kept)),
        converted=build.covered is not None and table is None,
        bound=inspection.bound,
    )


@dataclass(frozen=True, slots=True)
class SerializedEngine:
    """A serialized engine, the seconds of its build, and the measurements that were made."""

    plan: bytes
    seconds: float
    timing_cache: bytes | None


def serialize_engine(
    build: BuildContext, log: Any, table: CalibrationTable | None, rule: str | None, timing_cache: bytes | None
) -> SerializedEngine:
    """Parse the network, configure the builder, and build. Raises what `build_engine` raises."""
    trt, options, fp8 = build.trt, build.options, fp8_flags(build.model, build.features, strong=build.strong)
    trt.init_libnvinfer_plugins(log, "")
    builder = make_or_raise(lambda: trt.Builder(log), build.messages)
    network = builder.create_network(network_flags(trt, strongly_typed=build.strong))
    build.phase("parsing")
    parser = parse_model(trt, network, build.model, log, build.messages)
    config = builder.create_builder_config()
    flags = () if build.strong else options.flags(scales=table is not None or build.explicit)
    configure_builder(build, config, (*flags, *fp8))
    profile = add_profile(builder, network, build.ranges)
    if profile is not None:
        config.add_optimization_profile(profile)
    calibrator = None
    if table is not None:
        build.covered = cover_network(build, table, rule, network)
        calibrator = table_calibrator(trt, build.covered.table)
        set_calibration(config, calibrator, profile)
    if not build.strong:
        build.kept = exclude_from_int8(build, network, config)
    cache = use_timing_cache(build, config, timing_cache)
    monitor = build_stopper(trt, config, build.stopping.is_set, build.phase)
    build.phase("building")
    started = time.monotonic()
    memory = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - started
    del monitor, parser
    if calibrator is not None and calibrator.calls:
        raise TableError(
            f"TensorRT did not accept the table: it asked for {calibrator.calls} batches of data",
            remedy="the header must name this TensorRT and this calibrator (--retarget, quantkit table convert)",
        )
    if memory is None:
        raise build_failure(build)
    if build.refused_times and not options.force:
        cache = None  # what is there is not TensorRT's: it stays as it is
    times = times_bytes(cache, build.device.number) if cache is not None else None
    return SerializedEngine(bytes(memory), seconds, times)


def configure_builder(build: BuildContext, config: Any, flags: Sequence[str]) -> None:
    """Transfer the options to TensorRT's builder configuration; `flags`: those of the precision."""
    trt, options = build.trt, build.options
    config.builder_optimization_level = options.level
    verbosity = {
        Verbosity.DETAILED: trt.ProfilingVerbosity.DETAILED,
        Verbosity.NAMES: trt.ProfilingVerbosity.LAYER_NAMES_ONLY,
        Verbosity.NONE: trt.ProfilingVerbosity.NONE,
    }
    config.profiling_verbosity = verbosity[options.verbosity]
    share_profile(trt, config)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if not options.allows_tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    for name in flags:
        set_flag(trt, config, name)
    if options.refit:
        set_flag(trt, config, "REFIT")
    if options.version_compatible:
        set_flag(trt, config, "VERSION_COMPATIBLE")
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def exclude_from_int8(build: BuildContext, network: Any, config: Any) -> frozenset[str]:
    """Exclude the chosen nodes from INT8, and return them. UsageError where a pattern matches nothing."""
    trt, options = build.trt, build.options
    named = select_nodes(options.exclude, build.model, "--exclude")
    dtype = trt.float16 if options.fp16 else trt.float32
    layers = layers_by_name(network)
    missing = [name for name in named if name not in layers]
    for name in named:
        if name in layers:
            keep_precision(trt, config, layers[name], dtype)
    if missing:
        build.notes.append(f"nodes without a layer of their own, which could not be excluded: {', '.join(missing)}")
    return named - set(missing)


def use_timing_cache(build: BuildContext, config: Any, there: bytes | None) -> Any | None:
    """Return the kernel times of earlier builds, or an empty cache for new ones; None if there should be none."""
    if not build.options.timing_cache:
        set_flag(build.trt, config, "DISABLE_TIMING_CACHE")
        return None
    used = use_times(config, build.device.number, there)
    build.measured_anew, build.refused_times = not used.known, used.refused
    if used.refused:
        build.notes.append(REJECTED + ("" if build.options.force else ", and leaves it as it is (--force replaces it)"))
    return used.cache


def build_failure(build: BuildContext) -> QuantkitError:
    """Return the error for a build that gave no engine."""
    said = build.messages.errors
    shown = list(said) or ["it gives no reason"]
    if any(word in text for text in said for word in NOTHING_FITS):
        return BackendError(
            "TensorRT found no kernel for some layer",
            details=shown,
            remedy="give it more memory with a larger --workspace, or another precision for that layer (--exclude)",
        )
    remedy = "see its errors above"
    if any(INT8_WEIGHTS in text for text in said):
        remedy = "this TensorRT supports no INT8 weights of matrix products: use quantkit quantize --weights float"
    return ModelError(f"TensorRT could not build an engine of {build.model.path}", details=shown, remedy=remedy)

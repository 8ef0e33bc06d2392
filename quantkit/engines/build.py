"""build: turn an ONNX model, with scales for INT8, into a TensorRT engine and a record of how it was built."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit._version import __version__
from quantkit.artifact import check_destinations, refuse_missing_folder, refuse_overwriting, sha256_of, write_all
from quantkit.backends.engine_record import (
    EngineRecord,
    TableUse,
    TensorRecord,
    engine_record_bytes,
    engine_record_path,
    is_engine_record,
)
from quantkit.backends.tensorrt.build import EngineBuild, build_engine
from quantkit.backends.tensorrt.device import open_device
from quantkit.backends.tensorrt.messages import Phase, ignore_phase
from quantkit.backends.tensorrt.options import BuildFields, BuildFiles, BuildOptions, TrtexecCommand, equivalent_trtexec
from quantkit.backends.tensorrt.shapes import ShapeRange, parse_shapes
from quantkit.backends.tensorrt.versions import detect_features, tensorrt
from quantkit.engines.built_engine import BuiltEngine, engine_identity, reuse_engine
from quantkit.engines.table_scales import (
    TableScales,
    completed_table,
    find_table_scales,
    provenance_notes,
    used_table_path,
)
from quantkit.engines.tuned_model import other_machine_warning, tuned_inputs
from quantkit.errors import BackendError, UsageError
from quantkit.graph import AnyModel, Model, load_model
from quantkit.graph.model import IN_MEMORY, node_name
from quantkit.keywords.option_fields import takes_fields
from quantkit.linting.rules.parsing.clip_apart import misread_clips
from quantkit.paths import beside, exists, is_folder
from quantkit.provenance import ModelRecord
from quantkit.qdq.fold_constants import fold_constants
from quantkit.qdq.layer_counts import fp8_tensors
from quantkit.qdq.reader import has_qdq, read_qdq
from quantkit.regular_file import UNBOUNDED, read_regular
from quantkit.staging import claimed_outputs
from quantkit.table import table_bytes
from quantkit.values import checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

FOLDED = "nodes between constants and layers were folded; quantkit lint --fix writes such a network for trtexec"
"""The reason why there is no `trtexec` line for a float network that was cleaned."""


@takes_fields(BuildOptions)
def build(
    model: AnyModel,
    *,
    options: BuildOptions | None = None,
    table: str | os.PathLike[str] | None = None,
    tuned: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    phase: Phase = ignore_phase,
    name: str | None = None,
    **_: Unpack[BuildFields],
) -> BuiltEngine:
    """Build a TensorRT engine for the GPU of this machine.

    model: path of the ONNX file. table: a calibration table; by default the one beside the model (`MODEL.calib`) if
    the precision is INT8 and the network has no Q/DQ. tuned: the folder of `tune`, whose choice replaces model, table
    and precision. output: the engine file, by default `MODEL.<gpu>.<TensorRT>.<precision>.engine` beside the model; in
    a folder the engine gets that name, or `name`. An existing engine of the same inputs is reused.

    Writes the engine, its record (`.json`) and the timing cache of this GPU and TensorRT. Raises ModelError,
    TableError, StaleError, BackendError, OutputError, UsageError, Interrupted.
    """
    checked = checked_options(options, BuildOptions)  # before the model is looked at
    loaded, options, table = tuned_inputs(tuned, load_model(model), checked, table)
    ranges = parse_shapes(options.shapes, loaded.inputs)
    scales = find_table_scales(loaded, options, table)
    refuse_no_place(loaded, output)
    trt_version, gpu = detect_features(tensorrt()).version, open_device(options.device)
    usual = f"{loaded.path.stem}.{gpu.slug}.{trt_version}.{options.precision.value}.engine"
    path = engine_output_path(output, loaded.path, name or usual)
    cache = beside(path, f"timing.{gpu.slug}.{trt_version}.cache") if options.timing_cache else None
    places = [path, engine_record_path(path), used_table_path(path), *([cache] if cache else [])]
    refuse_overwriting(places, [*loaded.files, scales and scales.path])
    wanted = engine_identity(loaded, options, ranges, scales, trt_version, gpu.name)
    faults = (*find_clip_faults(loaded, trt_version), *other_machine_warning(tuned, gpu.name, trt_version))
    if exists(path) and not options.force:
        return replace(reuse_engine(path, wanted, options.min_coverage), faults=faults)
    given = network_for_tensorrt(loaded)
    ours = check_destinations(places, force=options.force, ours=lambda place: place == cache or is_engine_record(path))
    with claimed_outputs([path]):
        made = build_engine(
            given,
            options,
            ranges,
            table=scales.table if scales else None,
            rule=scales.rule if scales else None,
            timing_cache=read_timing_cache(cache),
            phase=phase,
        )
    files = {path: made.plan}
    used = completed_table(scales, made, path)
    if used is not None and used is not scales:
        files[used.path] = table_bytes(used.table)
    cleaned = given.proto is not loaded.proto
    line = trtexec_command(loaded, path, options, ranges, used, cache, made, cleaned=cleaned)
    record = make_engine_record(loaded, path, options, ranges, scales, made, line)
    files[engine_record_path(path)] = engine_record_bytes(record)
    if cache is not None and made.timing_cache:
        files[cache] = made.timing_cache
    write_all(files, may_replace=lambda place: place == cache or ours(place))
    return BuiltEngine(path, record, line, False, (*made.notes, *provenance_notes(scales)), faults)


def network_for_tensorrt(model: Model) -> Model:
    """Return a float network with what constants alone decide as initializers, and a Q/DQ network as it is.

    TensorRT 8.6 fuses no weight that comes from a node, an Identity for instance: FP16 would look slower than it is.
    """
    return model if has_qdq(model) else replace(model, proto=fold_constants(model))


def find_clip_faults(model: Model, version: str) -> tuple[str, ...]:
    """Return a warning for each Clip of a Q/DQ network that TensorRT 8 computes wrongly."""
    if not has_qdq(model) or not version.startswith("8."):
        return ()
    return tuple(
        f"TensorRT {version} computes Clip {node_name(node)} wrongly, because no INT8 layer fuses it: "
        "quantkit lint --fix fixes the model"
        for node in misread_clips(read_qdq(model))
    )


def refuse_no_place(model: Model, output: str | os.PathLike[str] | None) -> None:
    """Raise UsageError for a model in memory, beside which nothing can be written, without an output."""
    if output is None and model.path == IN_MEMORY:
        raise UsageError("there is no folder beside a model in memory for its engine", remedy="give --output")


def engine_output_path(output: str | os.PathLike[str] | None, model: Path, name: str) -> Path:
    """Return the path of the engine. OutputError if its folder does not exist."""
    asked = model.parent if output is None else Path(output)
    path = asked / name if is_folder(asked) else asked
    refuse_missing_folder(path)
    return path


def read_timing_cache(path: Path | None) -> bytes | None:
    """Return the timing cache of earlier builds, if there is one."""
    if path is None:
        return None
    try:
        return read_regular(path, most=UNBOUNDED)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BackendError(
            f"the timing cache {path} cannot be read: {error.strerror or error}", remedy="remove it, or give another"
        ) from None


def trtexec_command(
    model: Model,
    path: Path,
    options: BuildOptions,
    ranges: Mapping[str, ShapeRange],
    scales: TableScales | None,
    cache: Path | None,
    made: EngineBuild,
    *,
    cleaned: bool = False,
) -> TrtexecCommand:
    """Return the `trtexec` line that builds the same engine, or why there is none."""
    if scales and made.converted:
        return TrtexecCommand(None, "the Q/DQ pairs were inserted during the build, which trtexec cannot do")
    if cleaned:
        return TrtexecCommand(None, FOLDED)
    found = detect_features(tensorrt())
    files = BuildFiles(
        model.path,
        path,
        scales.path if scales else None,
        cache,
        shares_profile=not found.progress,
        ranges=ranges,
        explicit=has_qdq(model),
        always_strong=found.always_strong,
        fp8=bool(fp8_tensors(model)),
    )
    return equivalent_trtexec(options, files, scales.table if scales else None, made.kept)


def make_engine_record(
    model: Model,
    path: Path,
    options: BuildOptions,
    ranges: Mapping[str, ShapeRange],
    scales: TableScales | None,
    made: EngineBuild,
    line: TrtexecCommand,
) -> EngineRecord:
    """Return the record of an engine."""
    use = None
    if scales is not None and made.covered is not None:
        covered = made.covered
        use = TableUse(
            file=scales.path.name,
            sha256=scales.sha256,
            header=scales.table.header.text,
            rule=scales.rule,
            share=covered.share,
            completed=covered.completed,
            missing=covered.missing,
            inner=covered.inner,
            extra=covered.extra,
        )
    return EngineRecord(
        quantkit=__version__,
        file=path.name,
        sha256=sha256_of(made.plan),
        bytes=len(made.plan),
        tensorrt=made.version,
        gpu=made.gpu,
        model=ModelRecord(file=model.path.name, sha256=model.sha256),
        precision=options.precision.value,
        shapes={name: r.text for name, r in ranges.items()},
        options=options.document(),
        table=use,
        explicit=has_qdq(model),
        seconds=round(made.seconds, 3),
        device_memory=made.memory,
        layers=made.layers,
        kept=made.kept,
        warnings=made.warnings,
        trtexec=line.line,
        no_trtexec=line.reason,
        inputs=tuple(TensorRecord(name=b.name, dtype=b.dtype, shape=b.shape) for b in made.bound if b.is_input),
        outputs=tuple(TensorRecord(name=b.name, dtype=b.dtype, shape=b.shape) for b in made.bound if not b.is_input),
    )

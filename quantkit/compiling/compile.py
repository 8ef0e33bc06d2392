"""The verb compile: a network through TensorRT-RTX's compiler, for GPUs that this machine does not have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from quantkit._version import __version__
from quantkit.artifact import check_destinations, sha256_of, write_all
from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork
from quantkit.backends.tensorrt_rtx.compiling import Compilation, require_compiler, try_compile
from quantkit.backends.tensorrt_rtx.record import (
    CompiledRecord,
    SavedEngine,
    compiled_record_bytes,
    is_compiled_record,
)
from quantkit.backends.tensorrt_rtx.static_shapes import chosen_shapes
from quantkit.compiling.counterparts import FLOAT_PART, Counterpart, fp16_counterparts
from quantkit.compiling.gpus import GPUS
from quantkit.compiling.operations import count_operations, kernel_operations
from quantkit.compiling.options import CompileFields, CompileOptions, input_shapes
from quantkit.compiling.result import CompiledModel, CompiledVariant
from quantkit.compiling.roofline import estimate_network
from quantkit.errors import UsageError
from quantkit.graph import AnyModel, Model, load_model, refuse_changed_weights
from quantkit.graph.model import node_name
from quantkit.keywords.option_fields import takes_fields
from quantkit.paths import beside, given_path
from quantkit.provenance import ModelRecord
from quantkit.qdq.reader import is_qdq
from quantkit.values import checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

SAME = 0.99
"""Share of the bytes from which on two networks move the same."""
Phase = Callable[[str], None]
FP32_PART = "the model's float part is FP32, and a strongly typed compiler keeps it"
IN_FP16 = "with the float part in FP16 (quantkit quantize --fp16)"


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files to write: the engine for each architecture, and the record."""

    engines: Mapping[str, Path]
    record: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return (*self.engines.values(), *([self.record] if self.record else []))


@takes_fields(CompileOptions)
def compile(  # noqa: A001 (the public name; nothing in this module compiles Python)
    model: AnyModel,
    *,
    options: CompileOptions | None = None,
    against: AnyModel | None = None,
    save: str | os.PathLike[str] | None = None,
    record: str | os.PathLike[str] | None = None,
    phase: Phase = lambda _: None,
    **_: Unpack[CompileFields],
) -> CompiledModel:
    """Compile a model with NVIDIA's TensorRT-RTX, without a GPU, and compare it with its float network in FP16.

    model: path of the ONNX file, or an `onnx.ModelProto`, with or without Q/DQ nodes. against: another model to compare
    it with instead.
    save: the engine to write; for several architectures, each name gets its architecture before the suffix. record: the
    file to write with all kernels (`x.compiled.json`). phase: receives what the compiler does at the moment.

    A network that the compiler refuses is a result, with `refusals`; then nothing is written. Raises ModelError,
    BackendError (TensorRT-RTX is not installed, or exceeds a limit), UsageError, OutputError, StaleError.
    """
    options = checked_options(options, CompileOptions)
    version = require_compiler()
    loaded = load_model(model)
    shapes = input_shapes(options, loaded.inputs)
    other = None if against is None else load_model(against)
    outputs = plan_outputs(options.targets, save, record)
    read = [*loaded.files, *(other.files if other else ())]
    engines_may = check_destinations(outputs.engines.values(), read=read, force=options.force, option="--save")
    records = [outputs.record] if outputs.record else []
    record_may = check_destinations(records, read=read, force=options.force, option="--record", ours=is_compiled_record)
    made = compile_variant(loaded, loaded.path.name, options, phase, keep_engines=bool(outputs.engines))
    refuse_changed_weights(loaded)
    result = CompiledModel(
        loaded.path, version, shapes, (), made.refusals, options.estimated,
        frozenset(node_name(node) for node in loaded.proto.graph.node if is_qdq(node)),
    )  # fmt: skip
    if made.networks:
        first = variant_of(loaded, loaded.path.name, "model", made, options)
        chosen = chosen_shapes(loaded.inputs, options.shapes, options.batch or 1)
        notes = [f"sizes that the model leaves open were chosen: --shapes {shape}" for shape in chosen]
        result = replace(result, variants=(first,), notes=tuple(notes))
        result = with_counterparts(result, loaded, other, options, phase)
    if made.refusals and outputs.files:
        refused = ", ".join(dict.fromkeys(refusal.architecture for refusal in made.refusals))
        result = replace(
            result, notes=(*result.notes, f"nothing was written, since the model is refused for {refused}")
        )
    if made.refusals or not outputs.files:
        return result
    files = engine_files(outputs, made, loaded)
    write_all(files, "--save", may_replace=lambda path: engines_may(path) or record_may(path))
    return replace(result, saved=outputs.engines, record=outputs.record)


def plan_outputs(
    targets: tuple[str, ...], save: str | os.PathLike[str] | None, record: str | os.PathLike[str] | None
) -> Outputs:
    """Return the files to write. UsageError for one name for two files."""
    engines: dict[str, Path] = {}
    if save is not None:
        path = given_path(save, "save")
        if path.suffix.lower() == ".onnx":
            raise UsageError(
                f"{path} is the name of an ONNX model, not of an engine", remedy="for example --save x.engine"
            )
        names = {target: f"{path.stem}.{target}{path.suffix}" if len(targets) > 1 else path.name for target in targets}
        engines = {target: beside(path, name) for target, name in names.items()}
    kept = None if record is None else given_path(record, "record")
    if kept in engines.values():
        raise UsageError(f"{kept} cannot be engine and record", remedy="give --record another name, x.compiled.json")
    return Outputs(engines, kept)


def compile_variant(
    model: Model, name: str, options: CompileOptions, phase: Phase, *, keep_engines: bool = False
) -> Compilation:
    """Compile one network for all architectures. name: for the phases."""
    return try_compile(
        model,
        input_shapes(options, model.inputs),
        architectures=options.targets,
        limits=options.limits,
        keep_engines=keep_engines,
        stage=lambda text: phase(f"{name}: {text}"),
    )


def with_counterparts(
    result: CompiledModel, model: Model, other: Model | None, options: CompileOptions, phase: Phase
) -> CompiledModel:
    """Return the result with the networks that the model is compared with, and notes on those that are missing."""
    variants, notes = list(result.variants), list(result.notes)
    with TemporaryDirectory(prefix="quantkit-counterparts-") as folder:
        for counterpart in counterparts(model, other, options, Path(folder)):
            if counterpart.model is None:
                notes.append(f"no {counterpart.kind} to compare with: {counterpart.reason}")
                continue
            made = compile_variant(counterpart.model, counterpart.kind, options, phase)
            if made.refusals:
                first = made.refusals[0]
                notes.append(f"the {counterpart.kind} is refused: {first.place}: {first.problem}")
            if made.networks:
                variants.append(variant_of(counterpart.model, counterpart.kind, counterpart.kind, made, options))
    notes.extend(
        f"{variant.name}: {variant.unknown} products of unknown size are estimated by their bytes alone"
        for variant in variants
        if variant.unknown
    )
    part = next((variant for variant in variants if variant.kind == FLOAT_PART), None)
    if part is not None:
        notes.append(describe_fp32_part(result.networks[0], part.networks[0]))
    return replace(result, variants=tuple(variants), notes=tuple(notes))


def describe_fp32_part(network: CompiledNetwork, half: CompiledNetwork) -> str:
    """Return what the float part of a network costs in FP32. half: the network with that part in FP16."""
    floats, others = (sum("FP32" in kernel.operands for kernel in n.products) for n in (network, half))
    if others == floats and half.bytes > SAME * network.bytes:
        return f"{FP32_PART}; {IN_FP16} nothing would change here, since INT8 products write FP32 all the same"
    change = 100 * (1 - half.bytes / network.bytes)
    return (
        f"{FP32_PART}: {floats} of {len(network.products)} products multiply FP32; {IN_FP16} {others} would, and "
        f"{abs(change):.0f} % {'fewer' if change >= 0 else 'more'} bytes would move"
    )


def counterparts(model: Model, other: Model | None, options: CompileOptions, folder: Path) -> Iterator[Counterpart]:
    """Yield the networks to compare with: another model, else those in FP16."""
    if other is not None:
        yield Counterpart(other.path.name, other)
    elif options.compare:
        yield from fp16_counterparts(model, folder)


def variant_of(model: Model, name: str, kind: str, made: Compilation, options: CompileOptions) -> CompiledVariant:
    """Return a compiled network with its estimates."""
    counts = count_operations(model, input_shapes(options, model.inputs))
    estimates = [
        estimate_network(network, counts, GPUS[key])
        for key in options.estimated
        if (network := network_for(made.networks, GPUS[key].architecture)) is not None
    ]
    first = made.networks[0]
    found = kernel_operations(first, counts)
    known = sum(found.values()) if all(kernel.name in found for kernel in first.products) else None
    return CompiledVariant(name, kind, made.networks, tuple(estimates), known)


def network_for(networks: tuple[CompiledNetwork, ...], architecture: str) -> CompiledNetwork | None:
    """Return the network of an architecture; else the first one; None if there is none."""
    return next((found for found in networks if found.architecture == architecture), next(iter(networks), None))


def engine_files(outputs: Outputs, made: Compilation, model: Model) -> dict[Path, bytes]:
    """Return the files to write and their content."""
    files = {path: made.engines[name] for name, path in outputs.engines.items()}
    if outputs.record is not None:
        engines = [
            SavedEngine(file=path.name, sha256=sha256_of(content), bytes=len(content), architecture=name)
            for (name, path), content in zip(outputs.engines.items(), files.values(), strict=True)
        ]
        record = CompiledRecord(
            quantkit=__version__,
            model=ModelRecord(file=model.path.name, sha256=model.sha256),
            networks=made.networks,
            engines=tuple(engines),
        )
        files[outputs.record] = compiled_record_bytes(record)
    return files

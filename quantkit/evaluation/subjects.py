"""Models to evaluate: a float or Q/DQ ONNX model, an engine, or an ONNX model with a calibration table.

model.onnx                 onnxruntime, which computes Q and DQ in float
model.onnx+model.calib     onnxruntime, with Q/DQ where TensorRT would quantize by that table
model.engine .plan .trt    TensorRT
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from quantkit.artifact import sha256_of
from quantkit.backends.engine_record import is_engine, read_engine_record
from quantkit.errors import DataError, ModelError, UsageError
from quantkit.evaluation.result import ModelKind
from quantkit.graph import AnyModel, Model, load_model
from quantkit.graph.identity import external_files
from quantkit.graph.load import is_proto, model_place
from quantkit.graph.model import DTYPES, IN_MEMORY, as_input
from quantkit.graph.shape_inference import shapes_for_inputs
from quantkit.paths import exists, given_list, is_file
from quantkit.qdq.layer_counts import count_fp8_layers, count_int8_layers
from quantkit.qdq.reader import has_qdq
from quantkit.table import read_table
from quantkit.tensorrt_version import OLDEST_MAJOR, number_text
from quantkit.values import ModelInput, with_free_batches

if TYPE_CHECKING:
    from quantkit.backends.tensorrt.engine import Engine

Shape: TypeAlias = "tuple[int | str | None, ...]"
FEEDABLE = frozenset(DTYPES.values()) - {"bfloat16"}


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Batch sizes that a model takes, from `low` to `high` (None: any). batched: the batch axes of inputs."""

    low: int
    high: int | None
    batched: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SubjectOptions:
    """Options for opening models. device, allow_code: for engines. min_coverage: share of a network's float tensors
    that a table must cover."""

    device: int = 0
    allow_code: bool = False
    min_coverage: float = 0.9


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to evaluate: `model` runs on onnxruntime, `engine` on TensorRT; one of them is None."""

    name: str
    kind: ModelKind
    path: Path
    sha256: str
    bytes: int
    inputs: tuple[ModelInput, ...]
    outputs: tuple[str, ...]
    limits: BatchLimits
    int8_layers: tuple[int, int] | None = None
    fp8_layers: int = 0
    model: Model | None = None
    engine: Engine | None = None
    notes: tuple[str, ...] = ()
    whole: int | None = None
    """The fixed batch size of a model whose outputs cannot be divided into samples; None if they can."""
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    """Shapes of outputs, as far as they are known."""


def is_value(model: AnyModel) -> bool:
    """Return True for a model that is given as a value, not by its path."""
    return isinstance(model, Model) or is_proto(model)


def list_of_models(models: AnyModel | Sequence[AnyModel]) -> list[Any]:
    """Return one model, or several, as a list. UsageError."""
    one: Any = models
    return [one] if is_value(one) else given_list(one, "models")


def open_subjects(models: Sequence[AnyModel], held: ExitStack, options: SubjectOptions) -> tuple[Subject, ...]:
    """Open models; engines stay open as long as `held`. Models with the same file name are named by their paths, those
    in memory by their numbers. A file is read once, and not at all where its `Model` is given.

    ModelError, BackendError, TableError, StaleError, UsageError.
    """
    places = [model_place(model) for model in models]
    texts = [f"model {number}" if place == IN_MEMORY else str(place) for number, place in enumerate(places, 1)]
    if not texts:
        raise UsageError("nothing to evaluate", remedy="give a reference model, and the models to compare with it")
    paths = [os.path.normpath(text) for text in texts]
    repeated = next((text for i, text in enumerate(texts) if paths[i] in paths[:i]), None)
    if repeated is not None:
        raise UsageError(f"{repeated} is given twice", remedy="give every model once")
    refuse_table(texts)
    networks = ReadNetworks({model.path: model for model in models if isinstance(model, Model)})
    subjects = [
        replace(model_subject(load_model(model)), name=text)
        if place == IN_MEMORY
        else open_subject(text, held, options, networks)
        for model, place, text in zip(models, places, texts, strict=True)
    ]
    names = [subject.name for subject in subjects]
    return tuple(
        replace(subject, name=text) if names.count(subject.name) > 1 else subject
        for subject, text in zip(subjects, texts, strict=True)
    )


def refuse_table(texts: Sequence[str]) -> None:
    """Raise UsageError where a calibration table is given as a model; it counts together with its network."""
    table = next((text for text in texts if Path(text).suffix == ".calib" and is_file(text)), None)
    if table is not None:
        network = next((text for text in texts if text.endswith(".onnx")), "model.onnx")
        raise UsageError(
            f"{table} is a calibration table, not a model", remedy=f"to simulate INT8 with it, give {network}+{table}"
        )


@dataclass(slots=True)
class ReadNetworks:
    """The networks that were read so far, by their paths."""

    known: dict[Path, Model] = field(default_factory=dict)

    def at(self, path: Path) -> Model:
        """Return the network of a file, which is read the first time. ModelError."""
        if path not in self.known:
            self.known[path] = load_model(path)
        return self.known[path]


def open_subject(text: str, held: ExitStack, options: SubjectOptions, networks: ReadNetworks) -> Subject:
    """Open one model from the user's argument."""
    path = Path(text)
    if is_engine(path):
        return engine_subject(path, held, options.device, options.allow_code)
    model, plus, table = text.rpartition("+")
    if plus and model.lower().endswith(".onnx") and not exists(path):
        if not table:
            raise UsageError(f"{text} names no table", remedy="for example model.onnx+model.calib")
        return table_subject(networks.at(Path(model)), Path(table), options.min_coverage)
    return model_subject(networks.at(path))


def model_subject(model: Model) -> Subject:
    """Return an ONNX model, also one in memory, for onnxruntime. ModelError if an input type is not supported."""
    for i in model.inputs:
        if i.dtype not in FEEDABLE:
            raise ModelError(
                f"{model.path}: the type of input {i.describe()} is not supported",
                remedy="remove that input, or make it numeric",
            )
    quantized = has_qdq(model)
    limits, (outputs, notes) = batch_limits(model.inputs), tensor_outputs(model)
    shapes = known_output_shapes(model, outputs)
    return Subject(
        name=model.path.name,
        kind=ModelKind.QDQ if quantized else ModelKind.FLOAT,
        path=model.path,
        sha256=model.sha256,
        bytes=model_bytes(model),
        inputs=model.inputs,
        outputs=outputs,
        limits=limits,
        int8_layers=count_int8_layers(model) if quantized else None,
        fp8_layers=count_fp8_layers(model) if quantized else 0,
        model=model,
        notes=notes,
        whole=indivisible_batch(limits, [shapes.get(name) for name in outputs]),
        shapes=shapes,
    )


def tensor_outputs(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the outputs that are tensors, and a note on each of the others. ModelError if there is no tensor."""
    kinds = {value.name: value.type.WhichOneof("value") for value in model.proto.graph.output}
    others = {name: kind for name, kind in kinds.items() if kind not in (None, "tensor_type")}
    found = tuple(name for name in model.outputs if name not in others)
    if not found:
        raise ModelError(
            f"{model.path}: no output is a tensor, so nothing can be compared",
            remedy="cut the network before the operators that make sequences or maps",
        )
    notes = (f"output {n!r} is not compared: it is a {k.removesuffix('_type')}" for n, k in others.items() if k)
    return found, tuple(notes)


def known_output_shapes(model: Model, outputs: Sequence[str]) -> dict[str, Shape]:
    """Return the shapes of outputs as declared, else as inferred from fixed inputs."""
    shapes: dict[str, Shape] = {
        value.name: as_input(value).shape
        for value in model.proto.graph.output
        if value.type.tensor_type.HasField("shape")
    }
    missing = [name for name in outputs if name not in shapes]
    fixed = {i.name: [size for size in i.shape if isinstance(size, int)] for i in model.inputs}
    if missing and all(len(fixed[i.name]) == len(i.shape) for i in model.inputs):
        inferred = shapes_for_inputs(model, missing, fixed)
        shapes |= {name: shape for name, shape in inferred.items() if shape is not None}
    return shapes


def indivisible_batch(limits: BatchLimits, shapes: Iterable[Shape | None]) -> int | None:
    """Return the fixed batch size if the first dimension of an output is another: it has no axis of samples.

    One batch of one sample is that sample whatever its outputs look like, so unknown shapes (None) matter only there.
    """
    size = limits.low
    if limits.high != size or not limits.batched:
        return None
    return size if any(shape[:1] != (size,) if shape is not None else size == 1 for shape in shapes) else None


def model_bytes(model: Model) -> int:
    """Return the size of a model's files, or of the file that a model in memory would have."""
    outside = sum((model.folder / name).stat().st_size for name in external_files(model.proto))
    return outside + (model.path.stat().st_size if model.sha256 and model.files else model.proto.ByteSize())


def table_subject(model: Model, table: Path, min_coverage: float) -> Subject:
    """Return a float model with Q/DQ inserted in memory where the TensorRT that a table is for would quantize.
    TableError, StaleError."""
    from quantkit.quantization.options import QuantizeOptions
    from quantkit.quantization.quantize import quantize
    from quantkit.quantization.record import quantization_record

    number = read_table(table).header.version
    version = None if number is None else number_text(max(number, 1000 * OLDEST_MAJOR))
    options = QuantizeOptions(min_coverage=min_coverage, tensorrt_version=version)
    made = quantize(model, table=table, options=options)
    simulated = replace(model, proto=made.proto)
    record = quantization_record(simulated.metadata, model.path.name)
    assert record is not None
    plain = model_subject(model)
    return replace(
        plain,
        name=f"{model.path.name}+{table.name}",
        kind=ModelKind.TABLE,
        path=table,
        sha256=sha256_of(f"{model.sha256}+{record.scales['table']}".encode()),
        int8_layers=count_int8_layers(simulated),
        model=simulated,
    )


INT8_PRECISIONS = frozenset({"int8", "best"})
"""Precisions for which an engine should have INT8 layers."""


def engine_subject(path: Path, held: ExitStack, device: int, allow_code: bool) -> Subject:
    """Open an engine. BackendError if TensorRT or the GPU is missing, or if the engine was built for others."""
    from quantkit.backends.tensorrt.engine import Engine

    engine = held.enter_context(Engine.load(path, device, allow_code=allow_code))
    digest, limits = engine.sha256, batch_limits(engine.inputs, engine)
    shapes: dict[str, Shape] = {
        b.name: tuple(None if size < 0 else size for size in b.shape) for b in engine.bindings if not b.is_input
    }
    record = read_engine_record(path)
    notes: tuple[str, ...] = ()
    layers = None
    if record is not None and record.sha256 != digest:
        notes = (f"the record beside {path.name} is of another engine, and is not used",)
    elif record is not None and record.layers and record.precision in INT8_PRECISIONS:
        int8 = sum(layer.precision == "INT8" for layer in record.layers)
        layers = (int8, int8 + sum(layer.reason is not None for layer in record.layers))
    return Subject(
        name=path.name,
        kind=ModelKind.ENGINE,
        path=path,
        sha256=digest,
        bytes=engine.size,
        inputs=engine.inputs,
        outputs=engine.outputs,
        limits=limits,
        int8_layers=layers,
        engine=engine,
        notes=notes,
        whole=indivisible_batch(limits, shapes.values()),
        shapes=shapes,
    )


def batch_limits(inputs: Sequence[ModelInput], engine: Engine | None = None) -> BatchLimits:
    """Return the batch sizes that a model takes: any for a dynamic first axis, else the fixed one."""
    axes = {i.name: i.batch_axis for i in inputs if i.shape and i.batch_axis is not None}
    dynamic = {i.name: axes[i.name] for i in inputs if i.name in axes and i.fixed_batch is None}
    if dynamic:
        low = max((engine.least(name)[axis] for name, axis in dynamic.items()), default=1) if engine else 1
        high = min(engine.most(name)[axis] for name, axis in dynamic.items()) if engine else None
        return BatchLimits(low, high, dynamic)
    fixed = {i.fixed_batch for i in inputs if i.fixed_batch is not None}
    if len(fixed) != 1:
        return BatchLimits(1, None, {})
    size = min(fixed)
    return BatchLimits(size, size, axes)


def common_inputs(subjects: Sequence[Subject]) -> tuple[ModelInput, ...]:
    """Return inputs that suit all models, with a free batch axis. DataError if the models are incompatible."""
    reference = subjects[0]
    shapes = {i.name: list(i.shape) for i in reference.inputs}
    for subject in subjects:
        own = {i.name: i for i in subject.inputs}
        if own.keys() != shapes.keys():
            raise input_mismatch(reference, subject, ", ".join(shapes), ", ".join(own))
        for i in reference.inputs:
            other = own[i.name]
            if not is_compatible_dtype(i.dtype, other.dtype) or not merge_shape(
                shapes[i.name], other.shape, batched_inputs(subject).get(i.name)
            ):
                raise input_mismatch(reference, subject, i.describe(), other.describe())
    return with_free_batches([replace(i, shape=tuple(shapes[i.name])) for i in reference.inputs])


def batched_inputs(subject: Subject) -> Mapping[str, int]:
    """Return the inputs that have a batch axis, and which that is."""
    return subject.limits.batched


def is_compatible_dtype(first: str, second: str) -> bool:
    """Return True if two types are the same, or both floating point."""
    return first == second or ("float" in first and "float" in second)


def merge_shape(known: list[int | str | None], shape: Sequence[int | str | None], free: int | None) -> bool:
    """Merge a shape into a known one and return True if they are compatible. free: the batch axis, if there is one."""
    if len(known) != len(shape):
        return False
    for axis, size in enumerate(shape):
        if axis == free or not isinstance(size, int):
            continue
        if isinstance(known[axis], int) and known[axis] != size:
            return False
        known[axis] = size
    return True


def input_mismatch(reference: Subject, subject: Subject, first: str, second: str) -> DataError:
    """Return the error for two models with different inputs."""
    return DataError(
        f"{subject.name} takes {second}, but the reference {reference.name} takes {first}",
        remedy="evaluate models with the same inputs together",
    )

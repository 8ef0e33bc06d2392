"""Reading a model to serve: an engine from its record or from itself, an ONNX model from its graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantkit.backends.engine_record import EngineRecord, is_engine, read_engine_record
from quantkit.backends.tensorrt.shapes import ShapeRange
from quantkit.errors import BackendError, ModelError, StaleError
from quantkit.export.served_model import ONNX, PLAN, ServedModel, ServedTensor, Shape
from quantkit.graph import load_model
from quantkit.graph.identity import external_files
from quantkit.graph.interface import read_interface
from quantkit.qdq.reader import has_qdq
from quantkit.regular_file import regular_file_digest
from quantkit.tensorrt_version import has_driver


def read_served_model(path: Path, device: int = 0, *, allow_code: bool = False) -> ServedModel:
    """Read an engine, recognized by its suffix (.engine, .plan, .trt), or else an ONNX model.

    device, allow_code: for engines without a record, which are read on the GPU. Raises BackendError, ModelError,
    StaleError.
    """
    return engine_served_model(path, device, allow_code=allow_code) if is_engine(path) else onnx_served_model(path)


def onnx_served_model(path: Path) -> ServedModel:
    """Read an ONNX model with its files of weights. ModelError."""
    model = load_model(path)
    interface = read_interface(model)
    outside = {name: model.folder / name for name in external_files(model.proto)}
    if "model.onnx" in outside:
        raise ModelError(
            f"{path} stores weights in model.onnx, the name that Triton requires for the model itself",
            remedy="save the model again with another name for its external data",
        )
    inputs = tuple(ServedTensor.of(i) for i in interface.inputs)
    usual = {}
    for tensor in inputs:
        shape = (max(tensor.shape[0], 1), *tensor.shape[1:]) if tensor.shape else ()
        if -1 not in shape:
            usual[tensor.name] = shape
    return ServedModel(
        path,
        ONNX,
        {"model.onnx": path, **outside},
        inputs,
        tuple(ServedTensor.of(o) for o in interface.outputs),
        path.stat().st_size,
        model.sha256,
        unbatched=interface.unbatched,
        example_shapes=usual,
        comments=(f"the network: sha256 {model.sha256[:12]}, {path.name}",),
        explicit=has_qdq(model),
    )


def engine_served_model(path: Path, device: int, *, allow_code: bool) -> ServedModel:
    """Read an engine: its tensors come from the record beside it, or else from the engine on its GPU."""
    try:
        digest, size = regular_file_digest(path), path.stat().st_size
    except OSError as error:
        raise BackendError(f"{path}: {error.strerror or error}", remedy="give the path of an engine") from None
    record = read_engine_record(path)
    if record is not None and record.sha256 != digest:
        raise StaleError(f"{path} was modified after quantkit wrote its record", remedy="build it again with --force")
    if record is not None and record.inputs and record.outputs:
        tensors, ranges = recorded_tensors(record), recorded_shapes(record, path)
    elif has_driver():
        tensors, ranges = engine_tensors(path, device, allow_code=allow_code)
    else:
        why = "is from an older quantkit, which did not store them" if record else "is missing"
        raise BackendError(
            f"the inputs and outputs of {path} are unknown: the record beside it {why}, "
            "and there is no GPU to read them from the engine",
            remedy="export it on the machine that built it, or build it again: quantkit build MODEL --force",
        )
    inputs, outputs = tensors
    unbatched, most = engine_batch_limits(inputs, outputs, ranges)
    about = [f"the engine: sha256 {digest[:12]}, {path.name}"]
    if record is not None:
        about.append(
            f"built from {record.model.file} for {record.gpu} with TensorRT {record.tensorrt}, which Triton's image "
            "has to contain"
        )
    return ServedModel(
        path,
        PLAN,
        {"model.plan": path},
        inputs,
        outputs,
        size,
        record.model.sha256 if record else "",
        record.precision if record else "",
        unbatched,
        most,
        {name: r.best for name, r in ranges.items() if name in {t.name for t in inputs}},
        tuple(about),
    )


Tensors = tuple[tuple[ServedTensor, ...], tuple[ServedTensor, ...]]


def recorded_tensors(record: EngineRecord) -> Tensors:
    """Return inputs and outputs as recorded."""
    inputs, outputs = (
        tuple(ServedTensor(t.name, t.dtype, t.shape) for t in side) for side in (record.inputs, record.outputs)
    )
    return inputs, outputs


def recorded_shapes(record: EngineRecord, path: Path) -> dict[str, ShapeRange]:
    """Return the shapes of the profile. BackendError if the record is invalid."""
    ranges = {}
    for name, text in record.shapes.items():
        try:
            least, best, most = (tuple(int(s) for s in part.split("x") if s) for part in text.split(":"))
        except ValueError:
            raise BackendError(
                f"{path}: its record has an invalid shape of {name!r}: {text!r}", remedy="build it again with --force"
            ) from None
        ranges[name] = ShapeRange(least, best, most)
    return ranges


def engine_tensors(path: Path, device: int, *, allow_code: bool) -> tuple[Tensors, dict[str, ShapeRange]]:
    """Return inputs, outputs and shapes of the engine as loaded on its GPU. BackendError."""
    from quantkit.backends.tensorrt.engine import Engine

    with Engine.load(path, device, allow_code=allow_code) as engine:
        sides = [
            [ServedTensor(b.name, b.dtype, b.shape) for b in engine.bindings if b.is_input is side]
            for side in (True, False)
        ]
        ranges = {
            t.name: ShapeRange(engine.least(t.name), engine.most(t.name), engine.most(t.name))
            if -1 in t.shape
            else ShapeRange(t.shape, t.shape, t.shape)
            for t in sides[0]
        }
    return (tuple(sides[0]), tuple(sides[1])), ranges


def engine_batch_limits(
    inputs: tuple[ServedTensor, ...], outputs: tuple[ServedTensor, ...], ranges: Mapping[str, ShapeRange]
) -> tuple[str, int | None]:
    """Return why an engine does not accept batches of any size ("" if it does), and the largest batch."""
    for tensor in (*inputs, *outputs):
        if not tensor.shape or tensor.shape[0] != -1:
            return f"the first dimension of {tensor.name!r} is fixed", None
    sizes: list[tuple[Shape, Shape]] = [(ranges[t.name].least, ranges[t.name].most) for t in inputs if t.name in ranges]
    if len(sizes) < len(inputs):
        return "the batches that it was built for are unknown", None
    least, most = max(low[0] for low, _ in sizes), min(high[0] for _, high in sizes)
    if least > 1:
        return f"it was built for batches of at least {least}, but Triton also sends single requests", None
    return "", most

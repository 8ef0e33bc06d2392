"""From a file to what is served: an engine by its record or by itself, an ONNX model by its graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantkit.artifact import sha256_of
from quantkit.backends.engine_record import EngineRecord, is_engine, read_engine_record
from quantkit.backends.tensorrt.shapes import ShapeRange
from quantkit.errors import BackendError, ModelError, StaleError
from quantkit.export.served_model import ONNX, PLAN, ServedModel, ServedTensor, Shape
from quantkit.graph import load_model
from quantkit.graph.interface import read_interface
from quantkit.graph.model import external_files
from quantkit.qdq.reader import has_qdq
from quantkit.tensorrt_version import has_driver


def read_served_model(path: Path, device: int = 0, *, allow_code: bool = False) -> ServedModel:
    """What serves the file: an engine by its ending (.engine, .plan, .trt), everything else as ONNX.

    device, allow_code: for engines without a record, which are read on the GPU. Raises BackendError, ModelError,
    StaleError.
    """
    return engine_served_model(path, device, allow_code=allow_code) if is_engine(path) else onnx_served_model(path)


def onnx_served_model(path: Path) -> ServedModel:
    """An ONNX model, with the files of its weights. ModelError."""
    model = load_model(path)
    interface = read_interface(model)
    outside = {name: model.folder / name for name in external_files(model.proto)}
    if "model.onnx" in outside:
        raise ModelError(
            f"{path} keeps weights in model.onnx, which Triton wants for the model itself",
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
        usual=usual,
        about=(f"the network: sha256 {model.sha256[:12]}, {path.name}",),
        explicit=has_qdq(model),
    )


def engine_served_model(path: Path, device: int, *, allow_code: bool) -> ServedModel:
    """An engine. The record beside it tells its tensors; without, the GPU that it was built for does."""
    try:
        digest, size = sha256_of(path.read_bytes()), path.stat().st_size
    except OSError as error:
        raise BackendError(f"{path}: {error.strerror or error}", remedy="give the path of an engine") from None
    record = read_engine_record(path)
    if record is not None and record.sha256 != digest:
        raise StaleError(f"{path} was changed after quantkit wrote its record", remedy="build it again with --force")
    if record is not None and record.inputs and record.outputs:
        tensors, ranges = recorded_tensors(record), recorded_shapes(record, path)
    elif has_driver():
        tensors, ranges = engine_tensors(path, device, allow_code=allow_code)
    else:
        why = "is from an older quantkit, which did not keep them" if record else "is missing"
        raise BackendError(
            f"nothing tells the inputs and outputs of {path}: the record beside it {why}, and there is no GPU to ask",
            remedy="export it on the machine that it was built on, or build it again: quantkit build MODEL --force",
        )
    inputs, outputs = tensors
    unbatched, most = engine_batch_limits(inputs, outputs, ranges)
    about = [f"the engine: sha256 {digest[:12]}, {path.name}"]
    if record is not None:
        about.append(
            f"built by TensorRT {record.tensorrt}, which Triton's image has to hold, for {record.gpu} "
            f"of {record.model.file}"
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
    """Inputs and outputs as the record holds them."""
    inputs, outputs = (
        tuple(ServedTensor(t.name, t.dtype, t.shape) for t in side) for side in (record.inputs, record.outputs)
    )
    return inputs, outputs


def recorded_shapes(record: EngineRecord, path: Path) -> dict[str, ShapeRange]:
    """The shapes of the profile. BackendError where the record's text is none."""
    ranges = {}
    for name, text in record.shapes.items():
        try:
            least, best, most = (tuple(int(s) for s in part.split("x") if s) for part in text.split(":"))
        except ValueError:
            raise BackendError(
                f"{path}: its record tells no shapes of {name!r}: {text!r}", remedy="build it again with --force"
            ) from None
        ranges[name] = ShapeRange(least, best, most)
    return ranges


def engine_tensors(path: Path, device: int, *, allow_code: bool) -> tuple[Tensors, dict[str, ShapeRange]]:
    """Inputs, outputs and shapes as the engine itself tells them on its GPU. BackendError."""
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
    """Why an engine takes no batches of any size ("" where it does), and the largest."""
    for tensor in (*inputs, *outputs):
        if not tensor.shape or tensor.shape[0] != -1:
            return f"the first dimension of {tensor.name!r} is fixed", None
    sizes: list[tuple[Shape, Shape]] = [(ranges[t.name].least, ranges[t.name].most) for t in inputs if t.name in ranges]
    if len(sizes) < len(inputs):
        return "nothing tells the batches that it was built for", None
    least, most = max(low[0] for low, _ in sizes), min(high[0] for _, high in sizes)
    if least > 1:
        return f"it was built for batches from {least} on, and Triton sends single requests too", None
    return "", most

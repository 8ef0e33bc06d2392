"""The inspection of an engine that was just built: its layers and its memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantkit.backends.engine_record import EngineLayer
from quantkit.backends.tensorrt.engine_layers import LayerContext, engine_layers
from quantkit.backends.tensorrt.messages import Messages, make_or_raise
from quantkit.backends.tensorrt.shapes import ShapeRange
from quantkit.backends.tensorrt.versions import allow_own_code, device_memory

DTYPES: Mapping[str, str] = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "UINT8": "uint8", "INT32": "int32",
    "INT64": "int64", "BOOL": "bool",
}  # fmt: skip
"""Names of types: TensorRT's → those of numpy and ml_dtypes."""


@dataclass(frozen=True, slots=True)
class EngineTensor:
    """An input or output of an engine; `shape` holds −1 for a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_input: bool


@dataclass(frozen=True, slots=True)
class EngineInspection:
    """The result of an inspection. layers: empty if they are unknown, for the reason in `silent`. memory: bytes of
    activations of one context."""

    bound: tuple[EngineTensor, ...]
    memory: int
    layers: tuple[EngineLayer, ...] = ()
    silent: str = ""


def inspect_engine(
    trt: Any, log: Any, messages: Messages, plan: bytes, ranges: Mapping[str, ShapeRange], context: LayerContext
) -> EngineInspection:
    """Inspect an engine. BackendError where it cannot be read back."""
    runtime = make_or_raise(lambda: trt.Runtime(log), messages)
    allow_own_code(runtime)  # a version compatible plan contains its own runtime, which was built a moment ago
    engine = make_or_raise(lambda: runtime.deserialize_cuda_engine(plan), messages, "the engine cannot be read back")
    memory = device_memory(engine)
    bound = tuple(engine_tensor(trt, engine, engine.get_tensor_name(i)) for i in range(engine.num_io_tensors))
    execution = engine.create_execution_context()
    if execution is None:
        return EngineInspection(bound, memory, silent="the GPU has no memory for a context, so the layers are unknown")
    try:
        document = engine_document(trt, engine, execution, ranges)
    except ValueError as error:
        return EngineInspection(bound, memory, silent=f"TensorRT's description of the layers cannot be read: {error}")
    return EngineInspection(bound, memory, engine_layers(document, context))


def engine_tensor(trt: Any, engine: Any, name: str) -> EngineTensor:
    """Return one input or output of the engine, by its name."""
    kind = str(engine.get_tensor_dtype(name)).rpartition(".")[2]
    return EngineTensor(
        name,
        DTYPES.get(kind, kind.lower()),
        tuple(engine.get_tensor_shape(name)),
        engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
    )


def engine_document(trt: Any, engine: Any, execution: Any, ranges: Mapping[str, ShapeRange]) -> dict[str, Any]:
    """Return the document of the engine inspector, with formats for the best shapes. ValueError if it is not JSON."""
    for name, r in ranges.items():
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT and -1 in tuple(engine.get_tensor_shape(name)):
            execution.set_input_shape(name, r.best)
    return context_document(trt, engine, execution)


def context_document(trt: Any, engine: Any, execution: Any) -> dict[str, Any]:
    """Return the document of the engine inspector for the shapes of a context. ValueError if it is not JSON."""
    inspector = engine.create_engine_inspector()
    inspector.execution_context = execution
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    document: dict[str, Any] = json.loads(text, strict=False)  # node names contain raw control characters
    return document

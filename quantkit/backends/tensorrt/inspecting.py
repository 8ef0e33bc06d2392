"""An engine that was just built, looked into: its layers, its memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from quantkit.backends.tensorrt.layers import Context, Layer, layers_of
from quantkit.backends.tensorrt.messages import Messages, made
from quantkit.backends.tensorrt.shapes import ShapeRange
from quantkit.backends.tensorrt.versions import allow_own_code, device_memory


def inspected(
    trt: Any, log: Any, messages: Messages, plan: bytes, ranges: Mapping[str, ShapeRange], context: Context
) -> tuple[tuple[Layer, ...], int, str]:
    """The layers of an engine, the bytes of activations of one context, and why layers are not told, if they are not.

    BackendError where the engine cannot be read back.
    """
    runtime = made(lambda: trt.Runtime(log), messages)
    allow_own_code(runtime)  # a version compatible plan brings its own runtime; it was built a moment ago
    engine = made(lambda: runtime.deserialize_cuda_engine(plan), messages, "the engine cannot be read back")
    memory = device_memory(engine)
    execution = engine.create_execution_context()
    if execution is None:
        return (), memory, "the GPU has no room for a context, so that the layers are not told"
    try:
        document = engine_document(trt, engine, execution, ranges)
    except ValueError as error:
        return (), memory, f"TensorRT's account of the layers cannot be read: {error}"
    return layers_of(document, context), memory, ""


def engine_document(trt: Any, engine: Any, execution: Any, ranges: Mapping[str, ShapeRange]) -> dict[str, Any]:
    """What the engine inspector tells, with formats for the best shapes. ValueError where that is no JSON."""
    for name, r in ranges.items():
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT and -1 in tuple(engine.get_tensor_shape(name)):
            execution.set_input_shape(name, r.best)
    inspector = engine.create_engine_inspector()
    inspector.execution_context = execution
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    document: dict[str, Any] = json.loads(text, strict=False)  # node names come with raw control characters
    return document

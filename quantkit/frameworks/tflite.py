"""Conversion of TFLite models to ONNX, with the TFLite interpreter as reference.

A quantized TFLite model has zero points, which TensorRT does not support (its INT8 is symmetric), and scales from a
calibration that quantkit cannot assess. It is refused; `dequantize` converts it to float, to be calibrated again. Its
weights have been rounded once already: the float model that it was made from is the better source.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantkit.errors import ModelError
from quantkit.frameworks import layout
from quantkit.frameworks.exported import Exported
from quantkit.frameworks.options import ConversionFields, ConversionOptions
from quantkit.frameworks.silence import silence
from quantkit.frameworks.tf2onnx import (
    ConversionSource,
    checked_opset,
    convert_with_tf2onnx,
    import_tensorflow,
    require_tensorflow,
)
from quantkit.frameworks.tflite_file import read_tflite, tflite_contents
from quantkit.values import Array, Batch

DTYPES = {"FLOAT32": "float32", "FLOAT16": "float16", "INT32": "int32", "INT64": "int64", "BOOL": "bool"}
MISSING = "the TFLite interpreter is not installed: pip install ai-edge-litert"
ROUNDING = 0.25
"""Fraction of an output's magnitude by which TFLite's integer arithmetic may differ from the float model."""


@dataclass(frozen=True, slots=True)
class TfliteOptions(ConversionOptions):
    """How a TFLite model is converted: as a TensorFlow model. dequantize: convert a quantized model to float."""

    inputs_as_nchw: bool = False
    dequantize: bool = False


class TfliteFields(ConversionFields, total=False):
    """The keywords of `from_tflite` that are fields of `TfliteOptions`."""

    inputs_as_nchw: bool
    dequantize: bool


def export_tflite(path: Path, options: TfliteOptions, folder: Path) -> Exported:
    """Convert into `folder`. ModelError, UsageError, BackendError."""
    require_tensorflow()
    opset = checked_opset(options.opset)
    content = read_tflite(path)
    import_tensorflow()
    found = tflite_contents(path, content)
    if found.quantized and not options.dequantize:
        raise ModelError(
            f"{path} is quantized ({len(found.quantized)} tensors, for example {found.quantized[0]}), with zero "
            "points, which TensorRT does not support",
            remedy="give the float model that it was made from, or convert this one to float with --dequantize",
        )
    example = {
        entry.name: np.zeros([d or 1 for d in entry.shape], DTYPES.get(entry.dtype, "float32"))
        for entry in found.inputs
    }
    images = layout.image_inputs(example)
    turned = images if options.inputs_as_nchw else ()
    source = ConversionSource(
        tflite=path, names={entry.tensor: entry.name for entry in (*found.inputs, *found.outputs)}
    )
    target = folder / "model.onnx"
    nchw = [entry.tensor for entry in found.inputs if entry.name in turned]
    exporter = convert_with_tf2onnx(source, target, opset, nchw=nchw, dequantize=options.dequantize)
    if found.quantized:
        make_ends_real(path, target)
    opened = open_interpreter(content)
    return Exported(
        target,
        source=opened[1] if opened else "TFLite",
        exporter=exporter,
        example={n: layout.channels_first(a) if n in turned else a for n, a in example.items()},
        run=TfliteReference(opened[0], turned) if opened else None,
        unchecked="" if opened else MISSING,
        ranges={entry.name: entry.range for entry in found.inputs if entry.range},
        fixed_batch=options.fixed_batch,
        rounding=ROUNDING if found.quantized else 0.0,
        notes=() if turned else layout.nhwc_notes(images),
    )


def make_ends_real(path: Path, target: Path) -> None:
    """Replace integer inputs and outputs by real ones. ModelError if some cannot be replaced."""
    from quantkit.frameworks.dequantized_ends import with_float_ends
    from quantkit.graph import load_model

    proto = with_float_ends(load_model(target).proto)
    target.write_bytes(proto.SerializeToString(deterministic=True))
    if whole := [i.name for i in load_model(target).inputs if i.dtype in ("uint8", "int8", "int16")]:
        raise ModelError(
            f"input {whole[0]} of {path} takes integers, which tf2onnx could not replace by real numbers",
            remedy="leave --inputs-as-nchw out, or convert the model again with inference_input_type=tf.float32",
        )


def open_interpreter(content: bytes) -> tuple[Any, str] | None:
    """Return a TFLite interpreter and its name: LiteRT, else TensorFlow's, which newer versions lack; or None."""
    with silence():
        if importlib.util.find_spec("ai_edge_litert") is not None:
            made = importlib.import_module("ai_edge_litert.interpreter").Interpreter(model_content=content)
            return made, "LiteRT"
        tf = import_tensorflow()
        if not hasattr(getattr(tf, "lite", None), "Interpreter"):
            return None
        return tf.lite.Interpreter(model_content=content), f"TFLite of TensorFlow {tf.__version__}"


@dataclass(frozen=True, slots=True)
class TfliteReference:
    """A frozen function that returns the interpreter's outputs; inputs in `turned` come with their channels first."""

    interpreter: Any
    turned: tuple[str, ...]

    def __call__(self, batch: Batch) -> Sequence[Array]:
        """Return the outputs in the order of the ONNX model's. ValueError, RuntimeError if the batch size is wrong."""
        arrays = [layout.channels_last(a) if n in self.turned else a for n, a in batch.items()]
        with silence():
            inputs = self.interpreter.get_input_details()
            for detail, array in zip(inputs, arrays, strict=True):
                self.interpreter.resize_tensor_input(detail["index"], array.shape)
            self.interpreter.allocate_tensors()
            for detail, array in zip(inputs, arrays, strict=True):
                self.interpreter.set_tensor(detail["index"], quantize_input(array, detail))
            self.interpreter.invoke()
            outputs = self.interpreter.get_output_details()
            return [dequantize_output(self.interpreter.get_tensor(detail["index"]), detail) for detail in outputs]


def quantize_input(array: Array, detail: Mapping[str, Any]) -> Array:
    """Convert real numbers to the integers that a quantized input takes: round(x/scale) + zero point."""
    scale, zero = detail["quantization"]
    if not scale or np.dtype(detail["dtype"]).kind not in "iu":
        return array
    limits = np.iinfo(detail["dtype"])
    whole: Array = np.clip(np.rint(array / scale) + zero, limits.min, limits.max).astype(detail["dtype"])
    return whole


def dequantize_output(array: Array, detail: Mapping[str, Any]) -> Array:
    """Convert the integers of a quantized output to real numbers: scale·(q − zero point)."""
    scale, zero = detail["quantization"]
    if not scale or array.dtype.kind not in "iu":
        return array
    real: Array = ((array.astype(np.float32) - zero) * scale).astype(np.float32)
    return real

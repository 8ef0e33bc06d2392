"""A TFLite model → ONNX, and the TFLite interpreter to compare with.

A TFLite model that is quantized already has zero points, which TensorRT has not (its INT8 is symmetric), and scales of
a calibration that quantkit cannot judge. It is refused; `dequantize` makes a float network of it, to be calibrated
anew. Its weights have been rounded once already: the float model that it was made of is the better source.
"""

from __future__ import annotations

import importlib
import importlib.util
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantkit.errors import ModelError
from quantkit.frameworks import layout
from quantkit.frameworks.conversion import Source, convert, opset_of, require_tensorflow, tensorflow
from quantkit.frameworks.silence import silenced
from quantkit.frameworks.value import Exported
from quantkit.values import Array, Batch

IDENTIFIER = b"TFL3"
QUANTIZED = frozenset({"UINT8", "INT8", "INT16", "INT4"})
PREFIX = "serving_default_"
DTYPES = {"FLOAT32": "float32", "FLOAT16": "float16", "INT32": "int32", "INT64": "int64", "BOOL": "bool"}
MISSING = "the TFLite interpreter is not installed: pip install ai-edge-litert"
INTEGER = "the TFLite model takes whole numbers, the ONNX model float32"


@dataclass(frozen=True, slots=True)
class TfliteOptions:
    """How a TFLite model becomes ONNX: as for TensorFlow. dequantize: a float network of one that is quantized."""

    opset: int | None = None
    fixed_batch: int | None = None
    inputs_as_nchw: bool = False
    dequantize: bool = False
    tolerance: float = 1e-3


@dataclass(frozen=True, slots=True)
class Contents:
    """What a TFLite file says of itself.

    inputs, outputs: tensor name → name in its signature, or a clean one. shapes: of the inputs, None where an axis is
    dynamic. quantized: names of quantized tensors.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    shapes: Mapping[str, tuple[int | None, ...]]
    dtypes: Mapping[str, str]
    quantized: tuple[str, ...]


def exported(path: Path, options: TfliteOptions, folder: Path) -> Exported:
    """Convert into `folder`. ModelError, UsageError, BackendError."""
    require_tensorflow()
    opset = opset_of(options.opset)
    content = read(path)
    tensorflow()
    found = contents(path, content)
    if found.quantized and not options.dequantize:
        raise ModelError(
            f"{path} is quantized already ({len(found.quantized)} tensors, {found.quantized[0]} for one), with zero "
            "points, which TensorRT does not have",
            remedy="give the float model that it was made of; --dequantize makes a float network of this one",
        )
    first = next(iter(found.shapes.values()), ())
    batch = options.fixed_batch or (first[0] if first and first[0] else None)
    example = {
        found.inputs[tensor]: np.zeros([d or 1 for d in shape], DTYPES.get(found.dtypes[tensor], "float32"))
        for tensor, shape in found.shapes.items()
    }
    images = layout.images(example)
    turned = images if options.inputs_as_nchw else ()
    source = Source(tflite=path, names={**found.inputs, **found.outputs})
    target = folder / "model.onnx"
    nchw = [tensor for tensor, name in found.inputs.items() if name in turned]
    exporter = convert(source, target, opset, nchw=nchw, dequantize=options.dequantize)
    whole = found.quantized and any(dtype in QUANTIZED for dtype in found.dtypes.values())
    opened = None if whole else interpreter(content)
    return Exported(
        target,
        source=opened[1] if opened else "TFLite",
        exporter=exporter,
        example={n: layout.channels_first(a) if n in turned else a for n, a in example.items()},
        run=Reference(opened[0], turned) if opened else None,
        unchecked="" if opened else INTEGER if whole else MISSING,
        fixed_batch=batch if options.fixed_batch else None,
        exact=not found.quantized,
        notes=() if turned else layout.told(images),
    )


def read(path: Path) -> bytes:
    """The file. ModelError where there is none, or it is no TFLite model."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}", remedy="give the path of a .tflite model") from None
    if content[4:8] != IDENTIFIER:
        raise ModelError(f"{path} is not a TFLite model", remedy="give a .tflite file")
    return content


def contents(path: Path, content: bytes) -> Contents:
    """Inputs, outputs and quantized tensors. ModelError where the file is damaged."""
    from tf2onnx.tflite.Model import Model
    from tf2onnx.tflite.TensorType import TensorType

    types = {number: name for name, number in vars(TensorType).items() if isinstance(number, int)}
    try:
        model = Model.GetRootAsModel(bytearray(content), 0)
        graph = model.Subgraphs(0)
        tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        signed = signature_names(model)
        inputs = [int(graph.Inputs(i)) for i in range(graph.InputsLength())]
        outputs = [int(graph.Outputs(i)) for i in range(graph.OutputsLength())]
        return Contents(
            {tensors[i].Name().decode(): signed.get(i) or clean(tensors[i].Name().decode()) for i in inputs},
            {tensors[i].Name().decode(): signed.get(i) or clean(tensors[i].Name().decode()) for i in outputs},
            {tensors[i].Name().decode(): shape_of(tensors[i]) for i in inputs},
            {tensors[i].Name().decode(): types.get(tensors[i].Type(), "") for i in inputs},
            tuple(t.Name().decode() for t in tensors if is_quantized(t, types)),
        )
    except (struct.error, IndexError, AttributeError, UnicodeDecodeError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error}", remedy="convert the model again") from None


def signature_names(model: Any) -> dict[int, str]:
    """Tensor number → its name in the only signature of the model."""
    if model.SignatureDefsLength() != 1:
        return {}
    signature = model.SignatureDefs(0)
    maps = [signature.Inputs(i) for i in range(signature.InputsLength())]
    maps += [signature.Outputs(i) for i in range(signature.OutputsLength())]
    names = {int(entry.TensorIndex()): entry.Name().decode() for entry in maps}
    return names if len(set(names.values())) == len(names) else {}


def clean(name: str) -> str:
    """A tensor's name without what TensorFlow puts around it."""
    return name.removesuffix(":0").removeprefix(PREFIX)


def shape_of(tensor: Any) -> tuple[int | None, ...]:
    """A tensor's shape, None where it is dynamic."""
    dims = tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else tensor.ShapeAsNumpy()
    return tuple(int(d) if d > 0 else None for d in np.atleast_1d(dims)) if not isinstance(dims, int) else ()


def is_quantized(tensor: Any, types: Mapping[int, str]) -> bool:
    """Whether a tensor holds whole numbers that stand for others."""
    quantization = tensor.Quantization()
    return types.get(tensor.Type()) in QUANTIZED and quantization is not None and quantization.ScaleLength() > 0


def interpreter(content: bytes) -> tuple[Any, str] | None:
    """A TFLite interpreter and its name: LiteRT, else TensorFlow's own, which newer versions do not have."""
    with silenced():
        if importlib.util.find_spec("ai_edge_litert") is not None:
            made = importlib.import_module("ai_edge_litert.interpreter").Interpreter(model_content=content)
            return made, "LiteRT"
        tf = tensorflow()
        if not hasattr(getattr(tf, "lite", None), "Interpreter"):
            return None
        return tf.lite.Interpreter(model_content=content), f"TFLite of TensorFlow {tf.__version__}"


@dataclass(frozen=True, slots=True)
class Reference:
    """The interpreter's outputs; inputs in `turned` come with their channels first."""

    interpreter: Any
    turned: tuple[str, ...]

    def __call__(self, batch: Batch) -> Sequence[Array]:
        """In the order of the ONNX model's outputs. ValueError, RuntimeError where it does not run in this size."""
        arrays = [layout.channels_last(a) if n in self.turned else a for n, a in batch.items()]
        with silenced():
            places = [detail["index"] for detail in self.interpreter.get_input_details()]
            for place, array in zip(places, arrays, strict=True):
                self.interpreter.resize_tensor_input(place, array.shape)
            self.interpreter.allocate_tensors()
            for place, array in zip(places, arrays, strict=True):
                self.interpreter.set_tensor(place, array)
            self.interpreter.invoke()
        return [self.interpreter.get_tensor(detail["index"]) for detail in self.interpreter.get_output_details()]

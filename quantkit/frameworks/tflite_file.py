"""The reader of TFLite files: inputs and outputs by name, and the tensors that are quantized.

It uses the flatbuffer schema that tf2onnx ships. Names come from the file's signature, if it has one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantkit.errors import ModelError
from quantkit.regular_file import UNBOUNDED, read_regular

IDENTIFIER = b"TFL3"
QUANTIZED: Mapping[str, tuple[int, int]] = {
    "UINT8": (0, 255), "INT8": (-128, 127), "INT16": (-32768, 32767), "INT4": (-8, 7),
}  # fmt: skip
PREFIX = "serving_default_"


@dataclass(frozen=True, slots=True)
class TfliteTensor:
    """A frozen value: an input or output. tensor: its name in the file; name: in the signature, else a clean one.

    shape: None for a dynamic axis. range: the real numbers that the quantized tensor can represent, or None.
    """

    tensor: str
    name: str
    shape: tuple[int | None, ...]
    dtype: str
    range: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class TfliteContents:
    """A frozen value: inputs and outputs of a TFLite file. quantized: names of quantized tensors."""

    inputs: tuple[TfliteTensor, ...]
    outputs: tuple[TfliteTensor, ...]
    quantized: tuple[str, ...]


def read_tflite(path: Path) -> bytes:
    """Return the file's bytes. ModelError if there is no such file, or it is not a TFLite model."""
    try:
        content = read_regular(path, most=UNBOUNDED)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}", remedy="give the path of a .tflite model") from None
    if content[4:8] != IDENTIFIER:
        raise ModelError(f"{path} is not a TFLite model", remedy="give a .tflite file")
    return content


def tflite_contents(path: Path, content: bytes) -> TfliteContents:
    """Return inputs, outputs and quantized tensors. ModelError if the file is damaged."""
    from tf2onnx.tflite.Model import Model
    from tf2onnx.tflite.TensorType import TensorType

    types = {number: name for name, number in vars(TensorType).items() if isinstance(number, int)}
    try:
        model = Model.GetRootAsModel(bytearray(content), 0)
        graph = model.Subgraphs(0)
        tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        names = signature_names(model)
        inputs = [int(graph.Inputs(i)) for i in range(graph.InputsLength())]
        outputs = [int(graph.Outputs(i)) for i in range(graph.OutputsLength())]

        def entry(i: int) -> TfliteTensor:
            tensor = tensors[i]
            name = tensor.Name().decode()
            limits = next(
                (r for t in (tensor, *first_consumer_outputs(graph, tensors, i)) if (r := real_range(t, types))), None
            )
            return TfliteTensor(
                name,
                names.get(i) or clean_tensor_name(name),
                tflite_shape(tensor),
                types.get(tensor.Type(), ""),
                limits,
            )

        quantized = tuple(t.Name().decode() for t in tensors if is_quantized_tensor(t, types))
        return TfliteContents(tuple(map(entry, inputs)), tuple(map(entry, outputs)), quantized)
    except (struct.error, IndexError, AttributeError, UnicodeDecodeError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error}", remedy="convert the model again") from None


def signature_names(model: Any) -> dict[int, str]:
    """Return tensor number → name in the model's signature, if it has exactly one."""
    if model.SignatureDefsLength() != 1:
        return {}
    signature = model.SignatureDefs(0)
    maps = [signature.Inputs(i) for i in range(signature.InputsLength())]
    maps += [signature.Outputs(i) for i in range(signature.OutputsLength())]
    names = {int(entry.TensorIndex()): entry.Name().decode() for entry in maps}
    return names if len(set(names.values())) == len(names) else {}


def clean_tensor_name(name: str) -> str:
    """Return a tensor's name without the prefix and suffix that TensorFlow adds."""
    return name.removesuffix(":0").removeprefix(PREFIX)


def first_consumer_outputs(graph: Any, tensors: list[Any], number: int) -> list[Any]:
    """Return the output of the first operator that reads an input: the quantized input, if the model takes floats."""
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        if number in [operator.Inputs(k) for k in range(operator.InputsLength())]:
            return [tensors[operator.Outputs(0)]] if operator.InputsLength() == 1 else []
    return []


def real_range(tensor: Any, types: Mapping[int, str]) -> tuple[float, float] | None:
    """Return the range of real numbers that a per-tensor quantized tensor can represent."""
    if not is_quantized_tensor(tensor, types) or tensor.Quantization().ScaleLength() != 1:
        return None
    quantization = tensor.Quantization()
    scale = float(quantization.Scale(0))
    zero = int(quantization.ZeroPoint(0)) if quantization.ZeroPointLength() else 0
    low, high = QUANTIZED[types[tensor.Type()]]
    return (low - zero) * scale, (high - zero) * scale


def tflite_shape(tensor: Any) -> tuple[int | None, ...]:
    """Return a tensor's shape, with None for dynamic axes."""
    dims = tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else tensor.ShapeAsNumpy()
    return tuple(int(d) if d > 0 else None for d in np.atleast_1d(dims)) if not isinstance(dims, int) else ()


def is_quantized_tensor(tensor: Any, types: Mapping[int, str]) -> bool:
    """Return True if a tensor holds integers that represent real numbers."""
    quantization = tensor.Quantization()
    return types.get(tensor.Type()) in QUANTIZED and quantization is not None and quantization.ScaleLength() > 0

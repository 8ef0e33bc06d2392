"""Preprocessing after decoding and resizing as an ONNX model: channel order, arithmetic, layout and type.

    pixels uint8 [N, H, W, C]  →  Transpose (nchw)  →  Gather (bgr)  →  Cast, Add 256·channel  →  Gather  →  input

An 8-bit pixel has 256 values, so (pixel·scale − mean)/std is a lookup table. The code of calibration and evaluation
computes it: float64, rounded once. A lookup gives identical bits on every CPU and GPU; the same arithmetic in float32
operators would not, and float64 operators round twice on the way to float16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quantkit.errors import PreprocessError, UnreadableError
from quantkit.export.served_model import ServedTensor
from quantkit.graph.model import DTYPES
from quantkit.pixel_levels import level_table
from quantkit.preprocess import PIXEL_TYPES, Preprocess

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 13, 8
"""Old enough for every Triton in use: onnxruntime 1.10 reads both."""
PIXELS = "pixels"


def pixel_shape(spec: Preprocess, wanted: ServedTensor) -> tuple[int, ...]:
    """Return the shape of the pixels [N, H, W, C] for an input; −1 for a dynamic batch."""
    assert spec.size is not None, "bug in quantkit: the spec was not resolved"
    return (wanted.shape[0], *spec.size, 1 if spec.channels == "grey" else 3)


def preprocess_model(spec: Preprocess, wanted: ServedTensor, pixels: str = PIXELS) -> onnx.ModelProto:
    """Return the model that turns uint8 pixels [N, H, W, C], grey or RGB, into the input `wanted`.

    Its results are bit-identical with calibration. spec: resolved for that input. pixels: the name of the model's
    input. PreprocessError if values do not fit the type.
    """
    from onnx import TensorProto, helper, numpy_helper

    table = value_table(spec, wanted)
    kinds = {name: number for number, name in DTYPES.items()}
    layout, at = spec.layout, 1 if spec.layout == "nchw" else 3
    nodes, weights, now = [], [numpy_helper.from_array(table.reshape(-1), "values")], pixels

    def add(operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    if layout == "nchw":
        now = add("Transpose", [now], "planes", perm=[0, 3, 1, 2])
    if spec.channels == "bgr":
        weights.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "reversed"))
        now = add("Gather", [now, "reversed"], "bgr", axis=at)
    now = add("Cast", [now], "levels", to=TensorProto.INT32)
    if len(table) > 1:
        rows = 256 * np.arange(len(table), dtype=np.int32)
        weights.append(numpy_helper.from_array(rows.reshape((1, -1, 1, 1) if at == 1 else (1, 1, 1, -1)), "rows"))
        now = add("Add", [now, "rows"], "places")
    nodes.append(helper.make_node("Gather", ["values", now], [wanted.name], name="look up", axis=0))
    shape = pixel_shape(spec, wanted)
    whole = (shape[0], shape[3], *shape[1:3]) if layout == "nchw" else shape
    graph = helper.make_graph(
        nodes,
        "preprocess",
        [helper.make_tensor_value_info(pixels, TensorProto.UINT8, symbolic_shape(shape))],
        [helper.make_tensor_value_info(wanted.name, kinds[wanted.dtype], symbolic_shape(whole))],
        weights,
        doc_string=spec.describe(),
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="quantkit"
    )


def symbolic_shape(shape: tuple[int, ...]) -> list[int | str]:
    """Return a shape for ONNX, with N for a dynamic batch."""
    return ["N" if size < 0 else size for size in shape]


def value_table(spec: Preprocess, wanted: ServedTensor) -> np.ndarray[tuple[int, int], np.dtype[np.generic]]:
    """Return 256 input values per channel in the spec's order, [C, 256], or [1, 256] if all channels are the same."""
    depth = 1 if spec.channels == "grey" else 3
    if wanted.dtype not in PIXEL_TYPES:
        raise PreprocessError(
            f"input {wanted.name!r} is {wanted.dtype}, which preprocessing cannot produce",
            remedy="leave preprocessing to your client: --preprocess none",
        )
    try:
        table = level_table(spec.scale, spec.mean, spec.std, depth, wanted.dtype)
    except UnreadableError as error:
        raise PreprocessError(
            f"input {wanted.name!r}: {error}", remedy="correct the preprocessing, or omit it: --preprocess none"
        ) from None
    return table[:1] if len({row.tobytes() for row in table}) == 1 else table

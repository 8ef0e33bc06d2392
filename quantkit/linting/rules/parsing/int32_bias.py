"""int32-bias: a bias that is stored as int32 and dequantized in the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from quantkit.linting.finding import Defect
from quantkit.linting.graph_edit import GraphEdit
from quantkit.linting.quantized_tensors import is_int32_bias, scale_along
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph, QdqNode

if TYPE_CHECKING:
    from quantkit.values import Array


def find_int32_biases(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield the DequantizeLinear nodes of stored int32 biases."""
    for tensor in qdq.quantized:
        for node in tensor.dequantize if is_int32_bias(qdq, tensor) else ():
            yield Defect(
                node.name,
                f"DequantizeLinear of the int32 bias {node.data!r}; TensorRT requires a float bias",
                "store bias·scale in float (onnxruntime: QuantizeBias=False)",
                fixable=float_bias(qdq, node) is not None,
            )


def float_bias(qdq: QdqGraph, node: QdqNode) -> Array | None:
    """Return a stored int32 tensor as its DequantizeLinear computes it: float32(q)·scale.

    None if that is unknown, or the result is an output of the network.
    """
    stored = qdq.values(node.data)
    if stored is None or node.scale is None or node.result in qdq.outputs:
        return None
    if node.zero_name and (node.zero is None or node.zero.any()):
        return None
    scale = scale_along(node.scale, node.axis, stored.ndim)
    if scale is None or not np.isfinite(node.scale).all():
        return None
    try:
        values = stored.astype(np.float32) * scale
    except ValueError:
        return None
    return np.asarray(values, node.scale.dtype) if values.shape == stored.shape else None


def store_float_biases(edit: GraphEdit) -> None:
    """Put a float initializer in the place, and under the name, of what a DequantizeLinear makes."""
    for tensor in edit.qdq.quantized:
        for node in tensor.dequantize if is_int32_bias(edit.qdq, tensor) else ():
            values = float_bias(edit.qdq, node)
            if values is not None:
                edit.remove_node(node.result)
                edit.store(values, node.result)


RULE = LintRule(
    "int32-bias",
    "error",
    "biases are added in float; `DequantizeLinear` takes no int32",
    find_int32_biases,
    store_float_biases,
    "float32(bias)·scale, as `DequantizeLinear` computes it",
)

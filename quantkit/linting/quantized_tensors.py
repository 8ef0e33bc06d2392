"""Selections among quantized tensors and their Q/DQ nodes that several rules share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from quantkit.linting.graph_edit import GraphEdit
from quantkit.qdq.reader import QdqGraph, QdqNode, QuantizedTensor
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    from quantkit.values import Array

FP8 = QuantizedType.FP8.stored
SYMMETRIC = "quantize symmetrically (onnxruntime: QInt8, ActivationSymmetric=True)"
"""The remedy for zero points that are not 0."""


def eight_bit_tensors(qdq: QdqGraph) -> Iterator[QuantizedTensor]:
    """Yield the tensors in int8, uint8 or FP8 (E4M3), and those whose type is unknown."""
    return (tensor for tensor in qdq.quantized if tensor.nodes[0].stored in ("int8", "uint8", FP8, ""))


def is_int32_bias(qdq: QdqGraph, tensor: QuantizedTensor) -> bool:
    """Return True for stored int32 numbers, which only biases are."""
    return tensor.nodes[0].stored == "int32" and tensor.quantize is None and tensor.name in qdq.constants


def distinct_nodes(tensor: QuantizedTensor) -> Iterator[QdqNode]:
    """Yield the Q/DQ nodes of a tensor without those that repeat another's scale and axis."""
    seen: set[tuple[str, int]] = set()
    for node in tensor.nodes:
        key = (node.scale_name, node.axis)
        if key not in seen:
            seen.add(key)
            yield node


def zero_point_range(zeros: Iterable[Array | None]) -> tuple[int, int]:
    """Return the least and the largest zero point; an absent one is 0."""
    values = [int(v) for zero in zeros for v in ([0] if zero is None else zero.ravel())] or [0]
    return min(values), max(values)


def range_text(low: int, high: int) -> str:
    """Return `3` or `-3 … 2`."""
    return str(low) if low == high else f"{low} … {high}"


def scale_along(scale: Array, axis: int, rank: int) -> Array | None:
    """Return scales in a shape that broadcasts over a tensor along `axis`; None if they do not fit."""
    if scale.size == 1:
        return scale.reshape(())
    if scale.ndim != 1 or not -rank <= axis < rank:
        return None
    return scale.reshape([-1 if d == axis % rank else 1 for d in range(rank)])


def write_int8_zero(edit: GraphEdit, node: QdqNode) -> None:
    """Give a node int8 zero points of 0, one for every scale."""
    shape = () if node.scale is None else node.scale.shape
    if node.scale is None and node.zero is not None:
        shape = node.zero.shape
    edit.set_input(node.result, 2, edit.add_constant(np.zeros(shape, np.int8), f"{node.quantized_tensor}_zero_point"))

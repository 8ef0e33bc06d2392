"""uint8: unsigned tensors with a zero point that an INT8 tensor could have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from quantkit.linting.finding import Defect
from quantkit.linting.graph_edit import GraphEdit
from quantkit.linting.quantized_tensors import (
    SYMMETRIC,
    eight_bit_tensors,
    write_int8_zero,
    zero_point_range,
)
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph, QuantizedTensor

MIDDLE = 128
"""uint8 with this zero point is int8 with 0, number by number."""


def find_unsigned(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield tensors in uint8 whose zero points are all 128, or all 0."""
    for tensor in eight_bit_tensors(qdq):
        name = tensor.nodes[0].name
        if is_shifted_int8(tensor):
            yield Defect(
                name,
                f"uint8 with zero point {MIDDLE}; TensorRT requires int8 with 0, which is the same numbers",
                SYMMETRIC,
                fixable=may_change_type(qdq, tensor),
            )
        elif is_positive(tensor):
            yield Defect(
                name,
                "uint8 with zero point 0; TensorRT rejects it, or reads it as INT8 and clips above 127·scale",
                SYMMETRIC,
            )


def is_shifted_int8(tensor: QuantizedTensor) -> bool:
    """Return True if all nodes of a uint8 tensor have the zero point 128."""
    nodes = tensor.nodes
    return nodes[0].stored == "uint8" and all(
        node.zero is not None and bool((node.zero == MIDDLE).all()) for node in nodes
    )


def is_positive(tensor: QuantizedTensor) -> bool:
    """Return True if no node of a uint8 tensor has a zero point above 0."""
    nodes = tensor.nodes
    known = all(node.zero is not None or not node.zero_name for node in nodes)
    return nodes[0].stored == "uint8" and known and not zero_point_range(node.zero for node in nodes)[1]


def may_change_type(qdq: QdqGraph, tensor: QuantizedTensor) -> bool:
    """Return True if only DequantizeLinear nodes see a quantized tensor."""
    made = tensor.quantize is not None or tensor.name in qdq.weights
    readers = qdq.readers.get(tensor.name, ())
    return made and tensor.name not in qdq.held and len(readers) == len(tensor.dequantize)


def store_signed(edit: GraphEdit) -> None:
    """Turn uint8 with zero point 128 into int8 with 0."""
    for tensor in eight_bit_tensors(edit.qdq):
        if not is_shifted_int8(tensor) or not may_change_type(edit.qdq, tensor):
            continue
        edit.forget_type(tensor.name)
        stored = edit.qdq.values(tensor.name) if tensor.quantize is None else None
        if stored is not None:
            name = edit.add_constant((stored.astype(np.int16) - MIDDLE).astype(np.int8), f"{tensor.name}_int8")
            for node in tensor.dequantize:
                edit.set_input(node.result, 0, name)
        for node in tensor.nodes:
            write_int8_zero(edit, node)


RULE = LintRule(
    "uint8",
    "error",
    "rejected, or read as INT8 so that everything above 127·scale is clipped",
    find_unsigned,
    store_signed,
    "zero point 128 becomes int8 with 0, the same numbers",
)

"""weight-axis: scales of weights along another axis than that of the output channels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from quantkit.graph.model import node_name
from quantkit.graph.operators import weight_axis
from quantkit.linting.finding import Defect
from quantkit.linting.moved_weights import WeightReader, channel_numbers, move_values, weight_readers
from quantkit.linting.quantized_tensors import eight_bit_tensors
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph


def find_weight_axes(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield weighted operators whose weights have scales along another axis."""
    for tensor in eight_bit_tensors(qdq):
        for node in tensor.dequantize:
            dims = qdq.shapes.get(node.data) or qdq.shapes.get(node.result) or ()
            if not node.per_channel or node.result not in qdq.constants or not -len(dims) <= node.axis < len(dims):
                continue
            axis = node.axis % len(dims)
            for reader in weight_readers(qdq, node.result):
                right = output_axes(qdq, reader, dims)
                if right is None or axis in right:
                    continue
                kind = reader.operator.op_type
                behind = f" before {reader.steps[0][0].op_type}" if reader.steps else ""
                where = f"along axis {right[0]}{behind}" if right else f"along none of its axes{behind}"
                yield Defect(
                    node_name(reader.operator),
                    f"the scales of {kind}'s weights lie along axis {axis}, its output channels {where}",
                    f"quantize along axis {right[0]}" if right else "quantize the weights as the operator reads them",
                )


def output_axes(qdq: QdqGraph, reader: WeightReader, dims: tuple[int | None, ...]) -> list[int] | None:
    """Return the axes of a weight that become the output channels of a reader; None if that is unknown.

    Usually it is one; an axis of a single entry may stand for any.
    """
    if not reader.steps:
        return [weight_axis(reader.operator, reader.place, len(dims))]
    known = tuple(size for size in dims if size)
    if len(known) < len(dims):
        return None
    found = []
    for axis in range(len(known)):
        numbers = move_values(qdq, reader, channel_numbers(known, axis))
        if numbers is None:
            return None
        right = weight_axis(reader.operator, reader.place, numbers.ndim)
        others = tuple(d for d in range(numbers.ndim) if d != right)
        if numbers.size and not np.ptp(numbers, axis=others).any():
            found.append(axis)
    return sorted(found, key=lambda axis: -known[axis])


RULE = LintRule(
    "weight-axis",
    "error",
    "scales have to lie along the output channels: Conv 0, ConvTranspose 1, Gemm 1 (`transB` 0), MatMul the last",
    find_weight_axes,
)

"""weights-per-tensor: weights with one scale, which leaves some channels hardly any levels."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import node_name
from quantkit.graph.operators import weight_axis
from quantkit.linting.finding import Defect
from quantkit.linting.moved_weights import WeightReader, move_values, weight_readers
from quantkit.linting.quantized_tensors import FP8
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph, QuantizedTensor

if TYPE_CHECKING:
    from quantkit.values import Array

FEW_LEVELS = 8


def find_coarse_weights(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield weighted operators whose weights have one scale, and channels with few levels."""
    for tensor in qdq.quantized:
        if tensor.nodes[0].stored == FP8:  # its steps are relative: small channels keep their digits
            continue
        for node in tensor.dequantize:
            if node.result not in qdq.constants or node.scale is None or node.scale.size != 1:
                continue
            for reader in weight_readers(qdq, node.result):
                levels = channel_levels(qdq, tensor, reader)
                few = 0 if levels is None else int(((levels > 0) & (levels < FEW_LEVELS)).sum())
                if levels is not None and few:
                    yield Defect(
                        node_name(reader.operator),
                        f"one scale for all weights: {few} of {levels.size} output channels have fewer than"
                        f" {FEW_LEVELS} of 127 levels",
                        "quantize weights per channel (onnxruntime: per_channel=True)",
                    )


def channel_levels(qdq: QdqGraph, tensor: QuantizedTensor, reader: WeightReader) -> Array | None:
    """Return max|w|/scale of every output channel; None if the weights are not stored, a vector, or cannot have scales
    per channel (a stack of matrices)."""
    node = tensor.nodes[0]
    values = qdq.values(tensor.quantize.data if tensor.quantize else tensor.name)
    if values is None or node.scale is None or not (np.isfinite(node.scale) & (node.scale > 0)).all():
        return None
    if tensor.quantize:
        levels = np.abs(values.astype(np.float64)) / float(node.scale.ravel()[0])
    else:
        levels = np.abs(values.astype(np.float64) - (0 if node.zero is None else float(node.zero.ravel()[0])))
    moved = move_values(qdq, reader, levels)
    if moved is None or moved.ndim < 2 or (prod(moved.shape[:-2]) > 1 and reader.operator.op_type == "MatMul"):
        return None
    axis = weight_axis(reader.operator, reader.place, moved.ndim)
    largest: Array = moved.max(axis=tuple(d for d in range(moved.ndim) if d != axis), initial=0.0)
    return largest


RULE = LintRule(
    "weights-per-tensor", "accuracy", "output channels with fewer than 8 of 127 levels", find_coarse_weights
)

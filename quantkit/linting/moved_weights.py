"""Weights behind operators that only move values, followed to the weighted operators that read them.

    w [N, K] → Q → DQ → Transpose → MatMul

Where the channels of a weight lie behind a chain of Transpose, Reshape, Slice … is found by moving numbers through it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.operators import COMMUTING, WEIGHTED
from quantkit.qdq.decided_constants import FREE_BYTES, MOST_GROWTH, compute_node
from quantkit.qdq.reader import QdqGraph

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array


@dataclass(frozen=True, slots=True)
class WeightReader:
    """A weighted operator, the input of it that is the weight, and the steps before it: a node and the tensors that it
    reads and makes."""

    operator: onnx.NodeProto
    place: int
    steps: tuple[tuple[onnx.NodeProto, str, str], ...] = ()


def weight_readers(qdq: QdqGraph, tensor: str) -> Iterator[WeightReader]:
    """Yield the weighted operators that read a tensor as activation or weight, directly or behind what moves values."""
    waiting: list[tuple[str, tuple[tuple[onnx.NodeProto, str, str], ...]]] = [(tensor, ())]
    seen = {tensor}
    while waiting:
        name, steps = waiting.pop()
        for reader, node in qdq.uses(name):
            if node.op_type in WEIGHTED and reader.place < 2:
                yield WeightReader(node, reader.place, steps)
            elif node.op_type in COMMUTING and (reader.place == 0 or node.op_type == "Concat"):
                made = [output for output in node.output if output and output not in seen]
                seen.update(made)
                waiting.extend((output, (*steps, (node, name, output))) for output in made)


def move_values(qdq: QdqGraph, reader: WeightReader, values: Array) -> Array | None:
    """Return values, one for each of a weight, as a weighted operator reads them; None if that is not known."""
    for node, source, result in reader.steps:
        others = {name: qdq.values(name) for name in node.input[1:] if name and name != source}
        known = {name: array for name, array in others.items() if array is not None}
        if len(known) < len(others):
            return None
        room = FREE_BYTES + MOST_GROWTH * values.nbytes
        made = compute_node(node, {source: values, **known}, qdq.model.opset, room)
        if result not in made:
            return None
        values = made[result]
    return values


def channel_numbers(shape: tuple[int, ...], axis: int) -> Array:
    """Return the number of its channel for each value of a weight."""
    along = [-1 if d == axis else 1 for d in range(len(shape))]
    numbers: Array = np.broadcast_to(np.arange(shape[axis], dtype=np.int32).reshape(along), shape)
    return numbers

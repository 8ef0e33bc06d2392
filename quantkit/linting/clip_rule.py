"""Clips that TensorRT 8.6 computes wrongly in a Q/DQ network, and how to write them so that it does not.

    Conv → Clip(0, 6) → Q        Conv → Relu → Min(6) → Q

Behind a layer that runs in INT8 a Clip fuses into it. Behind anything else TensorRT 8.6 moves QuantizeLinear ahead of a
Clip with two bounds, as it may with a Relu, and leaves the bounds as they are: integers are clipped at 0 and 6. What
comes out is below 4 dB, with FP16 and TF32 and without, at levels 1 and 3. One bound alone, and Relu and Min, are
computed rightly. Source: measured, benchmarks/results/clips.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.names import unique_name
from quantkit.graph.operators import WEIGHTED
from quantkit.linting.placement_rules import COMMUTING, is_dequantized
from quantkit.qdq.reader import QdqGraph

if TYPE_CHECKING:
    import onnx

FLOATS = frozenset({"float32", "float16"})
UNBOUNDED = 1e30
"""A bound beyond it is none: exporters write the largest float for it."""
CARRYING = frozenset({"Add", "BatchNormalization", "Concat", "Div", "Identity", "Mul", "Sub"})
"""They fuse with the INT8 layer before them, and let a Clip fuse as well."""
PASSING = COMMUTING | {"Clip"}
"""QuantizeLinear moves ahead of them, rightly or not."""


def misread_clips(reading: QdqGraph) -> Iterator[onnx.NodeProto]:
    """The Clips that TensorRT 8.6 computes wrongly, in graph order."""
    clips = [node for node in reading.graph.node if node.op_type == "Clip" and is_bounded(reading, node)]
    if not clips:
        return
    int8, quantized = int8_tensors(reading), quantized_behind(reading)
    for node in clips:
        if node.output[0] in quantized and node.input[0] not in int8:
            yield node


def is_bounded(reading: QdqGraph, node: onnx.NodeProto) -> bool:
    """Whether a Clip of floats has two stored bounds. Those of old operator sets, in attributes, are not looked at, nor
    what is computed of constants alone, nor bounds that a caller can replace."""
    names = [name for name in node.input[1:] if name]
    if node.domain not in ("", "ai.onnx") or len(names) != 2 or node.output[0] in reading.constants:
        return False
    if reading.types.get(node.input[0], "float32") not in FLOATS or {v.name for v in reading.graph.input} & set(names):
        return False
    bounds = [reading.values(name) for name in names]
    return all(b is not None and b.size == 1 and abs(float(b.item())) < UNBOUNDED for b in bounds)


def quantized_behind(reading: QdqGraph) -> set[str]:
    """The tensors that a QuantizeLinear reads, or reads what operators make of them that it moves ahead of."""
    found = {step.data for step in reading.steps.values() if step.quantizes}
    for node in reversed(reading.graph.node):
        if node.op_type in PASSING and node.output[0] in found:
            found.add(node.input[0])
    return found


def int8_tensors(reading: QdqGraph) -> set[str]:
    """The tensors that a layer in INT8 makes, or what fuses with one."""
    found: set[str] = set()
    for node in reading.graph.node:
        if node.output[0] in reading.steps:
            found.add(node.output[0])
        elif node.op_type in WEIGHTED:
            if all(is_dequantized(reading, source) for source in node.input[:2]):
                found.add(node.output[0])
        elif node.op_type in CARRYING:
            sources = [source for source in node.input if source and source not in reading.constants]
            if sources and found.issuperset(sources):
                found.add(node.output[0])
    return found


def split(
    node: onnx.NodeProto, low: float, tensors: set[str], nodes: set[str]
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """The two nodes that compute what a Clip with the lower bound `low` computes, the second under its name. tensors,
    nodes: names that are taken, which grow."""
    from onnx import helper

    data, bottom, top = node.input[:3]
    between = unique_name(f"{node.output[0]}_above", tensors)
    plain = low == 0.0 and not np.signbit(low)  # the sign of a zero lower bound can reach an output
    kind, inputs = ("Relu", [data]) if plain else ("Max", [data, bottom])
    first = helper.make_node(kind, inputs, [between], unique_name(f"{node.name or node.output[0]}_{kind}", nodes))
    return first, helper.make_node("Min", [between, top], [node.output[0]], node.name)

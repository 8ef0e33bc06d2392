"""Clips that TensorRT 8.6 computes wrongly in a Q/DQ network, and how to write them so that it does not.

    Conv → Clip(0, 6) → Q        Conv → Relu → Min(6) → Q

Behind a layer that runs in INT8 a Clip fuses into it. Behind anything else TensorRT 8.6 moves QuantizeLinear ahead of a
Clip with two bounds, as it may with a Relu, and leaves the bounds as they are: integers are clipped at 0 and 6. What
comes out is below 4 dB, in any precision and at any optimization level. One bound alone, and Relu and Min, are computed
rightly. Source: measured, benchmarks/results/clips.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from quantkit.graph.blocking import is_dequantized
from quantkit.graph.heads import WEIGHTED
from quantkit.graph.inserting import fresh
from quantkit.graph.qdq import Reading

if TYPE_CHECKING:
    import onnx

UNBOUNDED = 1e30
"""A bound beyond it is none: exporters write the largest float for it."""
CARRYING = frozenset({"Add", "BatchNormalization", "Concat", "Div", "Identity", "Mul", "Sub"})
"""They fuse with the INT8 layer before them, and let a Clip fuse as well."""
PASSING = frozenset({"Clip", "Flatten", "Identity", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""QuantizeLinear moves ahead of them."""


def misread_clips(reading: Reading) -> Iterator[onnx.NodeProto]:
    """The Clips that TensorRT 8.6 computes wrongly, in graph order."""
    for node in reading.graph.node:
        if (
            node.op_type == "Clip"
            and node.domain in ("", "ai.onnx")
            and is_bounded(reading, node)
            and is_quantized_behind(reading, node.output[0])
            and not is_int8(reading, node.input[0])
        ):
            yield node


def is_bounded(reading: Reading, node: onnx.NodeProto) -> bool:
    """Whether a Clip has two bounds. Those of old operator sets, in attributes, and computed ones are not looked at."""
    bounds = [reading.values(name) for name in node.input[1:] if name]
    return len(bounds) == 2 and all(b is not None and b.size == 1 and abs(float(b.item())) < UNBOUNDED for b in bounds)


def is_quantized_behind(reading: Reading, name: str) -> bool:
    """Whether a QuantizeLinear reads a tensor, or what is made of it by operators that it moves ahead of."""
    for node, place in reading.readers.get(name, ()):
        step = reading.steps.get(node.output[0])
        if place == 0 and step is not None and step.quantizes:
            return True
        if place == 0 and node.op_type in PASSING and is_quantized_behind(reading, node.output[0]):
            return True
    return False


def is_int8(reading: Reading, name: str) -> bool:
    """Whether a layer in INT8 makes a tensor, or what fuses with one."""
    if reading.before(name) is not None:
        return True
    node = reading.producers.get(name)
    if node is None:
        return False
    if node.op_type in WEIGHTED:
        return all(is_dequantized(reading, source) for source in node.input[:2])
    sources = [source for source in node.input if source and source not in reading.constants]
    return node.op_type in CARRYING and all(is_int8(reading, source) for source in sources)


def split(node: onnx.NodeProto, low: float, names: set[str]) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """The two nodes that compute what a Clip with the lower bound `low` computes, the second under its name."""
    from onnx import helper

    data, bottom, top = node.input[:3]
    between = fresh(f"{node.output[0]}_above", names)
    kind, inputs = ("Relu", [data]) if low == 0.0 else ("Max", [data, bottom])
    first = helper.make_node(kind, inputs, [between], f"{node.name or node.output[0]}_{kind}")
    return first, helper.make_node("Min", [between, top], [node.output[0]], node.name)

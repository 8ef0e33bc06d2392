"""clip-apart: Clips that TensorRT 8.6 computes wrongly in a Q/DQ network, and how to write them so that it does not.

    Conv → Clip(0, 6) → Q        Conv → Relu → Min(6) → Q

A Clip after a layer that runs in INT8 fuses into it. After anything else TensorRT 8.6 moves QuantizeLinear ahead of a
Clip with two bounds, as it may with a Relu, and leaves the bounds as they are: integers are clipped at 0 and 6. The
result is below 4 dB, with FP16 and TF32 and without, at levels 1 and 3. One bound alone, and Relu and Min, are computed
correctly. Source: measured, benchmarks/results/clips.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import Model, node_name
from quantkit.graph.names import unique_name
from quantkit.graph.operators import ONNX_DOMAINS, QUANTIZED_BEFORE, SCALE_KEEPING_ARITHMETIC, WEIGHTED
from quantkit.linting.finding import Defect
from quantkit.linting.graph_edit import GraphEdit
from quantkit.linting.neighbours import has_dequantize_before
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph, read_qdq

if TYPE_CHECKING:
    import onnx

FLOATS = frozenset({"float32", "float16"})
UNBOUNDED = 1e30
"""A bound beyond it is none: exporters write the largest float for it."""


def find_misread_clips(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield the Clips that TensorRT 8.6 applies to integers."""
    for node in misread_clips(qdq):
        yield Defect(
            node_name(node),
            f"no INT8 layer makes {node.input[0]!r}: TensorRT 8.6 quantizes before this Clip, and clips the integers",
            "write it as Relu and Min, or quantize what makes its input",
            fixable=True,
        )


def misread_clips(qdq: QdqGraph) -> Iterator[onnx.NodeProto]:
    """Yield the Clips that TensorRT 8.6 computes wrongly, in graph order."""
    clips = [node for node in qdq.nodes if node.op_type == "Clip" and has_two_bounds(qdq, node)]
    if not clips:
        return
    int8, quantized = int8_layer_outputs(qdq), tensors_before_quantize(qdq)
    for node in clips:
        if node.output[0] in quantized and node.input[0] not in int8:
            yield node


def has_two_bounds(qdq: QdqGraph, node: onnx.NodeProto) -> bool:
    """Return True for a Clip of floats that depends on the input and has two stored bounds.

    Neither bounds in attributes, as old opsets have them, nor bounds that a caller can replace are looked at.
    """
    names = [name for name in node.input[1:] if name]
    if node.domain not in ONNX_DOMAINS or len(names) != 2 or node.output[0] in qdq.constants:
        return False
    if qdq.types.get(node.input[0], "float32") not in FLOATS or qdq.inputs & set(names):
        return False
    bounds = [qdq.values(name) for name in names]
    return all(b is not None and b.size == 1 and abs(float(b.item())) < UNBOUNDED for b in bounds)


def tensors_before_quantize(qdq: QdqGraph) -> set[str]:
    """Return the tensors that a QuantizeLinear reads, directly or through operators that it moves ahead of."""
    found = {node.data for node in qdq.qdq_nodes.values() if node.quantizes}
    for node in reversed(qdq.nodes):
        if node.op_type in QUANTIZED_BEFORE and node.output[0] in found:
            found.add(node.input[0])
    return found


def int8_layer_outputs(qdq: QdqGraph) -> set[str]:
    """Return the tensors that an INT8 layer makes, or what fuses with one."""
    found: set[str] = set()
    for node in qdq.nodes:
        if node.output[0] in qdq.qdq_nodes:
            found.add(node.output[0])
        elif node.op_type in WEIGHTED:
            if all(has_dequantize_before(qdq, source) for source in node.input[:2]):
                found.add(node.output[0])
        elif node.op_type in SCALE_KEEPING_ARITHMETIC:
            sources = [source for source in node.input if source and source not in qdq.constants]
            if sources and found.issuperset(sources):
                found.add(node.output[0])
    return found


def split_misread_clips(edit: GraphEdit) -> tuple[str, ...]:
    """Put two nodes in the place of each Clip that TensorRT 8.6 computes wrongly; return the names of the Clips."""
    clips = list(misread_clips(edit.qdq))
    for clip in clips:
        low = edit.qdq.values(clip.input[1])
        assert low is not None, "bug in quantkit: the bounds of such a Clip are stored"
        edit.replace_node(clip.output[0], partial(split_clip, float(low.item())))
    return tuple(map(node_name, clips))


def split_clip(
    low: float, node: onnx.NodeProto, tensors: set[str], nodes: set[str]
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """Return two nodes that compute what a Clip with the lower bound `low` computes, the second under its name.

    tensors, nodes: names that are taken; those of the new nodes are added.
    """
    from onnx import helper

    data, bottom, top = node.input[:3]
    between = unique_name(f"{node.output[0]}_above", tensors)
    plain = low == 0.0 and not np.signbit(low)  # the sign of a zero lower bound can reach an output
    kind, inputs = ("Relu", [data]) if plain else ("Max", [data, bottom])
    first = helper.make_node(kind, inputs, [between], unique_name(f"{node.name or node.output[0]}_{kind}", nodes))
    return first, helper.make_node("Min", [between, top], [node.output[0]], node.name)


def without_misread_clips(model: Model) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the network without the Clips that TensorRT 8.6 computes wrongly, and their names.

    The same network, not a copy, if it has none.
    """
    if not any(node.op_type == "Clip" for node in model.proto.graph.node):
        return model.proto, ()
    edit = GraphEdit(read_qdq(model))
    names = split_misread_clips(edit)
    return edit.result() if names else model.proto, names


RULE = LintRule(
    "clip-apart",
    "error",
    "a Clip with two bounds before a pair, which no INT8 layer takes in: TensorRT 8.6 clips the integers",
    find_misread_clips,
    split_misread_clips,
    "Relu and Min, the same numbers",
    tensorrt="8.6",
)

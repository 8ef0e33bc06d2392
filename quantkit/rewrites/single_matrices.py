"""Weights of MatMul that are stacks of one matrix, written as that matrix.

    x [N, T, K] · w [1, K, M]      x [N, T, K] · w [K, M]

Both compute the same. A stack of matrices gets one scale (`scale_axis`), a matrix one for every output channel, and
repairs know matrices alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.dead_nodes import remove_unread
from quantkit.graph.index import GraphIndex, index_graph
from quantkit.graph.model import Model, default_opset
from quantkit.graph.names import tensor_names, unique_name
from quantkit.graph.node_edits import insert_behind
from quantkit.graph.operators import ONNX_DOMAINS

if TYPE_CHECKING:
    import onnx

AXES_AS_INPUT = 13
"""The first opset in which the axes of Unsqueeze are an input."""


@dataclass(frozen=True, slots=True)
class StackReader:
    """Input `place` of node `number` that is a stack of one matrix, and the leading dimensions of 1 that only the stack
    gives to the result."""

    number: int
    place: int
    leading: int


def unstack_matrices(model: Model) -> onnx.ModelProto:
    """Return the network with such weights as matrices: the model's own proto, which is never edited, if it has none.

    Where the stack gives the result more dimensions than the other factor has, an Unsqueeze does so. A stack that meets
    a factor of unknown rank stays, and so does one that is listed as an input.
    """
    if not any(node.op_type == "MatMul" for node in model.proto.graph.node):
        return model.proto
    wires = index_graph(model.proto)
    found: dict[str, list[StackReader]] = defaultdict(list)
    for number, node in enumerate(wires.nodes):
        for place in (0, 1) if node.op_type == "MatMul" and node.domain in ONNX_DOMAINS else ():
            name, rank = node.input[place], len(wires.shapes.get(node.input[1 - place], ()))
            if rank > 1 and is_single_matrix(wires, name) and node.input[1 - place] not in wires.constants:
                found[name].append(StackReader(number, place, max(len(wires.weights[name].dims) - rank, 0)))
    return with_matrices(model.proto, wires, found) if found else model.proto


def is_single_matrix(wires: GraphIndex, name: str) -> bool:
    """Return whether a tensor is a weight of more than two dimensions, the first ones 1."""
    weight = wires.weights.get(name)
    if weight is None or name in wires.inputs:
        return False
    return len(weight.dims) > 2 and prod(weight.dims[:-2]) == 1


def with_matrices(proto: onnx.ModelProto, wires: GraphIndex, found: Mapping[str, list[StackReader]]) -> onnx.ModelProto:
    """Return a copy of a network whose nodes read matrices. found: stack → its readers."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    graph = copy.graph
    taken, reads = tensor_names(graph), wires.read_counts()
    stored = {tensor.name: tensor for tensor in graph.initializer}
    widened: dict[str, onnx.NodeProto] = {}
    for name, readers in found.items():
        if name in stored and reads[name] == len(readers):
            matrix = stored[name]
        else:
            matrix = graph.initializer.add()
            matrix.CopyFrom(wires.weights[name])
            matrix.name = unique_name(f"{name}_matrix", taken)
        del matrix.dims[:-2]
        for reader in readers:
            node = graph.node[reader.number]
            node.input[reader.place] = matrix.name
            if reader.leading:
                result = node.output[0]
                node.output[0] = unique_name(f"{result}_matrix", taken)
                widened[node.output[0]] = leading_ones(
                    graph, node.output[0], result, reader.leading, default_opset(copy)
                )
    insert_behind(graph, widened)
    annotations = [value for value in graph.value_info if value.name not in found]
    del graph.value_info[:]
    graph.value_info.extend(annotations)
    remove_unread(graph, found, ())
    return copy


def leading_ones(graph: onnx.GraphProto, source: str, result: str, count: int, opset: int) -> onnx.NodeProto:
    """Return a node that adds dimensions of 1 in front; its axes become an initializer where they are no attribute."""
    from onnx import helper, numpy_helper

    axes = list(range(count))
    if opset < AXES_AS_INPUT:
        return helper.make_node("Unsqueeze", [source], [result], f"{result}_unsqueeze", axes=axes)
    name = unique_name(f"{result}_axes", tensor_names(graph))
    graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), name))
    return helper.make_node("Unsqueeze", [source, name], [result], f"{result}_unsqueeze")

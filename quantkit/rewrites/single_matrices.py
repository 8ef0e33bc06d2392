"""Weights of MatMul that are stacks of one matrix, written as that matrix.

    x [N, T, K] · w [1, K, M]      x [N, T, K] · w [K, M]

Both compute the same. A stack of matrices gets one scale (`scale_axis`), a matrix one for every output channel, and
repairs know matrices alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from quantkit.graph.dead_nodes import remove_unread
from quantkit.graph.index import GraphIndex, TensorReader, index_graph
from quantkit.graph.model import Model
from quantkit.graph.names import tensor_names, unique_name
from quantkit.graph.operators import ONNX_DOMAINS

if TYPE_CHECKING:
    import onnx


def unstack_matrices(model: Model) -> onnx.ModelProto:
    """Return the network with such weights as matrices: the model's own proto, which is never edited, if it has none.

    A stack whose other factor has fewer dimensions, or an unknown number, stays: it gives the result its dimensions. So
    does one that is listed as an input.
    """
    if not any(node.op_type == "MatMul" for node in model.proto.graph.node):
        return model.proto
    wires = index_graph(model.proto)
    found: dict[str, list[TensorReader]] = defaultdict(list)
    for number, node in enumerate(wires.nodes):
        for place in (0, 1) if node.op_type == "MatMul" and node.domain in ONNX_DOMAINS else ():
            if is_single_matrix(wires, node.input[place], node.input[1 - place]):
                found[node.input[place]].append(TensorReader(number, place))
    return with_matrices(model.proto, wires, found) if found else model.proto


def is_single_matrix(wires: GraphIndex, name: str, other: str) -> bool:
    """Return whether a tensor is a weight of more than two dimensions, the first ones 1, and the other factor has as
    many at least."""
    weight = wires.weights.get(name)
    if weight is None or other in wires.constants or name in wires.inputs:
        return False
    return 2 < len(weight.dims) <= len(wires.shapes.get(other, ())) and prod(weight.dims[:-2]) == 1


def with_matrices(
    proto: onnx.ModelProto, wires: GraphIndex, found: Mapping[str, list[TensorReader]]
) -> onnx.ModelProto:
    """Return a copy of a network whose nodes read matrices. found: stack → its readers."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    taken, reads = tensor_names(copy.graph), wires.read_counts()
    stored = {tensor.name: tensor for tensor in copy.graph.initializer}
    for name, readers in found.items():
        if name in stored and reads[name] == len(readers):
            del stored[name].dims[:-2]
            continue
        matrix = copy.graph.initializer.add()
        matrix.CopyFrom(wires.weights[name])
        matrix.name = unique_name(f"{name}_matrix", taken)
        del matrix.dims[:-2]
        for reader in readers:
            copy.graph.node[reader.number].input[reader.place] = matrix.name
    annotations = [value for value in copy.graph.value_info if value.name not in found]
    del copy.graph.value_info[:]
    copy.graph.value_info.extend(annotations)
    remove_unread(copy.graph, found, ())
    return copy

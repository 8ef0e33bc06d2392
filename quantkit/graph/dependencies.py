"""Which tensors of a graph depend on the data, and which its outputs depend on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from quantkit.graph.model import weight_names
from quantkit.graph.operators import SHAPE_OPERATORS
from quantkit.graph.subgraphs import captured_names, count_inner_operators

if TYPE_CHECKING:
    import onnx


def constant_tensors(graph: onnx.GraphProto, outside: Iterable[str] = ()) -> set[str]:
    """Return the names of weights, and of all tensors that are computed from weights and shapes alone.

    outside: constants around the graph, if it is a subgraph.
    """
    known = weight_names(graph).union(outside)
    for node in graph.node:
        constant = node.op_type in SHAPE_OPERATORS or all(name in known or not name for name in node.input)
        if constant and not count_inner_operators(node) and not node.op_type.startswith("Random"):
            known.update(name for name in node.output if name)
    return known


def live_tensors(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all tensors that an output of the graph depends on."""
    live = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if any(name in live for name in node.output):
            live.update(node.input)
            live.update(captured_names(node))
    return live

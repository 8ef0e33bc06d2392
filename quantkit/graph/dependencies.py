"""TODO docstring."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from quantkit.graph.subgraphs import captured_names, count_inner_operators

if TYPE_CHECKING:
    import onnx


SHAPE_OPERATORS = frozenset({"Shape", "Size"})


def constant_tensors(nodes: Iterable[onnx.NodeProto], weights: set[str]) -> set[str]:
    """Names of all tensors that depend on weights and shapes only, the weights included."""
    known = set(weights)
    for node in nodes:
        constant = node.op_type in SHAPE_OPERATORS or all(name in known or not name for name in node.input)
        if constant and not count_inner_operators(node) and not node.op_type.startswith("Random"):
            known.update(name for name in node.output if name)
    return known


def live_tensors(graph: onnx.GraphProto) -> set[str]:
    """Names of all tensors that a graph output depends on."""
    live = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if any(name in live for name in node.output):
            live.update(node.input)
            live.update(captured_names(node))
    return live

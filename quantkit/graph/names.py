"""TODO docstring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantkit.graph.subgraphs import subgraphs

if TYPE_CHECKING:
    import onnx


def unique_name(name: str, taken: set[str]) -> str:
    """A name that is not taken, which it is then."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def tensor_names(graph: onnx.GraphProto) -> set[str]:
    """Every name of a tensor in a graph and the graphs inside it."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)}
    names |= {sparse.values.name for sparse in graph.sparse_initializer}
    for node in graph.node:
        names.update(node.input, node.output)
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                names |= tensor_names(inner)
    return names

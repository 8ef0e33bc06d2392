"""Names of tensors and nodes that do not collide."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from quantkit.graph.subgraphs import subgraphs

if TYPE_CHECKING:
    import onnx


def unique_name(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, and mark it as taken."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def part_name(node: str, number: int) -> str:
    """Return the name of a part of a node that is divided into several."""
    return f"{node}_part_{number}"


def undivided_name(part: str) -> str:
    """Return the name of the node that a part belongs to; the inverse of `part_name`."""
    return re.sub(r"_part_\d+$", "", part)


def tensor_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all tensors in a graph and its subgraphs."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)}
    names |= {sparse.values.name for sparse in graph.sparse_initializer}
    for node in graph.node:
        names.update(node.input, node.output)
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                names |= tensor_names(inner)
    return names

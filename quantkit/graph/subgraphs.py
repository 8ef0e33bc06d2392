"""Graphs inside a graph: those of If, Loop and Scan, and what they read from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def subgraphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """Return the graphs that an attribute holds."""
    return [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and its subgraphs."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                yield from all_graphs(inner)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of its subgraphs."""
    for part in all_graphs(graph):
        yield from part.node


def captured_names(node: onnx.NodeProto) -> set[str]:
    """Return every name that the subgraphs of a node read."""
    names: set[str] = set()
    for attribute in node.attribute:
        for subgraph in subgraphs(attribute):
            for inner in subgraph.node:
                names.update(inner.input)
                names |= captured_names(inner)
            names.update(value.name for value in subgraph.output)
    return names


def count_inner_operators(node: onnx.NodeProto) -> int:
    """Count the operators in the subgraphs of a node."""
    return sum(len(subgraph.node) for attribute in node.attribute for subgraph in subgraphs(attribute))

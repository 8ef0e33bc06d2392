"""Insertion of nodes into a graph that stays in topological order, and new names for what nodes read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from quantkit.graph.subgraphs import subgraphs

if TYPE_CHECKING:
    import onnx


def insert_behind(graph: onnx.GraphProto, lost: Mapping[str, onnx.NodeProto]) -> None:
    """Insert nodes directly behind those that make the tensors that they read. lost: tensor → node that reads it."""
    if not lost:
        return
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        nodes += [lost[name] for name in node.output if name in lost]
    nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)


def rename_reads(node: onnx.NodeProto, rename: Callable[[str], str]) -> None:
    """Rename what a node and its subgraphs read, in place."""
    for k, name in enumerate(node.input):
        node.input[k] = rename(name)
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            for inner in graph.node:
                rename_reads(inner, rename)
            for value in graph.output:
                value.name = rename(value.name)

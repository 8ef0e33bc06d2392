"""Insertion of nodes into a graph that stays in topological order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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

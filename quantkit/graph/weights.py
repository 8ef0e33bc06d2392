"""Where a model keeps values: initializers, sparse ones, attributes, subgraphs, functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from quantkit.graph.model import subgraphs

if TYPE_CHECKING:
    import onnx


def all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor with values in a model."""
    yield from graph_tensors(proto.graph)
    for function in proto.functions:
        yield from node_tensors(function.node)


def graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor with values in a graph and the graphs inside it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from node_tensors(graph.node)


def node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Every tensor in the attributes of nodes."""
    for node in nodes:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for inner in subgraphs(attribute):
                yield from graph_tensors(inner)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the values of a weight lie in another file."""
    import onnx

    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def copy_without(message: Any, *left: str) -> Any:
    """A copy of a message without some of its fields; those are never copied, however large they are."""
    copy = type(message)()
    for field, value in message.ListFields():
        if field.name in left:
            continue
        target = getattr(copy, field.name)
        if hasattr(target, "extend"):
            target.extend(value)
        elif hasattr(target, "CopyFrom"):
            target.CopyFrom(value)
        else:
            setattr(copy, field.name, value)
    return copy

"""The protobuf messages of a model: every tensor that is stored in one, and copies without some fields or weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from quantkit.graph.subgraphs import subgraphs

if TYPE_CHECKING:
    import onnx


LARGE = 1024
"""Size in bytes from which on a rewriter need not see a weight; it needs axes, shapes and scales."""


def all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor with values in a model."""
    yield from graph_tensors(proto.graph)
    for function in proto.functions:
        yield from node_tensors(function.node)


def graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor with values in a graph and its subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from node_tensors(graph.node)


def node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Yield every tensor in the attributes of nodes."""
    for node in nodes:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for sparse in sparse_tensors(attribute):
                yield from (sparse.values, sparse.indices)
            for inner in subgraphs(attribute):
                yield from graph_tensors(inner)


def sparse_tensors(attribute: onnx.AttributeProto) -> list[onnx.SparseTensorProto]:
    """Return the sparse tensors that an attribute holds."""
    return [*attribute.sparse_tensors, *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])]


def is_external(tensor: onnx.TensorProto) -> bool:
    """Return whether the values of a weight lie in another file."""
    import onnx

    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def copy_without(message: Any, *left: str) -> Any:
    """Return a copy of a message without some of its fields, which are never copied, however large they are."""
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


def with_placeholders(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """Return a copy with placeholders for large weights, and these weights.

    A placeholder is external; its location is the number of its weight.
    """
    import onnx

    heavy: list[onnx.TensorProto] = []
    light: onnx.ModelProto = copy_without(proto, "graph")
    light.graph.CopyFrom(copy_without(proto.graph, "initializer"))

    def placeholder(tensor: onnx.TensorProto) -> onnx.TensorProto:
        made = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        made.data_location = onnx.TensorProto.EXTERNAL
        made.external_data.add(key="location", value=str(len(heavy)))
        heavy.append(tensor)
        return made

    for tensor in proto.graph.initializer:
        light.graph.initializer.append(placeholder(tensor) if is_replaceable(tensor) else tensor)
    pairs = [(light.graph.node, proto.graph.node)]
    pairs += [(mine.node, source.node) for mine, source in zip(light.functions, proto.functions, strict=True)]
    for mine, nodes in pairs:
        for tensor, source in zip(node_tensors(mine), node_tensors(nodes), strict=True):
            if is_replaceable(source):
                tensor.CopyFrom(placeholder(source))
    return light, heavy


def is_replaceable(tensor: onnx.TensorProto) -> bool:
    """Return whether a rewriter does not need the values of a weight."""
    return is_external(tensor) or tensor.ByteSize() >= LARGE


def restore_placeholders(nodes: Iterable[onnx.NodeProto], heavy: list[onnx.TensorProto]) -> None:
    """Put weights back in the place of their placeholders, everywhere inside nodes."""
    for tensor in node_tensors(nodes):
        if is_external(tensor):
            tensor.CopyFrom(heavy[int(tensor.external_data[0].value)])

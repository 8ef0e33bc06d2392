"""Products whose result is taken apart for attention, divided into one product for each part.

    x · [Wq Wk Wv] → … → Split     becomes     Concat(x · Wq, x · Wk, x · Wv) → … → Split

Both compute the same numbers. TensorRT-RTX 1.7 moves the Split into the weights, and an INT8 weight with one scale for
each output channel is dequantized on the way: the product runs in float (`quantkit lint --compile` shows it). It merges
the divided products again, into one in INT8, with fewer kernels around it than from float weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.index import TensorReader
from quantkit.graph.model import Model, node_name
from quantkit.graph.names import part_name, tensor_names, undivided_name, unique_name
from quantkit.graph.operators import ONNX_DOMAINS, WEIGHTED, scale_axis
from quantkit.graph.weights import tensor_like, weight_values
from quantkit.qdq.reader import QdqGraph, QdqNode, read_qdq

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

PRODUCTS = frozenset({"Gemm", "MatMul"})
PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0}
"""Attributes of a Gemm that is a product and a bias."""
FARTHEST = 24
"""Operators between the parts and a product of two activations that are looked through."""


MOVING = frozenset({"Cast", "Dropout", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass(frozen=True, slots=True)
class FusedProduct:
    """A product that is divided: number of the node, its weight, the weight's Q/DQ nodes from the product upwards, the
    axis of the weight's columns, and the number of parts."""

    number: int
    weight: str
    chain: tuple[QdqNode, ...]
    axis: int
    parts: int


def divide_products(model: Model) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a Q/DQ network with such products divided, and the names of their nodes; the model's own proto if none is.

    Weights with one scale, shared ones, and those whose columns cannot be divided evenly stay as they are. ModelError
    if an external file with weights is missing.
    """
    if not any(node.op_type in PRODUCTS for node in model.proto.graph.node):
        return model.proto, ()
    qdq = read_qdq(model)
    found = [made for number in range(len(qdq.nodes)) if (made := fused_product(qdq, number)) is not None]
    return with_parts(model, qdq, found), tuple(node_name(qdq.nodes[product.number]) for product in found)


def divide_as(plain: Model, divided: Model) -> Model:
    """Return a float network with those products divided of which a network that was made from it has the parts.

    They get the same names, so that both can be compared product by product. The network itself if there are none.
    """
    names = {node_name(node) for node in divided.proto.graph.node}
    if all(name == undivided_name(name) for name in names):
        return plain
    qdq = read_qdq(plain)
    found = []
    for number, node in enumerate(qdq.nodes):
        parts = next(k for k in count() if part_name(node_name(node), k) not in names)
        if parts < 2 or not is_gemm_or_matmul(node) or not has_plain_bias(qdq, node):
            continue
        weight, axis = qdq.weights.get(node.input[1]), scale_axis(node, 1, 2)
        if weight is not None and len(weight.dims) == 2 and axis is not None and weight.dims[axis] % parts == 0:
            found.append(FusedProduct(number, node.input[1], (), axis, parts))
    return replace(plain, proto=with_parts(plain, qdq, found), sha256="") if found else plain


def with_parts(model: Model, qdq: QdqGraph, found: list[FusedProduct]) -> onnx.ModelProto:
    """Return a copy of a network with products divided; its own proto for none."""
    if not found:
        return model.proto
    copy = type(model.proto)()
    copy.CopyFrom(model.proto)
    divider = ProductDivider(model, qdq, copy.graph)
    for product in found:
        divider.divide(product)
    divider.finish()
    return copy


def fused_product(qdq: QdqGraph, number: int) -> FusedProduct | None:
    """Return the product at a node, if it is one that can be divided."""
    node = qdq.nodes[number]
    if not is_gemm_or_matmul(node) or not qdq.dequantizes(node.input[1]) or not has_plain_bias(qdq, node):
        return None
    chain = [qdq.qdq_nodes[node.input[1]]]
    if (before := qdq.quantizer(node.input[1])) is not None:
        chain.append(before)
    weight, axis = qdq.weights.get(chain[-1].data), scale_axis(node, 1, 2)
    if weight is None or len(weight.dims) != 2 or axis is None or chain[-1].data in qdq.held:
        return None
    if any(len(list(qdq.uses(name))) != 1 for name in (node.input[1], *(each.data for each in chain))):
        return None
    if not all(each.per_channel and each.axis in (axis, axis - 2) and not each.block for each in chain):
        return None
    parts = count_parts(qdq, node.output[0])
    if parts < 2 or weight.dims[axis] % parts:
        return None
    return FusedProduct(number, chain[-1].data, tuple(chain), axis, parts)


def is_gemm_or_matmul(node: onnx.NodeProto) -> bool:
    """Return whether a node is a Gemm or a MatMul of ONNX."""
    return node.op_type in PRODUCTS and node.domain in ONNX_DOMAINS


def has_plain_bias(qdq: QdqGraph, node: onnx.NodeProto) -> bool:
    """Return whether a product has no bias, or one that can be divided with the weight."""
    plain = all((a.i or a.f) == PLAIN.get(a.name, a.i or a.f) for a in node.attribute)
    if len(node.input) < 3 or not node.input[2]:
        return plain
    bias = qdq.weights.get(node.input[2])
    return plain and bias is not None and len(bias.dims) == 1 and bias.dims[0] > 1


def count_parts(qdq: QdqGraph, tensor: str) -> int:
    """Return into how many parts a tensor is taken apart for attention; 0 if it is not."""
    while tensor not in qdq.held:
        readers = list(qdq.uses(tensor))
        parts = parts_read(readers)
        if parts or len(readers) != 1:
            return len(parts) if any(reaches_attention(qdq, part) for part in parts) else 0
        node = readers[0][1]
        added = node.op_type == "Add" and any(name in qdq.constants for name in node.input)
        if not added and node.op_type not in MOVING:
            return 0
        tensor = node.output[0]
    return 0


def parts_read(readers: list[tuple[TensorReader, onnx.NodeProto]]) -> list[str]:
    """Return the parts that the readers of a tensor take; empty if they do something else."""
    kinds = {node.op_type for _, node in readers}
    if kinds == {"Split"} and len(readers) == 1:
        return list(readers[0][1].output)
    taking = kinds in ({"Gather"}, {"Slice"}) and len(readers) > 1 and all(reader.place == 0 for reader, _ in readers)
    return [node.output[0] for _, node in readers] if taking else []


def reaches_attention(qdq: QdqGraph, tensor: str) -> bool:
    """Return whether a product of two activations reads a tensor, with no weighted operator in between."""
    seen, waiting = {tensor}, [tensor]
    while waiting and len(seen) < FARTHEST:
        for _, node in qdq.uses(waiting.pop(0)):
            if node.op_type == "MatMul" and not any(is_constant(qdq, name) for name in node.input):
                return True
            if node.op_type not in WEIGHTED:
                new = [name for name in node.output if name and name not in seen]
                seen.update(new)
                waiting += new
    return False


def is_constant(qdq: QdqGraph, name: str) -> bool:
    """Return whether a tensor is a constant, or a weight behind its Q/DQ nodes."""
    while name in qdq.qdq_nodes:
        name = qdq.qdq_nodes[name].data
    return name in qdq.constants


class ProductDivider:
    """A copy of a network in which products are divided."""

    def __init__(self, model: Model, qdq: QdqGraph, graph: onnx.GraphProto) -> None:
        self._model, self._qdq, self._graph = model, qdq, graph
        self._names = tensor_names(graph)
        self._node_names = {node.name for node in graph.node}
        self._instead: dict[int, list[onnx.NodeProto]] = {}
        self._dropped: set[str] = set()

    def divide(self, product: FusedProduct) -> None:
        """Replace a product by one for each part of its columns, and a Concat."""
        from onnx import helper

        node = self._qdq.nodes[product.number]
        made: list[onnx.NodeProto] = []
        parts = []
        for part in range(product.parts):
            weight = self._store(product.weight, product.axis, part, product.parts)
            for each in reversed(product.chain):
                scales = [self._store(name, 0, part, product.parts) for name in each.node.input[1:] if name]
                weight = self._node(made, each.node, [weight, *scales], part)
            bias = [self._store(name, 0, part, product.parts) for name in node.input[2:] if name]
            parts.append(self._node(made, node, [node.input[0], weight, *bias], part))
        name = unique_name(f"{node_name(node)}_concat", self._node_names)
        made.append(helper.make_node("Concat", parts, [node.output[0]], name, axis=-1))
        self._instead[product.number] = made
        for each in product.chain:
            self._instead[self._qdq.makers[each.result]] = []
            self._dropped.update((*each.node.input, each.result))
        self._dropped.update(node.input[1:])

    def finish(self) -> None:
        """Put the new nodes in their places, and remove what nothing reads any more."""
        nodes = [new for number, node in enumerate(self._graph.node) for new in self._instead.get(number, [node])]
        read = {name for node in nodes for name in node.input}
        gone = self._dropped - read - self._qdq.held
        nodes = [
            type(node).FromString(node.SerializeToString())
            for node in nodes
            if node.op_type != "Constant" or node.output[0] not in gone
        ]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        kept = [tensor for tensor in self._graph.initializer if tensor.name not in gone]
        if len(kept) < len(self._graph.initializer):
            kept = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
            del self._graph.initializer[:]
            self._graph.initializer.extend(kept)
        values = [type(value).FromString(value.SerializeToString()) for value in self._graph.value_info]
        del self._graph.value_info[:]
        self._graph.value_info.extend(value for value in values if value.name not in gone)

    def _store(self, name: str, axis: int, part: int, parts: int) -> str:
        """Store a part of a tensor along an axis; return its name."""
        tensor = self._qdq.weights[name]
        values: Array = weight_values(tensor, self._model)
        stored = unique_name(part_name(name, part), self._names)
        self._graph.initializer.append(tensor_like(tensor, np.split(values, parts, axis)[part], stored))
        return stored

    def _node(self, made: list[onnx.NodeProto], like: onnx.NodeProto, inputs: list[str], part: int) -> str:
        """Add a node like another with other inputs; return its output."""
        new = type(like)()
        new.CopyFrom(like)
        new.name = unique_name(part_name(node_name(like), part), self._node_names)
        del new.input[:]
        new.input.extend(inputs)
        new.output[0] = unique_name(part_name(like.output[0], part), self._names)
        made.append(new)
        return str(new.output[0])

"""The operations of a network's convolutions and matrix products: two for every multiplication with its addition."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from quantkit.graph.model import Model, node_name
from quantkit.graph.operators import ONNX_DOMAINS, WEIGHTED
from quantkit.graph.shape_inference import shapes_for_inputs

if TYPE_CHECKING:
    import onnx

    from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork, Kernel

ATTENTION = ("Mha", "FMHA")
"""Parts of the names of kernels that hold several products."""
Sizes = Mapping[str, "tuple[int, ...] | None"]


def count_operations(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int | None]:
    """Return node → operations of every convolution and matrix product; None where a shape is not known.

    shapes: of the inputs. Padding counts as data, as kernels compute it.
    """
    graph = model.proto.graph
    nodes = [node for node in graph.node if node.op_type in WEIGHTED and node.domain in ONNX_DOMAINS]
    stored = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    tensors = [name for node in nodes for name in (*node.input, *node.output) if name]
    sizes = {**shapes_for_inputs(model, tensors, shapes), **stored}
    return {node_name(node): node_operations(node, sizes) for node in nodes}


def node_operations(node: onnx.NodeProto, sizes: Sizes) -> int | None:
    """Return the operations of one node."""
    left, right, made = (sizes.get(name) for name in (*node.input[:2], node.output[0]))
    if left is None or right is None or made is None or not left:
        return None
    if node.op_type == "Conv":
        return 2 * prod(made) * prod(right[1:])
    if node.op_type == "ConvTranspose":
        return 2 * prod(left) * prod(right[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * prod(made) * left[-2 if node.op_type == "Gemm" and transposed else -1]


def kernel_operations(network: CompiledNetwork, operations: Mapping[str, int | None]) -> dict[str, int]:
    """Return kernel → the operations of the products in it: from its tensors, else from its nodes.

    Kernels of which neither is known are left out. A node counts once, in the kernel that multiplies it.
    """
    found = {k.name: count for k in network.products if (count := tensor_operations(k)) is not None}
    others: dict[str, int] = {}
    for node, count in operations.items():
        kernel = network.by_node.get(node)
        if count and kernel is not None and kernel.name not in found:
            others[kernel.name] = others.get(kernel.name, 0) + count
    return found | others


def tensor_operations(kernel: Kernel) -> int | None:
    """Return the operations of a kernel with one product, from the shapes that it reads and writes; None if unclear."""
    if not kernel.reads or not kernel.writes or any(part in kernel.name for part in ATTENTION):
        return None
    data, made = kernel.reads[0].shape, kernel.writes[0].shape
    if kernel.weights is None:  # two activations, or weights that are computed, of which the nodes tell
        size = inner_size(data, kernel.reads[-1].shape, made) if len(data) < 4 else None
        return None if size is None else 2 * prod(made) * size
    weights = kernel.weights.shape
    if len(weights) == len(data) > 3:
        return 2 * prod(data if kernel.kind == "deconv" else made) * prod(weights[1:])
    inner = (inner_size(tensor.shape, weights, made) for tensor in kernel.reads)
    return next((2 * prod(made) * size for size in inner if size is not None), None)


def inner_size(data: tuple[int, ...], weights: tuple[int, ...], made: tuple[int, ...]) -> int | None:
    """Return the size that a matrix product sums over: data·weights, data·weightsᵀ or weights·data; None for others."""
    if min(len(data), len(weights), len(made)) < 2:
        return None
    rows, columns = weights[-2:]
    if (data[-1], made[-1]) == (rows, columns):
        return rows
    if (data[-1], made[-1]) == (columns, rows) or (data[-2], made[-2]) == (columns, rows):
        return columns
    return None

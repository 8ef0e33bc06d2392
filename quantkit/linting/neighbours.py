"""Questions about the operators before and after a tensor that several rules ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantkit.graph.operators import FUSING_WEIGHTED, INTEGER_MOVING
from quantkit.qdq.reader import QdqGraph, moved_tensors

if TYPE_CHECKING:
    import onnx


def has_dequantize_before(qdq: QdqGraph, tensor: str) -> bool:
    """Return True if a DequantizeLinear makes a float tensor, with only what commutes with it in between.

    Only Q/DQ nodes that were read count: onnxruntime's own are integer operators to TensorRT.
    """
    return all(qdq.dequantizes(name) for name in moved_tensors(qdq, tensor))


def only_dequantized(qdq: QdqGraph, tensor: str) -> bool:
    """Return True if everything that reads a quantized tensor is a DequantizeLinear, or moves values to one."""
    readers = [node for _, node in qdq.uses(tensor)]
    return bool(readers) and all(
        node.output[0] in qdq.qdq_nodes
        or (node.op_type in INTEGER_MOVING and all(only_dequantized(qdq, output) for output in node.output))
        for node in readers
    )


def has_quantize_before(qdq: QdqGraph, tensor: str) -> bool:
    """Return True if a QuantizeLinear made a quantized tensor, or the one whose values were moved to it."""
    made, node = qdq.qdq_nodes.get(tensor), qdq.maker(tensor)
    if made is not None:
        return made.quantizes
    return node is not None and node.op_type in INTEGER_MOVING and has_quantize_before(qdq, node.input[0])


def fusible_convolution(qdq: QdqGraph, tensor: str) -> onnx.NodeProto | None:
    """Return the convolution that makes a tensor which nothing else reads, at most batch normalization in between."""
    while qdq.has_sole_reader(tensor) and (node := qdq.maker(tensor)) is not None:
        if node.op_type in FUSING_WEIGHTED:
            return node
        if node.op_type != "BatchNormalization":
            return None
        tensor = node.input[0]
    return None


def weight_shape(qdq: QdqGraph, node: onnx.NodeProto) -> tuple[int | None, ...] | None:
    """Return the shape of an operator's second input, in front of its Q/DQ nodes; None if it is unknown."""
    weight = node.input[1]
    while weight in qdq.qdq_nodes:
        weight = qdq.qdq_nodes[weight].data
    return qdq.shapes.get(weight)

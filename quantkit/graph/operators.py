"""TODO docstring."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def weight_axis(node: onnx.NodeProto, k: int, rank: int) -> int:
    """The axis of the output channels of a weight."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        transposed = any(a.name == ("transA" if k == 0 else "transB") and a.i for a in node.attribute)
        return int(transposed) if k == 0 else int(not transposed)
    return rank - 1 if k == 1 else max(rank - 2, 0)


def scale_axis(node: onnx.NodeProto, k: int, rank: int) -> int | None:
    """The axis along which a weight gets scales: that of its output channels. None, one scale, for a stack of matrices:
    onnxruntime runs those with scales along their channels no more."""
    return None if node.op_type == "MatMul" and rank > 2 else weight_axis(node, k, rank)


WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


COMMUTING = frozenset(
    {
        "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Split", "Gather",
        "Identity", "Dropout", "DepthToSpace", "SpaceToDepth", "Expand", "Tile",
    }
)  # fmt: skip
"""Operators that move values and make no new ones, through which Q and DQ pass."""

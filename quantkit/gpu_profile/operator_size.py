"""The size of an operator with weights, as far as its time on a GPU depends on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from quantkit.graph.index import GraphIndex
from quantkit.graph.operators import convolution_groups, weight_axis

if TYPE_CHECKING:
    import onnx


class OperatorKind(Enum):
    """Kinds of operators that have kernels of their own."""

    CONV = "conv"
    GROUPED = "grouped"
    DEPTHWISE = "depthwise"
    TRANSPOSED = "transposed"
    GEMM = "gemm"
    MATMUL = "matmul"


@dataclass(frozen=True, slots=True)
class OperatorSize:
    """An operator and its size.

    inputs, outputs: channels, or columns. rows: batch · output height · width, or batch · tokens: a convolution is a
    matrix product of that many rows. kernel: its height and width, of two different ones the geometric mean. width:
    channels of a group, 0 for one group. curved: an activation with a curve follows it, like SiLU.
    """

    kind: OperatorKind
    inputs: int
    outputs: int
    rows: int
    kernel: float = 1
    stride: int = 1
    width: int = 0
    curved: bool = False

    @property
    def operations(self) -> float:
        """Multiplications."""
        return self.rows * self.outputs * (self.width or self.inputs) * self.kernel**2

    @property
    def words(self) -> str:
        """The operator in words: `3×3 convolution, 64 → 64 channels, 3,136 rows`."""
        kernel = (
            f"{self.kernel:g}×{self.kernel:g} " if self.kind not in (OperatorKind.GEMM, OperatorKind.MATMUL) else ""
        )
        return f"{kernel}{self.kind.value}, {self.inputs} → {self.outputs} channels, {self.rows:,} rows"


def operator_size(
    wires: GraphIndex, number: int, shapes: Mapping[str, tuple[int, ...] | None], *, curved: bool
) -> OperatorSize | None:
    """Return the size of a node with weights; None where shapes are unknown, or no operand is a weight."""
    node = wires.nodes[number]
    shape, constant = shapes.get(node.output[0]), [k for k, name in enumerate(node.input[:2]) if name in wires.weights]
    if shape is None or len(constant) != 1:
        return None
    dims = tuple(wires.weights[node.input[constant[0]]].dims)
    if len(dims) < 2 or not all(dims) or not all(shape):
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        return convolution_size(node, dims, shape, curved=curved)
    outputs = dims[weight_axis(node, constant[0], len(dims))]
    kind = OperatorKind.GEMM if node.op_type == "Gemm" else OperatorKind.MATMUL
    inputs = math.prod(dims[-2:]) // outputs
    return OperatorSize(kind, inputs, outputs, math.prod(shape) // outputs, curved=curved)


def convolution_size(
    node: onnx.NodeProto, dims: tuple[int, ...], shape: tuple[int, ...], *, curved: bool
) -> OperatorSize:
    """Return the size of a convolution. dims: of its weights; shape: of its output."""
    groups = convolution_groups(node)
    strides = next((list(a.ints) for a in node.attribute if a.name == "strides"), [1])
    kernel = math.prod(dims[2:]) ** (1 / max(len(dims) - 2, 1))
    transposed = node.op_type == "ConvTranspose"
    inputs, outputs = (dims[0], dims[1] * groups) if transposed else (dims[1] * groups, dims[0])
    width = inputs // groups if groups > 1 else 0
    if transposed:
        kind = OperatorKind.TRANSPOSED
    else:
        kind = OperatorKind.CONV if groups == 1 else OperatorKind.DEPTHWISE if width == 1 else OperatorKind.GROUPED
    rows = shape[0] * math.prod(shape[2:])
    return OperatorSize(kind, inputs, outputs, rows, round(kernel, 3), max(strides), width, curved)

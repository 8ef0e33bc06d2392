"""Convolutions whose INT8 kernels in TensorRT 8 write INT8 alone, or are slow.

Measured with TensorRT 8.6: docs/decisions/0018-kernels-that-write-int8.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quantkit.graph.index import GraphIndex
from quantkit.graph.operators import ACTIVATIONS, CLIPPING, COMMUTING, CONVOLUTIONS, convolution_groups
from quantkit.qdq.float_reason import FloatCause, FloatReason
from quantkit.qdq.patterns.residual_adds import comes_from_weighted

if TYPE_CHECKING:
    import onnx

FLOAT_OUTPUT_FROM = 10
"""The first major version of TensorRT with INT8 kernels for depthwise convolutions that write float."""
DEPTHWISE = "depthwise"
HARD_SWISH = "HardSwish"
FEW_CHANNELS = 3
"""The most input channels of convolutions that have special kernels: those of images."""
FAST_GROUPS = frozenset({1, 4, 8, 16, 32})
"""Channels of a group, and multiples of the largest, that are not known to have a slow INT8 kernel in TensorRT 8."""


def missing_int8_kernel(wires: GraphIndex, number: int, quantized: Mapping[int, tuple[int, ...]]) -> FloatReason | None:
    """Return why a quantized convolution should be float: TensorRT 8 has no kernel for it that writes float, or one
    that writes INT8 and is slow; None for all others. quantized: node → its inputs that are read behind a pair."""
    node, kind = wires.nodes[number], narrow_kind(wires, number)
    slow = "" if kind else slow_groups(wires, number)
    if not kind and not slow:
        return None
    written = writes_int8(wires, node.output[0], quantized, fused_with(kind) if kind else ACTIVATIONS)
    if slow:
        return FloatReason(FloatCause.SLOW_KERNEL, f"({slow})") if written else None
    if written or is_silu_of_quantized(wires, node.input[0], quantized):
        return None
    return FloatReason(FloatCause.FLOAT_OUTPUT, f"({kind})")


def narrow_kind(wires: GraphIndex, number: int) -> str:
    """Return what makes a convolution one whose INT8 kernels write INT8 alone in TensorRT 8; empty for all others."""
    node = wires.nodes[number]
    if node.op_type != "Conv" or node.input[1] not in wires.weights:
        return ""
    return narrow_kind_of(node, wires.weights[node.input[1]].dims)


def narrow_kind_of(convolution: onnx.NodeProto, weight: Sequence[int | None]) -> str:
    """Return the same of a Conv whose weights have the shape `weight`.

    Depthwise ones have no other kernel. Those with few input channels have, but one that computes 32 of them, behind a
    conversion of its own.
    """
    outputs, inputs = tuple(weight)[:2]
    groups = convolution_groups(convolution)
    if groups > 1:
        return DEPTHWISE if inputs == 1 and outputs == groups else ""
    return f"{inputs} input channels" if inputs is not None and inputs <= FEW_CHANNELS else ""


def fused_with(kind: str) -> frozenset[str]:
    """Return the activations inside the kernels of convolutions of a narrow kind; with Sigmoid, SiLU."""
    return CLIPPING | {"Sigmoid"} if kind == DEPTHWISE else ACTIVATIONS - {HARD_SWISH}


def slow_groups(wires: GraphIndex, number: int) -> str:
    """Return what makes the INT8 kernel of a grouped convolution slow in TensorRT 8, its width; empty for all others.

    Groups of 4, 16 and 32 channels have kernels of their own, or for tensor cores. Those of 24 have the one for any
    width, which took four to seven times as long as FP16 (docs/decisions/0018-kernels-that-write-int8.md).
    """
    node = wires.nodes[number]
    if node.op_type != "Conv" or node.input[1] not in wires.weights:
        return ""
    width = wires.weights[node.input[1]].dims[1]
    groups = convolution_groups(node)
    fast = width in FAST_GROUPS or width % max(FAST_GROUPS) == 0
    return "" if groups == 1 or fast else f"groups of {width} channels"


def writes_int8(
    wires: GraphIndex, tensor: str, quantized: Mapping[int, tuple[int, ...]], fused: frozenset[str] = ACTIVATIONS
) -> bool:
    """Return whether everything that reads a tensor reads it behind a pair, so that its kernel writes INT8.

    fused: activations that are part of the kernel, as a residual Add is; operators that move values move INT8.
    """
    if tensor in wires.outputs or wires.captured.get(tensor):
        return False
    through = COMMUTING | fused | {"BatchNormalization"}
    for reader, node in wires.uses(tensor):
        places = quantized.get(reader.number, ())
        if reader.place in places:
            continue
        moves = node.op_type in through and (reader.place == 0 or node.op_type == "Concat")
        fuses = moves or is_fused_silu(wires, node, fused) or (node.op_type == "Add" and len(places) == 1)
        if not fuses or not all(writes_int8(wires, name, quantized, fused) for name in node.output if name):
            return False
    return True


def is_fused_silu(wires: GraphIndex, node: onnx.NodeProto, fused: frozenset[str]) -> bool:
    """Return whether a node is the product of a SiLU that `fused` has, or of HardSwish written as x·hardsigmoid(x)."""
    if "Sigmoid" not in fused or not wires.is_silu(node):
        return False
    makers = [wires.maker(name) for name in node.input]
    return HARD_SWISH in fused or any(maker is not None and maker.op_type == "Sigmoid" for maker in makers)


def is_silu_of_quantized(wires: GraphIndex, tensor: str, quantized: Mapping[int, tuple[int, ...]]) -> bool:
    """Return whether a quantized convolution makes a tensor with x·sigmoid(x) behind it.

    TensorRT 8 fuses the two if INT8 is written, but not if it writes float; a conversion behind them costs less.
    """
    maker = wires.maker(tensor)
    if maker is None or not wires.is_silu(maker):
        return False
    return any(comes_from_weighted(wires, name, quantized, alone=False) for name in maker.input)


def reads_silu(wires: GraphIndex, number: int) -> bool:
    """Return whether a convolution reads a SiLU, which TensorRT 8 fuses with the one before it only for INT8."""
    maker = wires.maker(wires.nodes[number].input[0]) if wires.nodes[number].op_type in CONVOLUTIONS else None
    return maker is not None and wires.is_silu(maker)

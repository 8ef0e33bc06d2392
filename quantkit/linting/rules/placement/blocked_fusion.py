"""blocked-fusion: a pair between a convolution and what would fuse into it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from quantkit.graph.model import node_name
from quantkit.graph.operators import FUSED_BEHIND_CONVOLUTION
from quantkit.linting.finding import Defect
from quantkit.linting.neighbours import fusible_convolution, weight_shape
from quantkit.linting.rule import LintRule
from quantkit.qdq.patterns.int8_kernels import HARD_SWISH, narrow_kind_of
from quantkit.qdq.reader import QdqGraph

if TYPE_CHECKING:
    import onnx


def find_blocked_fusions(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield pairs between a convolution and the normalization or activation that would fuse into it."""
    for tensor in qdq.quantized:
        if tensor.quantize is None:
            continue
        convolution = fusible_convolution(qdq, tensor.quantize.data)
        readers = [reader for node in tensor.dequantize for _, reader in qdq.uses(node.result)]
        gates = {reader.output[0] for reader in readers if reader.op_type == "Sigmoid"}
        fusing = [
            reader
            for reader in readers
            if reader.op_type in FUSED_BEHIND_CONVOLUTION or (reader.op_type == "Mul" and gates & set(reader.input))
        ]
        if convolution is None or not fusing or len(fusing) < len(readers):
            continue
        if all(reader.op_type == HARD_SWISH for reader in fusing) and is_narrow(qdq, convolution):
            continue  # no INT8 kernel takes the HardSwish in: docs/decisions/0029-what-reads-int8.md
        names = " and ".join(dict.fromkeys(reader.op_type for reader in fusing))
        yield Defect(
            tensor.quantize.name,
            f"the pair between {convolution.op_type} {node_name(convolution)!r} and {names} keeps them from fusing",
            f"quantize after {names} instead",
        )


def is_narrow(qdq: QdqGraph, node: onnx.NodeProto) -> bool:
    """Return whether a node is a convolution whose INT8 kernels write INT8 alone in TensorRT 8."""
    shape = weight_shape(qdq, node)
    return node.op_type == "Conv" and shape is not None and bool(narrow_kind_of(node, shape))


RULE = LintRule(
    "blocked-fusion",
    "slow",
    "a pair between a convolution and the BatchNormalization or activation that would fuse into it",
    find_blocked_fusions,
)

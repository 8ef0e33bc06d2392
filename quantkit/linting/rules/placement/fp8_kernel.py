"""fp8-kernel: convolutions in FP8 for which TensorRT has no FP8 kernel."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.model import node_name
from quantkit.linting.finding import Defect
from quantkit.linting.neighbours import weight_shape
from quantkit.linting.rule import LintRule
from quantkit.qdq.layer_counts import operator_types
from quantkit.qdq.reader import QdqGraph
from quantkit.qdq.weighted_operators import missing_fp8_kernel
from quantkit.values import QuantizedType


def find_missing_kernels(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield convolutions that are FP8 by their Q/DQ, and have too few channels or too many taps for TensorRT's kernels.

    TensorRT-RTX has kernels for all of them.
    """
    type_of = operator_types(qdq.model)
    for node in qdq.nodes:
        if type_of(node) is not QuantizedType.FP8:
            continue
        if missing := missing_fp8_kernel(node, weight_shape(qdq, node)):
            yield Defect(
                node_name(node),
                f"TensorRT has no FP8 kernel for this {node.op_type} {missing}",
                "leave it float, or quantize it to INT8; TensorRT-RTX has such kernels",
            )


RULE = LintRule("fp8-kernel", "slow", "a convolution in FP8 for which TensorRT has no FP8 kernel", find_missing_kernels)

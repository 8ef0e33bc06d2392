"""not-int8: quantization to another type than INT8 and FP8 (E4M3)."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.model import node_name
from quantkit.linting.finding import Defect
from quantkit.linting.quantized_tensors import FP8, is_int32_bias
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph

REMEDY = "quantize to INT8, or to FP8: quantkit quantize --type fp8"


def find_other_types(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield operators of TensorRT's exporters for other types, and tensors that are neither int8, uint8 nor E4M3."""
    for node in qdq.nodes:
        if node.op_type.startswith("TRT_") and "quantize" in node.op_type.lower():
            yield Defect(node_name(node), f"{node.op_type} is not INT8", REMEDY)
    for tensor in qdq.quantized:
        first = tensor.nodes[0]
        if first.stored not in ("int8", "uint8", FP8, "") and not is_int32_bias(qdq, tensor):
            yield Defect(
                first.name,
                f"{first.stored}, neither INT8 nor FP8 (E4M3): TensorRT 8.6 … 10 has no kernels for it, or requires "
                "another network type",
                REMEDY,
            )


RULE = LintRule("not-int8", "error", "16-bit and 4-bit types, and 8-bit floats other than E4M3", find_other_types)

"""zero-point: asymmetric quantization."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.linting.finding import Defect
from quantkit.linting.quantized_tensors import SYMMETRIC, eight_bit_tensors, range_text, zero_point_range
from quantkit.linting.rule import LintRule
from quantkit.linting.rules.parsing.uint8 import is_positive, is_shifted_int8
from quantkit.qdq.reader import QdqGraph, QuantizedTensor


def find_zero_points(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield tensors whose zero point is not 0, in uint8 neither 0 nor 128."""
    for tensor in eight_bit_tensors(qdq):
        if tensor.nodes[0].stored != "uint8":
            yield from find_signed_zero_points(qdq, tensor)
        elif not is_shifted_int8(tensor) and not is_positive(tensor):
            zero = range_text(*zero_point_range(node.zero for node in tensor.nodes))
            yield Defect(tensor.nodes[0].name, f"uint8 with zero point {zero}; TensorRT requires 0", SYMMETRIC)


def find_signed_zero_points(qdq: QdqGraph, tensor: QuantizedTensor) -> Iterator[Defect]:
    """Yield the nodes of an int8 tensor up to the first whose zero point is not 0."""
    for node in tensor.nodes:
        if node.zero_name and node.zero is None:
            if node.zero_name not in qdq.constants:
                yield Defect(node.name, "the zero point is not constant; TensorRT requires 0", SYMMETRIC)
            continue
        low, high = zero_point_range([node.zero])
        if low or high:
            yield Defect(node.name, f"zero point {range_text(low, high)}; TensorRT requires 0", SYMMETRIC)
            return


RULE = LintRule(
    "zero-point",
    "error",
    "asymmetric quantization is only for DLA",
    find_zero_points,
    fix_summary="no: other scales are other numbers; quantize again",
)

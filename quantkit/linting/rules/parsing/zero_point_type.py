"""zero-point-type: a zero point of 0 in a form that TensorRT does not accept."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.linting.finding import Defect
from quantkit.linting.graph_edit import GraphEdit
from quantkit.linting.quantized_tensors import eight_bit_tensors, write_int8_zero
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph, QdqNode, QuantizedTensor


def find_zero_point_forms(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield nodes of int8 tensors whose zero point is 0 in a wrong form."""
    for tensor in eight_bit_tensors(qdq):
        for node in symmetric_nodes(tensor) if tensor.nodes[0].stored != "uint8" else ():
            wrong = form_problem(qdq, node)
            if wrong:
                yield Defect(node.name, wrong, "write an int8 zero for every scale", fixable=True)


def symmetric_nodes(tensor: QuantizedTensor) -> Iterator[QdqNode]:
    """Yield the nodes with zero point 0 up to the first with another; those with an unknown one are left out."""
    for node in tensor.nodes:
        if node.zero is not None and node.zero.any():
            return
        if node.zero is not None or not node.zero_name:
            yield node


def form_problem(qdq: QdqGraph, node: QdqNode) -> str | None:
    """Return what is wrong with the form of a zero point of 0 of an int8 node."""
    if node.stored != "int8":
        return None
    if not node.zero_name:
        return "no zero point, which TensorRT 8 does not parse"
    kind = qdq.types.get(node.zero_name, "")
    if kind != node.stored:
        return f"the zero point is {kind}, the tensor {node.stored}"
    if node.scale is not None and node.zero is not None and node.zero.size != node.scale.size:
        return f"{node.zero.size} zero points for {node.scale.size} scales"
    return None


def write_zero_points(edit: GraphEdit) -> None:
    """Write zero points of 0 as int8, one for every scale."""
    for tensor in eight_bit_tensors(edit.qdq):
        for node in tensor.nodes if tensor.nodes[0].stored == "int8" else ():
            absent = node.zero is None and not node.zero_name
            zero = absent or (node.zero is not None and not node.zero.any())
            if zero and form_problem(edit.qdq, node):
                write_int8_zero(edit, node)


RULE = LintRule(
    "zero-point-type",
    "error",
    "a zero point of 0 that is absent, of another type, or not one for every scale",
    find_zero_point_forms,
    write_zero_points,
    "int8 zeros",
)

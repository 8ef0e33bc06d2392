"""scale-shape: scales of weights that are not one for every channel."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.linting.finding import Defect
from quantkit.linting.quantized_tensors import distinct_nodes, eight_bit_tensors
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph


def find_scale_shapes(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield nodes with several scales that do not fit the channels of a stored tensor."""
    for tensor in eight_bit_tensors(qdq):
        for node in distinct_nodes(tensor):
            dims = qdq.shapes.get(node.data) or qdq.shapes.get(node.result)
            if node.scale is None or not node.per_channel or node.result not in qdq.constants or dims is None:
                continue
            if node.scale.ndim != 1 or not -len(dims) <= node.axis < len(dims):
                problem = f"scales of shape {list(node.scale.shape)} along axis {node.axis} of {list(dims)}"
                yield Defect(node.name, problem, "one scale, or a vector of one per output channel")
            elif dims[node.axis] not in (None, node.scale.size):
                problem = f"{node.scale.size} scales for {dims[node.axis]} channels along axis {node.axis}"
                yield Defect(node.name, problem, "quantize again")


RULE = LintRule("scale-shape", "error", "scales of weights that are not one for every channel", find_scale_shapes)

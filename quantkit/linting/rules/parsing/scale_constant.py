"""scale-constant: scales that are computed from the input."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.linting.finding import Defect
from quantkit.linting.quantized_tensors import distinct_nodes, eight_bit_tensors
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import FLOAT_SCALES, QdqGraph


def find_computed_scales(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield nodes whose float scale does not follow from stored values."""
    for tensor in eight_bit_tensors(qdq):
        for node in distinct_nodes(tensor):
            if node.scale_type in FLOAT_SCALES and node.scale is None and node.scale_name not in qdq.constants:
                problem = f"the scale {node.scale_name!r} is computed from the input"
                yield Defect(node.name, problem, "quantize statically: calibrate, and store the scale")


RULE = LintRule("scale-constant", "error", "a scale that is computed from the input", find_computed_scales)

"""half-quantized: weighted operators with a pair on one input alone."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.model import node_name
from quantkit.graph.operators import WEIGHTED
from quantkit.linting.finding import Defect
from quantkit.linting.neighbours import has_dequantize_before
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph


def find_half_quantized(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield weighted operators of which one input has a pair and the other has none."""
    for node in qdq.nodes:
        if node.op_type not in WEIGHTED or len(node.input) < 2:
            continue
        covered = [has_dequantize_before(qdq, name) for name in node.input[:2]]
        if covered[0] == covered[1]:
            continue
        constant = [name in qdq.constants for name in node.input[:2]]
        kinds = ["weights" if c else "activation" for c in constant]
        kinds = kinds if any(constant) else ["first input", "second input"]
        having, lacking = kinds[covered.index(True)], kinds[covered.index(False)]
        yield Defect(
            node_name(node),
            f"{node.op_type} runs in float: Q/DQ before its {having}, none before its {lacking}",
            "give both a pair, or neither",
        )


RULE = LintRule(
    "half-quantized",
    "slow",
    "of activation and weights only one has Q/DQ: the operator runs in float",
    find_half_quantized,
)

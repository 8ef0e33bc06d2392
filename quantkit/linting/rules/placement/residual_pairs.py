"""residual-pairs: a pair on both inputs of a residual addition."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.model import node_name
from quantkit.linting.finding import Defect
from quantkit.linting.neighbours import fusible_convolution
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph


def find_residual_pairs(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield additions with a pair on both inputs that could have fused into a convolution."""
    for node in qdq.nodes:
        if node.op_type != "Add" or len(node.input) != 2 or any(name in qdq.constants for name in node.input):
            continue
        pairs = [qdq.quantizer(name) for name in node.input]
        for pair, name in zip(pairs, node.input, strict=True):
            fuses = pair is not None and all(pairs) and qdq.has_sole_reader(name)
            convolution = fusible_convolution(qdq, pair.data) if pair is not None and fuses else None
            if pair is not None and convolution is not None:
                yield Defect(
                    node_name(node),
                    f"both inputs have a pair, so that the addition does not fuse into {node_name(convolution)!r}",
                    f"remove the pair of {pair.name!r}; the skip keeps its own",
                )
                break


RULE = LintRule(
    "residual-pairs",
    "slow",
    "a pair on both inputs of an addition after a convolution; only the skip should have one",
    find_residual_pairs,
)

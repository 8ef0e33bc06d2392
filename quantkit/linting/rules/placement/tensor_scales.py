"""tensor-scales: one activation with several scales."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.linting.equal_pairs import group_quantizers, scale_range_text
from quantkit.linting.finding import Defect
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph


def find_tensor_scales(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield activations that are quantized in more than one way."""
    for tensor, groups in group_quantizers(qdq).items():
        if len(groups) > 1:
            firsts = [group[0] for group in groups]
            problem = f"{tensor!r} is quantized with {len(groups)} scales ({scale_range_text(firsts)})"
            yield Defect(firsts[0].name, problem, "one scale and one pair for all that read it")


RULE = LintRule("tensor-scales", "slow", "one activation with several scales", find_tensor_scales)

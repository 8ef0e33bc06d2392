"""subnormal-scale: scales below the least normal number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from quantkit.linting.finding import Defect
from quantkit.linting.quantized_tensors import distinct_nodes, eight_bit_tensors
from quantkit.linting.rule import LintRule
from quantkit.numerics import TINY
from quantkit.qdq.reader import QdqGraph


def find_subnormal_scales(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield nodes with positive float32 scales of which some are subnormal."""
    for tensor in eight_bit_tensors(qdq):
        for node in distinct_nodes(tensor):
            if node.scale is None or node.scale_type != "float32":
                continue
            scale = np.asarray(node.scale, np.float64).ravel()
            if ((scale > 0) & np.isfinite(scale)).all() and (scale < TINY).any():
                problem = f"scale {scale.min():g} is subnormal: a GPU may treat it as 0"
                yield Defect(node.name, problem, f"raise it to {TINY:g}")


RULE = LintRule("subnormal-scale", "accuracy", "a GPU may treat it as 0", find_subnormal_scales)

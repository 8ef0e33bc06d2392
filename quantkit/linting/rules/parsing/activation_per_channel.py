"""activation-per-channel: several scales on an activation."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.linting.finding import Defect
from quantkit.linting.quantized_tensors import distinct_nodes, eight_bit_tensors
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph


def find_activations_per_channel(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield nodes with several scales whose tensor depends on the input."""
    for tensor in eight_bit_tensors(qdq):
        for node in distinct_nodes(tensor):
            if node.scale is not None and node.per_channel and node.result not in qdq.constants:
                problem = f"{node.scale.size} scales on an activation; TensorRT accepts one"
                yield Defect(node.name, problem, "quantize activations per tensor")


RULE = LintRule("activation-per-channel", "error", "activations have one scale", find_activations_per_channel)

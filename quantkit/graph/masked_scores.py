"""Masked scores: what only a Softmax reads, or another operator to which a large negative number means `leave out`.

Where(mask, scores, lowest) and Add(scores, mask) write such numbers: −Inf, the least number of a type, −10⁹, −10⁴.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantkit.graph.operators import MASK_IGNORING, MASK_PASSING

if TYPE_CHECKING:
    from quantkit.graph.index import GraphIndex


def masked_scores(wires: GraphIndex) -> frozenset[str]:
    """Return the tensors that reach operators of `MASK_IGNORING`, through those of `MASK_PASSING`, and no others."""
    found: set[str] = set()
    for number in reversed(range(len(wires.nodes))):
        for tensor in wires.nodes[number].output:
            if tensor and leads_to_selection(wires, tensor, found):
                found.add(tensor)
    return frozenset(found | {name for name in wires.inputs if leads_to_selection(wires, name, found)})


def leads_to_selection(wires: GraphIndex, tensor: str, found: set[str]) -> bool:
    """Return whether every reader of a tensor ignores large negative numbers, or passes them on to such."""
    readers = wires.consumers(tensor)
    if not readers or tensor in wires.outputs or wires.captured.get(tensor):
        return False
    return all(
        node.op_type in MASK_IGNORING
        or (node.op_type in MASK_PASSING and all(name in found for name in node.output if name))
        for node in readers
    )

"""Masked scores: what only a Softmax reads, or another operator to which a large negative number means `leave out`.

Where(mask, scores, lowest) and Add(scores, mask) write such numbers: −Inf, the least number of a type, −10⁹, −10⁴.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from quantkit.graph.operators import MASK_IGNORING, MASK_INPUTS, MASK_PASSING
from quantkit.graph.subgraphs import captured_names

if TYPE_CHECKING:
    import onnx


def masked_scores(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the tensors that reach operators of `MASK_IGNORING`, through those of `MASK_PASSING`, and no others."""
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    visible = {value.name for value in graph.output} | {name for node in graph.node for name in captured_names(node)}
    found: set[str] = set()
    for node in reversed(graph.node):
        found |= {name for name in node.output if name not in visible and leads_to_selection(name, readers, found)}
    inputs = {value.name for value in graph.input} - visible
    return frozenset(found | {name for name in inputs if leads_to_selection(name, readers, found)})


def leads_to_selection(tensor: str, readers: Mapping[str, Sequence[onnx.NodeProto]], found: Collection[str]) -> bool:
    """Return whether every reader of a tensor ignores large negative numbers, or passes them on to such."""
    return tensor in readers and all(
        node.op_type in MASK_IGNORING
        or [k for k, name in enumerate(node.input) if name == tensor] == [MASK_INPUTS.get((node.domain, node.op_type))]
        or (node.op_type in MASK_PASSING and all(name in found for name in node.output if name))
        for node in readers[tensor]
    )

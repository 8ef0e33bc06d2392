"""The number of weighted operators that compute in INT8 according to a Q/DQ graph."""

from __future__ import annotations

from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.index import wire_graph
from quantkit.graph.model import Model
from quantkit.graph.operators import WEIGHTED
from quantkit.qdq.reader import is_dequantized


def count_int8_layers(model: Model) -> tuple[int, int]:
    """Count the weighted operators whose activation and weight both come out of a DequantizeLinear, and all of them.

    Operators that only move values may lie between. Operators inside subgraphs are not counted.
    """
    wiring, constants = wire_graph(model.proto.graph), constant_tensors(model.proto.graph)
    weighted = [n for n in wiring.nodes if n.op_type in WEIGHTED and any(name in constants for name in n.input[:2])]
    return sum(all(is_dequantized(wiring, name) for name in node.input[:2]) for node in weighted), len(weighted)

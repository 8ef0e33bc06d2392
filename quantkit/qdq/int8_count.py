"""The number of operators with weights that compute in INT8 according to a Q/DQ graph."""

from __future__ import annotations

from quantkit.graph.index import wire_graph
from quantkit.graph.model import Model
from quantkit.graph.operators import WEIGHTED, computes_in_integers
from quantkit.graph.subgraphs import all_nodes
from quantkit.qdq.reader import is_dequantized
from quantkit.qdq.weighted_operators import weighted_operators


def count_int8_layers(model: Model) -> tuple[int, int]:
    """Count the operators whose activation and weight both come out of a DequantizeLinear, and all with weights.

    Operators that only move values may lie between. Those inside If, Loop, Scan and functions are counted too, and so
    are LSTM and others that no Q/DQ makes INT8; integer operators, which are neither, are not.
    """
    wiring = wire_graph(type(model.proto.graph)(node=all_nodes(model.proto.graph)))
    found = weighted_operators(model.proto)
    nodes = [operator.node for operator in found if not computes_in_integers(operator.node)]
    quantized = [
        node for node in nodes if node.op_type in WEIGHTED and all(is_dequantized(wiring, n) for n in node.input[:2])
    ]
    return len(quantized), len(nodes)

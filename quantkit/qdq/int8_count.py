"""The operators with weights that compute in INT8 according to a Q/DQ graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from quantkit.graph.index import wire_graph
from quantkit.graph.model import Model
from quantkit.graph.operators import WEIGHTED, computes_in_integers
from quantkit.graph.subgraphs import all_nodes
from quantkit.qdq.reader import is_dequantized
from quantkit.qdq.weighted_operators import weighted_operators

if TYPE_CHECKING:
    import onnx


def count_int8_layers(model: Model) -> tuple[int, int]:
    """Count the operators whose activation and weight both come out of a DequantizeLinear, and all with weights.

    Operators that only move values may lie between. Those inside If, Loop, Scan and functions are counted too, and so
    are LSTM and others that no Q/DQ makes INT8; integer operators, which are neither, are not.
    """
    found = weighted_operators(model.proto)
    nodes = [operator.node for operator in found if not computes_in_integers(operator.node)]
    return sum(map(is_int8_operator(model), nodes)), len(nodes)


def is_int8_operator(model: Model) -> Callable[[onnx.NodeProto], bool]:
    """Return a function that says whether an operator of the network computes in INT8 according to its Q/DQ."""
    wiring = wire_graph(type(model.proto.graph)(node=all_nodes(model.proto.graph)))

    def found(node: onnx.NodeProto) -> bool:
        return node.op_type in WEIGHTED and all(is_dequantized(wiring, name) for name in node.input[:2])

    return found

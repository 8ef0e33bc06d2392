"""The operators with weights that compute in INT8 or in FP8 according to a Q/DQ graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from quantkit.graph.index import wire_graph
from quantkit.graph.model import Model
from quantkit.graph.operators import WEIGHTED, computes_in_integers
from quantkit.graph.shape_inference import FP8
from quantkit.graph.subgraphs import all_nodes
from quantkit.graph.weights import stored_tensors
from quantkit.qdq.reader import DEQUANTIZE, is_dequantized, is_qdq, moved_tensors
from quantkit.qdq.weighted_operators import weighted_operators
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    import onnx


def count_int8_layers(model: Model) -> tuple[int, int]:
    """Count the operators that compute in INT8, and all with weights; see `count_layers`."""
    return count_layers(model, QuantizedType.INT8)


def count_fp8_layers(model: Model) -> int:
    """Count the operators that compute in FP8; see `count_layers`."""
    return count_layers(model, QuantizedType.FP8)[0]


def count_layers(model: Model, quantized_type: QuantizedType) -> tuple[int, int]:
    """Count the operators whose activation and weight both come out of a DequantizeLinear of a type, and all with
    weights.

    Operators that only move values may lie between. Those inside If, Loop, Scan and functions are counted too, and so
    are LSTM and others that no Q/DQ quantizes; integer operators, which are neither, are not.
    """
    found = weighted_operators(model.proto)
    nodes = [operator.node for operator in found if not computes_in_integers(operator.node)]
    return Counter(map(operator_types(model), nodes))[quantized_type], len(nodes)


def operator_types(model: Model) -> Callable[[onnx.NodeProto], QuantizedType | None]:
    """Return a function that gives the type in which an operator of the network computes according to its Q/DQ.

    None: in float, or from two inputs of different types.
    """
    wiring = wire_graph(type(model.proto.graph)(node=all_nodes(model.proto.graph)))
    in_fp8 = fp8_tensors(model)

    def found(node: onnx.NodeProto) -> QuantizedType | None:
        if node.op_type not in WEIGHTED or not all(is_dequantized(wiring, name) for name in node.input[:2]):
            return None
        kinds = {name in in_fp8 for read in node.input[:2] for name in moved_tensors(wiring, read)}
        if len(kinds) > 1:
            return None
        return QuantizedType.FP8 if True in kinds else QuantizedType.INT8

    return found


def fp8_tensors(model: Model) -> set[str]:
    """Return the float tensors that a DequantizeLinear makes of FP8 numbers."""
    nodes = [node for node in all_nodes(model.proto.graph) if is_qdq(node)]
    known = {name for name, tensor in stored_tensors(model.proto.graph).items() if tensor.data_type == FP8}
    for node in nodes:
        wanted = any(a.name == "output_dtype" and a.i == FP8 for a in node.attribute)
        if node.op_type != DEQUANTIZE and (wanted or (len(node.input) > 2 and node.input[2] in known)):
            known.add(node.output[0])
    dequantizes = [node for node in nodes if node.op_type == DEQUANTIZE]
    return {node.output[0] for node in dequantizes if not known.isdisjoint((node.input[0], *node.input[2:3]))}

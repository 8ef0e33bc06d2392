"""How many operators with weights compute in INT8, as far as a Q/DQ graph says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.model import Model
from quantkit.graph.operators import COMMUTING, WEIGHTED

if TYPE_CHECKING:
    import onnx


def count_int8_layers(model: Model) -> tuple[int, int]:
    """Operators with weights whose activation and weight both come out of DequantizeLinear, and all with weights.

    Operators that only move values may stand between. Operators inside subgraphs are not counted.
    """
    graph = model.proto.graph
    constants = constant_tensors(graph.node, {tensor.name for tensor in graph.initializer})
    makers = {name: node for node in graph.node for name in node.output if name}
    weighted = [n for n in graph.node if n.op_type in WEIGHTED and any(name in constants for name in n.input[:2])]
    return sum(all(dequantized(name, makers) for name in node.input[:2]) for node in weighted), len(weighted)


def dequantized(tensor: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a tensor comes out of DequantizeLinear, moved at most."""
    while (node := makers.get(tensor)) is not None:
        if node.op_type == "DequantizeLinear":
            return True
        if node.op_type not in COMMUTING:
            return False
        tensor = node.input[0]
    return False

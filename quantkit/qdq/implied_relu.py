"""ReLUs that a Q/DQ network leaves to the range of a pair, restored as nodes.

    Conv → Q(−128) → DQ → Conv        Conv → Relu → Q(−128) → DQ → Conv

A zero point at the least integer of its type (int8 −128, uint8 0) has no integer left for negative values: the pair
cuts them off. Some tools remove the Relu before such a pair (onnxruntime does, when it quantizes asymmetrically).
Without the pair nothing would do its work. None is restored if the tensor is never negative anyway, nor behind an
input of the network, since no tool removes one there. The upper end of the range comes from calibration: the bound of
a Clip that was removed cannot be recovered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.index import wire_graph
from quantkit.graph.model import Model
from quantkit.graph.names import tensor_names, unique_name
from quantkit.graph.node_edits import insert_behind
from quantkit.graph.operators import NON_NEGATIVE, NON_NEGATIVE_OF_ALL, NON_NEGATIVE_OF_FIRST, QDQ_DOMAINS
from quantkit.graph.weights import is_small, stored_tensors
from quantkit.qdq.grid import Grid, integer_limits
from quantkit.qdq.pairs import FoundPairs

if TYPE_CHECKING:
    import onnx


def restore_relus(model: Model, found: FoundPairs) -> tuple[Model, tuple[str, ...]]:
    """Return the network with its lost ReLUs, and the tensors that they make. The model itself is not modified.

    The tensor keeps its name behind the Relu if only such pairs read it.
    """
    wanted = find_lost_relus(model, found)
    if not wanted:
        return model, ()
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    changed = replace(model, proto=proto)
    return changed, tuple(insert_relu(proto.graph, tensor, pairs) for tensor, pairs in wanted.items())


def find_lost_relus(model: Model, found: FoundPairs) -> dict[str, set[str]]:
    """Return tensor → the quantized tensors of the pairs that cut off its negative values."""
    graph = model.proto.graph
    constants = constant_tensors(graph)
    made = {name for node in graph.node for name in node.output} - constants
    cutting: dict[str, set[str]] = {}
    for pair in found.pairs:
        if pair.tensor in made and is_non_negative_grid(pair.grid):
            cutting.setdefault(pair.tensor, set()).add(pair.quantized)
    if not cutting:
        return {}
    cut = [name for pair in found.pairs if is_non_negative_grid(pair.grid) for name in pair.dequantized]
    positive = non_negative_tensors(model, cut)
    return {tensor: pairs for tensor, pairs in cutting.items() if tensor not in positive}


def is_non_negative_grid(grid: Grid) -> bool:
    """Return whether no integer of a grid stands for a negative number."""
    return "int" in grid.type and grid.zero is not None and bool((grid.zero == integer_limits(grid.type)[0]).all())


def non_negative_tensors(model: Model, known: Iterable[str]) -> set[str]:
    """Return the tensors that are certainly never negative. known: some of them."""
    from onnx import numpy_helper

    weights = stored_tensors(model.proto.graph)
    found = set(known)
    for name, tensor in weights.items():
        if is_small(tensor) and not (numpy_helper.to_array(tensor) < 0).any():
            found.add(name)
    for node in model.proto.graph.node:
        if node.domain in QDQ_DOMAINS and is_non_negative_node(node, found):
            found.update(name for name in node.output if name)
    return found


def is_non_negative_node(node: onnx.NodeProto, found: Collection[str]) -> bool:
    """Return whether a node makes nothing negative. found: tensors that are known not to be."""
    inputs = [name for name in node.input if name]
    kind = node.op_type
    if kind in NON_NEGATIVE:
        return True
    if kind in NON_NEGATIVE_OF_ALL:
        # ReduceSum and others may take their axes as an input
        data = inputs[:1] if kind.startswith("Reduce") else inputs
        return all(name in found for name in data) or (kind == "Mul" and len(set(inputs)) == 1)
    if kind == "Max":
        return any(name in found for name in inputs)
    if kind == "Clip":
        low = [a.f for a in node.attribute if a.name == "min"]
        return inputs[0] in found or (node.input[1] in found if len(node.input) > 1 else bool(low) and low[0] >= 0)
    if kind == "Resize":
        return inputs[0] in found and not any(a.name == "mode" and a.s == b"cubic" for a in node.attribute)
    if kind == "Pad":
        value = node.input[2] if len(node.input) > 2 else ""
        negative = any(a.name == "value" and a.f < 0 for a in node.attribute)
        return inputs[0] in found and not negative and (not value or value in found)
    return kind in NON_NEGATIVE_OF_FIRST and bool(inputs) and inputs[0] in found


def insert_relu(graph: onnx.GraphProto, tensor: str, pairs: set[str]) -> str:
    """Insert a Relu behind a tensor, in front of pairs, in place; return the name of its output."""
    from onnx import helper

    names = tensor_names(graph)
    wiring = wire_graph(graph)
    read_by_pairs = all(pairs.intersection(node.output) for node in wiring.consumers(tensor))
    alone = read_by_pairs and tensor not in wiring.outputs
    if alone:
        source, result = unique_name(f"{tensor}_before_relu", names), tensor
        for node in graph.node:
            for place, name in enumerate(node.output):
                if name == tensor:
                    node.output[place] = source
    else:
        source, result = tensor, unique_name(f"{tensor}_relu", names)
        for node in graph.node:
            if pairs.intersection(node.output):
                node.input[0] = result
    name = unique_name(f"{tensor}_Relu", {node.name for node in graph.node})
    insert_behind(graph, {source: helper.make_node("Relu", [source], [result], name)})
    return result

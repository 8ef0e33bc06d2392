"""Detection heads: the operators in front of box decoding, found from the structure of the graph and from ranges.

Boxes and scores leave such a network in one tensor, over several orders of magnitude: one scale for both loses one of
them. A head is recognised by what follows its last weighted operators up to the output of the graph:

    a Concat, or the selection of boxes, that joins the results     levels, or boxes and scores
    of several weighted operators
    and one of     NonMaxSuppression or TopK
                   arithmetic with a grid or anchors                a constant with many values
                   inputs of a Concat of very different range       by a factor of more than `SPREAD`
                   scores beside other values in a Concat           behind a Sigmoid or Softmax, and behind none
                   a Softmax whose classes are summed up            distributions over distances

Its last weighted operators, and that sum, stay float. Names play no role.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from quantkit.graph.index import GraphIndex
from quantkit.graph.model import node_name
from quantkit.graph.operators import BOX_SELECTING, COMMUTING, DECODING_ARITHMETIC, WEIGHTED

if TYPE_CHECKING:
    import onnx

SPREAD = 8.0
SCORING = frozenset({"HardSigmoid", "Sigmoid", "Softmax"})
"""What makes scores of the results of a network."""
GRID = 64
"""The least number of values of a grid; it has more than one axis, while a bias is a vector."""


@dataclass(slots=True)
class Tail:
    """The operators between a graph output and the last weighted operators before it."""

    weighted: set[int] = field(default_factory=set)
    sums: set[int] = field(default_factory=set)
    joins: bool = False
    evidence: str = ""


def find_detection_heads(wires: GraphIndex, amax: Mapping[str, float]) -> dict[int, str]:
    """Return node number → evidence for a detection head; empty if the network detects nothing.

    amax: the largest |x| of tensors, if known.
    """
    tails = [walk_tail(wires, output, amax) for output in sorted(wires.outputs)]
    evidence = next((tail.evidence for tail in tails if tail.joins and tail.evidence), "")
    if not evidence:
        return {}
    return {
        number: f"detected from {evidence}"
        for tail in tails
        if tail.joins
        for number in sorted(tail.weighted | tail.sums)
    }


def walk_tail(wires: GraphIndex, output: str, amax: Mapping[str, float]) -> Tail:
    """Walk from a graph output up to the last weighted operators."""
    tail, waiting, seen = Tail(), [output], set()
    while waiting:
        tensor = waiting.pop()
        number = wires.makers.get(tensor)
        if number is None or number in seen:
            continue
        seen.add(number)
        node = wires.nodes[number]
        if node.op_type in WEIGHTED and any(name in wires.constants for name in node.input[:2]):
            if not is_softmax_sum(wires, node):
                tail.weighted.add(number)
                continue
            tail.sums.add(number)
            tail.evidence = tail.evidence or "a Softmax over distances"
        waiting.extend(wires.activations(number))
        tail.joins = tail.joins or joins_weighted(wires, node)
        tail.evidence = tail.evidence or decoding_evidence(wires, node, amax)
    return tail


def joins_weighted(wires: GraphIndex, node: onnx.NodeProto) -> bool:
    """Return whether a node concatenates results of different weighted operators, or selects one by another."""
    if node.op_type not in BOX_SELECTING | {"Concat", "Gather", "GatherElements", "GatherND"}:
        return False
    return len({first_weighted_before(wires, name) for name in node.input} - {None}) > 1


def first_weighted_before(wires: GraphIndex, tensor: str) -> int | None:
    """Return the first weighted operator that a tensor comes from, along first inputs first; None if there is none."""
    waiting, seen = [tensor], set[int]()
    while waiting:
        number = wires.makers.get(waiting.pop())
        if number is None or number in seen:
            continue
        seen.add(number)
        if wires.nodes[number].op_type in WEIGHTED:
            return number
        waiting += reversed(wires.activations(number))
    return None


def decoding_evidence(wires: GraphIndex, node: onnx.NodeProto, amax: Mapping[str, float]) -> str:
    """Return why a node appears to decode boxes; empty if it does not."""
    if node.op_type in BOX_SELECTING:
        return str(node.op_type)
    if node.op_type in DECODING_ARITHMETIC and any(is_grid(wires, name) for name in node.input):
        return f"arithmetic with a grid in {node.op_type} {node_name(node)}"
    if node.op_type == "Concat":
        ranges = [amax[name] for name in node.input if amax.get(name)]
        if len(ranges) > 1 and max(ranges) > SPREAD * min(ranges):
            where = node_name(node)
            return f"Concat {where} whose inputs have ranges {min(ranges):.3g} and {max(ranges):.3g}"
        if joins_scores(wires, node):
            return f"Concat {node_name(node)} of scores and other values"
    return ""


def joins_scores(wires: GraphIndex, node: onnx.NodeProto) -> bool:
    """Return whether some results of weighted operators that a Concat joins end in a Sigmoid or Softmax, others not."""
    computed = [name for name in node.input if first_weighted_before(wires, name) is not None]
    return len({maker_before_moves(wires, name) in SCORING for name in computed}) > 1


def maker_before_moves(wires: GraphIndex, tensor: str) -> str:
    """Return the operator that computes a tensor, seen through those that only move values; empty if there is none."""
    maker = wires.maker(tensor)
    while maker is not None and maker.op_type in COMMUTING:
        maker = wires.maker(maker.input[0])
    return "" if maker is None else str(maker.op_type)


def is_grid(wires: GraphIndex, name: str) -> bool:
    """Return whether a constant has many values along more than one axis, or for every position."""
    weight = wires.weights.get(name)
    shape = tuple(weight.dims) if weight is not None else wires.shapes.get(name, ()) if name in wires.constants else ()
    known = [size for size in shape if size]
    return len(known) == len(shape) > 1 and prod(known) >= GRID and max(known) < prod(known)


def is_softmax_sum(wires: GraphIndex, node: onnx.NodeProto) -> bool:
    """Return whether a convolution to one channel reads a Softmax: the expectation of a distribution."""
    weight = wires.weights.get(node.input[1]) if len(node.input) > 1 else None
    if node.op_type != "Conv" or weight is None or weight.dims[0] != 1:
        return False
    return maker_before_moves(wires, node.input[0]) == "Softmax"

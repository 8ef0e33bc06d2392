"""Residual Adds: which of their inputs has a pair, and which operator decides about its type."""

from __future__ import annotations

from collections.abc import Mapping

from quantkit.graph.index import GraphIndex
from quantkit.graph.operators import ACTIVATIONS, COMMUTING, WEIGHTED


def skip_inputs(wires: GraphIndex, number: int, quantized: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the inputs of an Add that get a pair: the one that is not the convolution it fuses into.

    If both come from convolutions, the skip is the one that the other is computed from (identity), or else the one with
    fewer weighted operators of its own (projection). If neither does, both; if a constant is added, none.
    """
    node = wires.nodes[number]
    if len(node.input) != 2 or any(name in wires.constants for name in node.input):
        return ()
    convolutions = [k for k in (0, 1) if comes_from_weighted(wires, node.input[k], quantized)]
    if not convolutions:
        return (0, 1)
    if len(convolutions) == 1:
        return (1 - convolutions[0],)
    made = [upstream_nodes(wires, node.input[k]) for k in (0, 1)]
    before = [wires.makers[node.input[k]] in made[1 - k] for k in (0, 1)]
    if any(before):
        return (before.index(True),)
    own = [sum(wires.nodes[n].op_type in WEIGHTED for n in made[k] - made[1 - k]) for k in (0, 1)]
    return (0,) if own[0] < own[1] else (1,)


def is_enlarged_skip(wires: GraphIndex, number: int, places: tuple[int, ...]) -> bool:
    """Return whether the input of a residual Add that would get a pair is made by a Resize.

    TensorRT 8.6 finds no kernel for a Resize in INT8 whose result a convolution adds (measured on feature pyramids).

    places: one input, the skip of an Add that fuses into a convolution; where both get pairs, nothing is fused.
    """
    if len(places) != 1:
        return False
    maker = wires.maker(wires.nodes[number].input[places[0]])
    return maker is not None and maker.op_type == "Resize"


def comes_from_weighted(
    wires: GraphIndex, tensor: str, quantized: Mapping[int, tuple[int, ...]], *, alone: bool = True
) -> bool:
    """Return whether a quantized weighted operator made a tensor, at most batch normalization or a bias in between.

    alone: nothing else may read any of them, so that what reads the tensor can be fused.
    """
    number = weighted_source(wires, tensor, alone=alone)
    return number is not None and number in quantized


def weighted_source(wires: GraphIndex, tensor: str, *, alone: bool = False) -> int | None:
    """Return the weighted operator that made a tensor, at most batch normalization or a bias in between.

    alone: None if anything else reads one of the tensors.
    """
    while (number := wires.makers.get(tensor)) is not None:
        if alone and (len(wires.readers.get(tensor, ())) > 1 or tensor in wires.outputs):
            return None
        node = wires.nodes[number]
        if node.op_type in WEIGHTED:
            return number
        inputs = wires.activations(number)
        if node.op_type not in ("BatchNormalization", "Identity", "Add") or len(inputs) != 1:
            return None
        tensor = inputs[0]
    return None


def upstream_nodes(wires: GraphIndex, tensor: str) -> set[int]:
    """Return all nodes that a tensor depends on."""
    waiting, seen = [tensor], set[int]()
    while waiting:
        number = wires.makers.get(waiting.pop())
        if number is not None and number not in seen:
            seen.add(number)
            waiting += wires.activations(number)
    return seen


def leader_of_add(wires: GraphIndex, number: int, quantized: Mapping[int, tuple[int, ...]]) -> int | None:
    """Return the weighted operator whose type an Add takes: the one that it fuses into, or else the first that reads
    its result behind a pair; None if there is neither."""
    node = wires.nodes[number]
    skips = skip_inputs(wires, number, quantized)
    for k in range(len(node.input)):
        if k not in skips and (found := weighted_source(wires, node.input[k])) is not None:
            return found
    readers = wires.uses_through(node.output[0], COMMUTING | ACTIVATIONS)
    behind = [r.number for r, n in readers if n.op_type in WEIGHTED and r.place in quantized.get(r.number, ())]
    return min(behind, default=None)

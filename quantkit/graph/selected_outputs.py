"""Outputs that hold values selected by their size (TopK, NMS), or their places (ArgMax), and what the selection reads.

Such an output cannot be compared value by value: a small error may change which values are selected, their order, and
how many there are. The tensors before the selection can.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.index import Wiring, wire_graph
from quantkit.graph.model import DTYPES
from quantkit.graph.operators import BOX_SELECTING, COMMUTING, QDQ, SHAPE_OPERATORS

if TYPE_CHECKING:
    import onnx

COUNTING = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})
"""Operators whose output has as many rows as values fulfil a condition."""
SELECTING = BOX_SELECTING | COUNTING
PLACING = frozenset({"ArgMax", "ArgMin"})
"""Operators that give places of values; what is computed from one is measured otherwise only where it is not float."""
MOVING = COMMUTING | QDQ | {"Cast"}


def selected_outputs(graph: onnx.GraphProto, outputs: Iterable[str]) -> list[str]:
    """Return the outputs that an operator of the network selects and sorts by size."""
    wiring = wire_graph(graph)
    return [name for name in outputs if is_selected(wiring, name)]


def is_selected(wiring: Wiring, name: str) -> bool:
    """Return True if the values were selected by their size: by an operator above that only moves values."""
    seen, left = set(), [name]
    while left:
        tensor = left.pop()
        node = wiring.maker(tensor)
        if node is None or tensor in seen:
            continue
        seen.add(tensor)
        if node.op_type in BOX_SELECTING:
            return True
        if node.op_type in MOVING:
            left.extend(node.input)
    return False


def comparable_tensors(graph: onnx.GraphProto, outputs: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return for each output the tensors to compare in its place: itself, or what the selection before it reads."""
    wiring, constants = wire_graph(graph), constant_tensors(graph)
    types = {output.name: DTYPES.get(output.type.tensor_type.elem_type, "") for output in graph.output}
    found = {}
    for name in outputs:
        before, counted = selection_inputs(wiring, constants, name, SELECTING)
        if not before and types.get(name, "").startswith(("int", "uint")):
            found[name] = tuple(selection_inputs(wiring, constants, name, PLACING)[0]) or (name,)
            continue
        replaced = before and (counted or is_selected(wiring, name))
        found[name] = tuple(before) if replaced else (name,)
    return found


def selection_inputs(
    wiring: Wiring, constants: Collection[str], name: str, kinds: Collection[str]
) -> tuple[list[str], bool]:
    """Return the computed inputs of the first operators of `kinds` that a tensor depends on, in graph order.

    Also return whether one of them decides how many values there are.
    """
    seen: set[str] = set()
    left, nodes = [name], set()
    while left:
        tensor = left.pop()
        number = wiring.makers.get(tensor)
        if number is None or tensor in seen or tensor in constants:
            continue
        seen.add(tensor)
        node = wiring.nodes[number]
        if node.op_type in kinds:
            nodes.add(number)
        if node.op_type not in SHAPE_OPERATORS:
            left.extend(node.input)
    first = [n for n in sorted(nodes) if not depends_on(wiring, n, nodes - {n})]
    inputs = [tensor for n in first for tensor in wiring.nodes[n].input if tensor and tensor not in constants]
    return list(dict.fromkeys(inputs)), any(wiring.nodes[n].op_type in COUNTING for n in nodes)


def depends_on(wiring: Wiring, number: int, others: Collection[int]) -> bool:
    """Return True if a node reads, directly or not, what one of the others makes."""
    seen: set[int] = set()
    left = [number]
    while left:
        for tensor in wiring.nodes[left.pop()].input:
            maker = wiring.makers.get(tensor)
            if maker in others:
                return True
            if maker is not None and maker not in seen:
                seen.add(maker)
                left.append(maker)
    return False

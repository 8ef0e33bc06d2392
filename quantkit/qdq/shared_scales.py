"""Tensors that are only moved: their shared scales, and the pair that all of their readers share.

The inputs of a Concat have one scale, and so have both sides of operators that only move values.

TensorRT 8 writes a tensor once, in INT8, if all that read it do so behind one pair; for a reader without one it keeps
a float copy, and converts that later (measured: docs/decisions/0018-kernels-that-write-int8.md). Newer compilers hand
INT8 on through what moves values by themselves.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from quantkit.graph.index import GraphIndex, TensorReader
from quantkit.graph.operators import (
    AVERAGE_POOLS,
    CLIPPING,
    COMMUTING,
    ONNX_DOMAINS,
    SCALE_SHARING,
    SHAPE_OPERATORS,
    WEIGHTED,
)
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class TypedScales:
    """The scales of a network. by_type: type → tensor → scale. A tensor has one of each type that the network uses."""

    by_type: Mapping[QuantizedType, Mapping[str, float]]

    @classmethod
    def of(cls, scales: AnyScales, quantized_type: QuantizedType) -> TypedScales:
        """Return scales by their types. quantized_type: of those that are given as one mapping."""
        return scales if isinstance(scales, TypedScales) else cls({quantized_type: scales})

    def shared(self, scale_of: Mapping[str, str]) -> TypedScales:
        """Return the scales with shared ones equal, within each type."""
        return TypedScales({kind: apply_shared_scales(each, scale_of) for kind, each in self.by_type.items()})


RESIZE = "Resize"
MOVING_WINDOWS = frozenset({"MaxPool", RESIZE})
"""Operators that move values to places of another size."""
MOVING_READERS = MOVING_WINDOWS | {"Concat"}
"""Operators that move values, and that TensorRT runs as kernels of their own."""

AnyScales: TypeAlias = "Mapping[str, float] | TypedScales"


def apply_shared_scales(scales: Mapping[str, float], scale_of: Mapping[str, str]) -> dict[str, float]:
    """Return the scales with shared ones equal; a tensor keeps its own if the shared one is missing."""
    return {**scales, **{name: scales[head] for name, head in scale_of.items() if scales.get(head)}}


def find_shared_scales(wires: GraphIndex, kept: Container[int] = (), apart: Container[int] = ()) -> dict[str, str]:
    """Return tensor → the tensor whose scale it takes, along Concat and operators that only move values.

    kept: nodes that stay float; a Concat that only these read forces nothing. apart: further nodes that force nothing.
    A group takes the scale of its last Concat that is read further on, or else that of its first tensor.
    """
    groups = TensorGroups()
    concats: list[str] = []
    for number in scale_sharing_nodes(wires, kept):
        inputs, output = wires.activations(number), wires.nodes[number].output[0]
        if wires.nodes[number].op_type == "Concat":
            for name in inputs:
                groups.join(output, name)
            concats.append(output)
        elif number not in apart:
            groups.join(inputs[0], output)
    heads = {groups.first(name): name for name in concats}
    return {
        name: head for name in groups.members() if (head := heads.get(groups.first(name), groups.first(name))) != name
    }


def scale_sharing_nodes(wires: GraphIndex, kept: Container[int]) -> list[int]:
    """Return the nodes whose tensors share a scale; of Concats, those that something outside `kept` reads quantized."""
    found = []
    for number, node in enumerate(wires.nodes):
        if node.op_type not in SCALE_SHARING or not wires.activations(number) or node.domain not in ONNX_DOMAINS:
            continue
        if node.op_type != "Concat" or any(
            n.op_type in WEIGHTED | AVERAGE_POOLS and r.number not in kept
            for r, n in wires.uses_through(node.output[0], COMMUTING | CLIPPING)
        ):
            found.append(number)
    return found


def move_sources(wires: GraphIndex, tensor: str) -> set[str]:
    """Return a tensor and those before it whose values it holds, up to the operator that made them.

    Empty if a Concat is among these, which makes one tensor of several.
    """
    found = {tensor}
    while (number := wires.makers.get(tensor)) is not None and wires.nodes[number].op_type in SCALE_SHARING:
        inputs = wires.activations(number)
        if wires.nodes[number].op_type == "Concat":
            return set()
        if not inputs:
            break
        tensor = inputs[0]
        found.add(tensor)
    return found


def moving_readers(
    wires: GraphIndex, inputs: Mapping[int, tuple[int, ...]], without: Container[int]
) -> dict[int, tuple[int, ...]]:
    """Return Concat, MaxPool and Resize nodes → their inputs that are to be read behind a pair.

    inputs: node → its inputs that are read behind a pair already. without: nodes that read floats all the same.
    """
    handing = {
        number
        for number, node in enumerate(wires.nodes)
        if node.op_type in MOVING_READERS
        and node.domain in ONNX_DOMAINS
        and not interpolates(node)
        and number not in without
        and hands_int8_on(wires, number, inputs)
    }
    paired = {wires.nodes[n].input[k] for n, places in inputs.items() for k in places} - wires.constants
    windows = [number for number in handing if wires.nodes[number].op_type in MOVING_WINDOWS]
    paired |= {t for number in windows if moves_together(wires, t := wires.nodes[number].input[0], handing)}
    found = {}
    for number in sorted(handing):
        node = wires.nodes[number]
        read = range(len(node.input)) if node.op_type == "Concat" else (0,)
        if places := tuple(k for k in read if node.input[k] in paired):
            found[number] = places
    return found


def interpolates(node: onnx.NodeProto) -> bool:
    """Return whether an operator is a Resize that computes new values between those that it reads."""
    mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest")
    return bool(node.op_type == RESIZE and mode != b"nearest")


def moves_together(wires: GraphIndex, tensor: str, handing: Container[int]) -> bool:
    """Return whether several operators read a tensor, all of which hand INT8 on."""
    if tensor in wires.held or tensor in wires.constants:
        return False
    readers = {r.number for r, node in wires.uses(tensor) if node.op_type not in SHAPE_OPERATORS}
    return len(readers) > 1 and all(number in handing for number in readers)


def hands_int8_on(wires: GraphIndex, number: int, inputs: Mapping[int, tuple[int, ...]]) -> bool:
    """Return whether the result of an operator that moves values is read behind a pair; an Add's does not count."""

    def reads(reader: TensorReader) -> bool:
        return reader.place in inputs.get(reader.number, ())

    behind = wires.uses_through(wires.nodes[number].output[0], COMMUTING | {RESIZE})
    return any(reads(reader) and node.op_type != "Add" for reader, node in behind)


class TensorGroups:
    """Disjoint groups of tensors; `first` is the tensor that a group began with."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def join(self, a: str, b: str) -> None:
        """Merge two groups into that of `a`."""
        first, second = self.first(a), self.first(b)
        self._parent.setdefault(first, first)
        self._parent[second] = first

    def first(self, name: str) -> str:
        """Return the first tensor of a group."""
        while self._parent.get(name, name) != name:
            name = self._parent[name]
        return name

    def members(self) -> list[str]:
        """Return every tensor that is in a group."""
        return sorted(self._parent)

"""A network as parts that may be INT8 or float, and the tensors between them.

A part is an operator with weights and what TensorRT fuses behind it: batch normalization, activations, a residual Add.
Operators that only move values belong to no part. Everything else is float.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from quantkit.gpu_profile.operator_size import OperatorSize, operator_size
from quantkit.graph.index import GraphIndex
from quantkit.graph.operators import ACTIVATIONS, COMMUTING, CURVED, WEIGHTED

POINTWISE = ACTIVATIONS | {"Add", "BatchNormalization", "Div", "Identity", "Mul", "Sub"}
"""Operators that a part takes in if all they read comes from it, or is constant."""


@dataclass(frozen=True, slots=True)
class Part:
    """An operator that may be INT8. size: None where it is unknown, or it has no weights."""

    name: str
    number: int
    size: OperatorSize | None
    weighted: bool


@dataclass(slots=True)
class TensorUse:
    """A tensor between parts. maker: None for one that a float operator or the input of the network makes.

    readers: None among them stands for float operators, and for the end of the network.
    """

    name: str
    maker: str | None
    values: int
    readers: set[str | None] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class NetworkParts:
    """The parts by name, and the tensors between them."""

    parts: Mapping[str, Part]
    tensors: tuple[TensorUse, ...]


def network_parts(
    wires: GraphIndex, inputs: Mapping[int, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...] | None]
) -> NetworkParts:
    """Return the parts of a network. inputs: node number → its inputs that could get a pair; shapes: of all tensors."""
    return PartFinder(wires, inputs, shapes).found()


class PartFinder:
    """The search in progress, in the order of the nodes."""

    def __init__(
        self,
        wires: GraphIndex,
        inputs: Mapping[int, tuple[int, ...]],
        shapes: Mapping[str, tuple[int, ...] | None],
    ) -> None:
        self._wires, self._inputs, self._shapes = wires, inputs, shapes
        self._numbers: dict[str, int] = {}
        self._curved: set[str] = set()
        self._owner: dict[str, str] = {}
        """Tensor → the part that makes it."""
        self._origins: dict[str, frozenset[str]] = {}
        """Tensor behind operators that move values → the tensors in front of them."""
        self._readers: dict[str, set[str | None]] = {}

    def found(self) -> NetworkParts:
        """Look at every node."""
        for number in range(len(self._wires.nodes)):
            self._take(number)
        for name in self._wires.outputs:
            self._read(name, None)
        parts = {
            name: Part(
                name,
                number,
                operator_size(self._wires, number, self._shapes, curved=name in self._curved),
                self._wires.nodes[number].op_type in WEIGHTED,
            )
            for name, number in self._numbers.items()
        }
        tensors = [
            TensorUse(name, self._owner.get(name), math.prod(self._shapes.get(name) or (0,)), readers)
            for name, readers in self._readers.items()
            if readers != {self._owner.get(name)}
        ]
        return NetworkParts(parts, tuple(tensors))

    def _take(self, number: int) -> None:
        node, wires = self._wires.nodes[number], self._wires
        activations = wires.activations(number)
        made = [name for name in node.output if name]
        if not activations or all(name in wires.constants for name in made):
            return
        if number in self._inputs and not self._is_residual(number):
            self._start(number)
        elif owner := self._fusing_part(number):
            if node.op_type in CURVED:
                self._curved.add(owner)
            self._owner.update(dict.fromkeys(made, owner))
            for name in activations:
                if self._owner.get(name) != owner:
                    self._read(name, owner)
        elif node.op_type in COMMUTING:
            moved = activations if node.op_type == "Concat" else activations[:1]
            origin = frozenset[str]().union(*(self._origins.get(name, frozenset({name})) for name in moved))
            self._origins.update(dict.fromkeys(made, origin))
        else:
            for name in activations:
                self._read(name, None)

    def _start(self, number: int) -> None:
        name = self._wires.name(number)
        self._numbers[name] = number
        self._owner.update(dict.fromkeys(self._wires.nodes[number].output, name))
        for place, tensor in enumerate(self._wires.nodes[number].input):
            if tensor and tensor not in self._wires.constants:
                self._read(tensor, name if place in self._inputs[number] else None)

    def _is_residual(self, number: int) -> bool:
        return self._wires.nodes[number].op_type == "Add" and len(self._inputs[number]) == 1

    def _fusing_part(self, number: int) -> str | None:
        """Return the part that takes a node in; None for a node that stands alone."""
        node, activations = self._wires.nodes[number], self._wires.activations(number)
        if node.op_type not in POINTWISE:
            return None
        if number in self._inputs:  # a residual Add: the convolution's side has no pair
            (skip,) = self._inputs[number]
            activations = [node.input[1 - skip]]
        owners = {self._owner.get(name) for name in activations}
        return owners.pop() if len(owners) == 1 else None

    def _read(self, tensor: str, reader: str | None) -> None:
        for name in self._origins.get(tensor, frozenset({tensor})):
            self._readers.setdefault(name, set()).add(reader)

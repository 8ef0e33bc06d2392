"""The types of a network's operators: one for all, and another one for the nodes that the user names.

A choice that gives all operators the same type is that type's: it makes the same network, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantkit.errors import UsageError
from quantkit.graph.index import index_graph
from quantkit.graph.node_selection import select_nodes
from quantkit.graph.operators import CURVED, NORMALIZING, WEIGHTED
from quantkit.qdq.placement import Choices, Policy
from quantkit.values import NetworkType, QuantizedType

if TYPE_CHECKING:
    from quantkit.graph import Model

EVERYWHERE = WEIGHTED | NORMALIZING | CURVED | {"Add", "Mul"}
"""What policy `all` quantizes."""


@dataclass(frozen=True, slots=True)
class NodeTypes:
    """The type of most operators, and nodes of the other one: names, patterns or operators. UsageError."""

    type: QuantizedType
    int8: tuple[str, ...] = ()
    fp8: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        same = {QuantizedType.INT8: self.int8, QuantizedType.FP8: self.fp8}[self.type]
        if same:
            word = self.type.value
            raise UsageError(
                f"--{word} names nodes among others of another type, and --type {word} is for all of them",
                remedy=f"leave --{word} out, or give --type {self.other.value}",
            )

    @property
    def other(self) -> QuantizedType:
        """The type that most operators do not have."""
        return QuantizedType.FP8 if self.type is QuantizedType.INT8 else QuantizedType.INT8

    @property
    def named(self) -> tuple[str, ...]:
        """The nodes of the other type."""
        return (*self.int8, *self.fp8)

    @property
    def has_fp8(self) -> bool:
        """True if an operator may be FP8."""
        return self.type is QuantizedType.FP8 or bool(self.fp8)

    @property
    def network_type(self) -> NetworkType:
        """The type of the network, as far as it is known before its nodes are."""
        return NetworkType.MIXED if self.named else NetworkType(self.type.value)

    def applied_to(self, network: Model, choices: Choices) -> Choices:
        """Return the choices with the types of all nodes. UsageError if no operator with a type is named."""
        if not self.named:
            return replace(choices, type=self.type)
        option = f"--{self.other.value}"
        named = select_nodes(self.named, network, option)
        wires = index_graph(network.proto)
        every = {wires.name(number): node.op_type for number, node in enumerate(wires.nodes)}
        kinds = EVERYWHERE if choices.policy is Policy.ALL else WEIGHTED
        typed = {name for name, kind in every.items() if kind in kinds or name in choices.include} - choices.exclude
        if not named & typed:
            raise UsageError(
                f"{option} {', '.join(map(repr, self.named))}: none of these nodes has a type of its own",
                remedy="name operators with weights that are not excluded; an Add has the type of the operator that it "
                "fuses into",
            )
        in_fp8 = named if self.fp8 else every.keys() - named
        found = {QuantizedType.FP8 if name in in_fp8 else QuantizedType.INT8 for name in typed}
        if len(found) == 1:
            return replace(choices, type=found.pop())
        return replace(choices, type=QuantizedType.INT8, fp8=frozenset(in_fp8))

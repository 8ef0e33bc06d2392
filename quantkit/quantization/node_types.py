"""The types of a network's operators: one for all, and another one for the nodes that the user names.

A choice that gives all quantized operators the same type is that type's: it makes the same network, byte for byte. What
is placed decides that, not what is named: a convolution without an FP8 kernel stays float where it was to be FP8, and a
network whose other operators are INT8 is one in INT8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantkit.errors import UsageError
from quantkit.graph.index import GraphIndex, index_graph
from quantkit.graph.node_selection import match_nodes, node_names, select_nodes
from quantkit.graph.operators import CURVED, NORMALIZING, WEIGHTED
from quantkit.qdq.float_reason import FloatCause, FloatReason
from quantkit.qdq.placement import Choices, Placement, Policy, place_pairs
from quantkit.qdq.shared_scales import TypedScales
from quantkit.values import NetworkType, QuantizedType

if TYPE_CHECKING:
    from quantkit.graph import Model

EVERYWHERE = WEIGHTED | NORMALIZING | CURVED | {"Add", "Mul"}
"""What policy `all` quantizes."""
NAMED = 3
"""Operators that a note names."""


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
        return self.type.other

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
        return with_placed_types(wires, replace(choices, type=QuantizedType.INT8, fp8=frozenset(in_fp8)))

    def describe_kept(self, network: Model, choices: Choices, left: Mapping[str, FloatReason]) -> tuple[str, ...]:
        """Return the note on operators that stay float although they were to have a type; empty without them.

        These are the ones that are named and not excluded, and all of a type that nothing is left in. left: operator →
        why it stays float.
        """
        if choices.kept:
            return describe_float(choices.kept, choices.type.other)
        if not self.named:
            return ()
        named, _ = match_nodes(self.named, node_names(network), network.file_names)
        kept = {name: why for name, why in left.items() if name in named and why.cause is not FloatCause.EXCLUDED}
        return describe_float(kept, self.other)


def describe_float(kept: Mapping[str, FloatReason], wanted: QuantizedType) -> tuple[str, ...]:
    """Return the note on operators that were to have a type and stay float; empty without them."""
    if not kept:
        return ()
    shown = "; ".join(f"{name}: {why}" for name, why in list(kept.items())[:NAMED])
    were, stay = ("operator that was", "stays") if len(kept) == 1 else ("operators that were", "stay")
    return (
        f"{len(kept)} {were} to be {wanted.value.upper()} {stay} float: {shown}{'; …' if len(kept) > NAMED else ''}",
    )


def with_placed_types(wires: GraphIndex, choices: Choices) -> Choices:
    """Return choices of one type where only operators of this type get a pair, and else the same.

    What was to have the other type stays float, for the same reasons.
    """
    placement = place_everywhere(wires, choices)
    types = set(placement.types.values())
    if len(types) != 1:
        return choices
    only = types.pop()
    kept = {name: why for name, why in placement.left.items() if choices.type_of(name) is not only}
    return replace(choices, type=only, fp8=frozenset(), kept={**choices.kept, **kept})


def place_everywhere(wires: GraphIndex, choices: Choices) -> Placement:
    """Return the places of pairs in a network in which every tensor has a scale, the same one."""
    scales = {name: 1.0 for node in wires.nodes for name in (*node.input, *node.output) if name}
    return place_pairs(wires, TypedScales(dict.fromkeys(choices.types, scales)), choices)

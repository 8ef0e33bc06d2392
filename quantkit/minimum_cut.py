"""The cheapest split of a network into float and INT8, by the cost of each part and of each border: a minimum cut.

    parts = {"a": PrecisionCost(3.0, 1.0), "b": PrecisionCost(1.0, 1.5), "c": PrecisionCost(3.0, 1.0)}
    borders = [BorderCost(None, ("a",), 0.5), BorderCost("a", ("b",), 0.5, 0.2), BorderCost("b", ("c",), 0.5, 0.2)]
    cheapest_split(parts, borders)      frozenset({"a", "b", "c"}), which costs 4.0: b is slower in INT8 by 0.5, but the
                                        two borders around it would cost 0.7

Every part (an operator, or a region of several) has a cost in float and one in INT8. A tensor costs a Q where its maker
is float and any reader is INT8, and a DQ where its maker is INT8 and any reader is float; each is paid once, however
many readers there are. Such costs are submodular, so that a minimum cut finds the cheapest of all 2ⁿ splits (Greig,
Porteous, Seheult, 1989; Kolmogorov, Zabih, 2004).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantkit.errors import UsageError

DIGITS = 10**9
"""Costs are counted in units of 1 / DIGITS, so that equal costs are equal and the cut is the same everywhere."""
FLOAT_SIDE, INT8_SIDE = "float", "INT8"


@dataclass(frozen=True, slots=True)
class PrecisionCost:
    """The cost of a part in float and in INT8, of any unit; infinite where it cannot run so."""

    in_float: float
    in_int8: float


@dataclass(frozen=True, slots=True)
class BorderCost:
    """The cost of a tensor between parts of different precision.

    maker: the part that makes it; None for an input of the network, which is float. readers: the parts that read it;
    None among them stands for the end of the network, which is float. quantize: maker float, a reader INT8; 0 where the
    maker's kernel rounds for nothing. dequantize: maker INT8, a reader float.
    """

    maker: str | None
    readers: tuple[str | None, ...]
    quantize: float
    dequantize: float = 0.0


def cheapest_split(parts: Mapping[str, PrecisionCost], borders: Sequence[BorderCost]) -> frozenset[str]:
    """Return the parts that are INT8 in the cheapest split; of several that are equally cheap, the one with the fewest.

    UsageError where a cost is negative or not a number, a border names an unknown part, or infinite costs leave no
    split.
    """
    import networkx

    refuse_costs(parts, borders)
    network = networkx.DiGraph()
    network.add_nodes_from((FLOAT_SIDE, INT8_SIDE))
    for name, cost in parts.items():
        add_capacity(network, FLOAT_SIDE, ("part", name), cost.in_int8)  # cut where the part is INT8
        add_capacity(network, ("part", name), INT8_SIDE, cost.in_float)
    for number, border in enumerate(borders):
        add_border(network, number, border)
    try:
        _, (_, int8) = networkx.minimum_cut(network, FLOAT_SIDE, INT8_SIDE)
    except networkx.NetworkXUnbounded:
        raise UsageError(
            "no split into float and INT8 has a finite cost", remedy="leave one precision possible for every part"
        ) from None
    return frozenset(name for name in parts if ("part", name) in int8)


def add_border(network: Any, number: int, border: BorderCost) -> None:
    """Add the edges of a tensor. One helper node is INT8 if any reader is; the other is float if any is."""
    maker = FLOAT_SIDE if border.maker is None else ("part", border.maker)
    readers = [FLOAT_SIDE if reader is None else ("part", reader) for reader in border.readers]
    quantized, dequantized = ("Q", number), ("DQ", number)
    if border.quantize:
        add_capacity(network, maker, quantized, border.quantize)
        for reader in readers:
            add_capacity(network, quantized, reader, math.inf)
    if border.dequantize and maker != FLOAT_SIDE:
        add_capacity(network, dequantized, maker, border.dequantize)
        for reader in readers:
            add_capacity(network, reader, dequantized, math.inf)


def add_capacity(network: Any, source: object, target: object, cost: float) -> None:
    """Add an edge that is cut, at that cost, where the source is float and the target is INT8."""
    if source == target or not cost:
        return
    if math.isinf(cost):
        network.add_edge(source, target)  # an edge without a capacity is never cut
    elif not network.has_edge(source, target):
        network.add_edge(source, target, capacity=round(cost * DIGITS))
    elif "capacity" in network[source][target]:
        network[source][target]["capacity"] += round(cost * DIGITS)


def split_cost(parts: Mapping[str, PrecisionCost], borders: Sequence[BorderCost], int8: Collection[str]) -> float:
    """Return the cost of a split, in the unit of the costs. int8: the parts that are INT8."""
    total = math.fsum(cost.in_int8 if name in int8 else cost.in_float for name, cost in parts.items())
    for border in borders:
        quantized = {reader is not None and reader in int8 for reader in border.readers}
        if border.maker is not None and border.maker in int8:
            total += border.dequantize if False in quantized else 0.0
        else:
            total += border.quantize if True in quantized else 0.0
    return total


def refuse_costs(parts: Mapping[str, PrecisionCost], borders: Sequence[BorderCost]) -> None:
    """Raise UsageError for a cost that is negative or not a number, and for a border of an unknown part."""
    costs = [(name, value) for name, cost in parts.items() for value in (cost.in_float, cost.in_int8)]
    for border in borders:
        named = [name for name in (border.maker, *border.readers) if name is not None]
        costs += [(", ".join(named), value) for value in (border.quantize, border.dequantize)]
        if unknown := [name for name in named if name not in parts]:
            raise UsageError(f"a border names {unknown[0]!r}, which has no cost", remedy="give every part a cost")
    for name, value in costs:
        if not value >= 0.0:
            raise UsageError(f"the cost of {name!r} is {value}", remedy="give costs of at least 0")

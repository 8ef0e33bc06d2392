"""The differences between two maps: nodes of one name whose facts changed, and nodes that only one network has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quantkit.mapping.facts import CardFacts
from quantkit.mapping.operator_graph import Card, CardKind

SAME = 1e-3
"""Relative difference up to which two scales or shares are the same."""
SAME_DB = 0.1
"""Difference up to which two ratios are the same, in dB."""
SAME_TIME = 0.03
"""Relative difference up to which two times are the same: below the noise of measurements on one GPU."""
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "scale": (SAME, 0.0), "amax": (SAME, 0.0), "clipped": (SAME, 1e-6), "sqnr_db": (0.0, SAME_DB),
    "weight_sqnr_db": (0.0, SAME_DB), "alone_db": (0.0, SAME_DB), "gain_db": (0.0, SAME_DB),
    "milliseconds": (SAME_TIME, 0.0),
}  # fmt: skip
"""Fact that is a number → relative and absolute difference up to which it is the same."""
COMPARED = ("precision", "scale", "weight_scales", "amax", "sqnr_db", "weight_sqnr_db", "clipped", "alone_db",
            "gain_db", "kernel", "milliseconds", "reason")  # fmt: skip
"""Facts that are compared, if both maps have them."""


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node that differs. before, after: the facts that changed by name; a node that is missing in one has none.

    kind: changed, added (only in the second network), or removed (only in the first).
    """

    name: str
    operator: str
    kind: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MapDifference:
    """The differences between a map and another, in the order of the cards. other: what the second one is of."""

    other: str
    described: tuple[str, ...]
    changes: tuple[NodeChange, ...]


Described = Iterable[tuple[Card, CardFacts]]


def compare_maps(first: Described, second: Described) -> tuple[NodeChange, ...]:
    """Return what differs between two maps. Nodes are matched by name, else by their first output."""
    first, others = list(first), Matches(second)
    found = []
    for card, facts in first:
        match = others.take(card)
        if match is None:
            found.append(NodeChange(card.name, card.operator, "removed", {}, {}))
            continue
        after = match[1]
        changed = [name for name in COMPARED if is_changed(name, getattr(facts, name), getattr(after, name))]
        if match[0].operator != card.operator:
            found.append(
                NodeChange(
                    card.name, card.operator, "changed", {"operator": card.operator}, {"operator": match[0].operator}
                )
            )
        elif changed:
            values = [{name: getattr(side, name) for name in changed} for side in (facts, after)]
            found.append(NodeChange(card.name, card.operator, "changed", *values))
    found += [NodeChange(card.name, card.operator, "added", {}, {}) for card in others.left()]
    return tuple(found)


class Matches:
    """The cards of the second map, each of which matches one card of the first."""

    def __init__(self, cards: Described) -> None:
        self._cards = list(cards)
        self._taken: set[int] = set()
        self._by_name = {(card.kind, card.name): i for i, (card, _) in enumerate(self._cards)}
        self._by_tensor = {
            card.writes[0]: i
            for i, (card, _) in enumerate(self._cards)
            if card.kind is CardKind.OPERATOR and card.writes
        }

    def take(self, card: Card) -> tuple[Card, CardFacts] | None:
        """Return the card that matches one of the first map; None if there is none."""
        place = self._by_name.get((card.kind, card.name))
        if place is None and card.kind is CardKind.OPERATOR and card.writes:
            place = self._by_tensor.get(card.writes[0])
        if place is None or place in self._taken:
            return None
        self._taken.add(place)
        return self._cards[place]

    def left(self) -> list[Card]:
        """Return the cards that match none of the first map."""
        return [card for i, (card, _) in enumerate(self._cards) if i not in self._taken]


def is_changed(name: str, before: Any, after: Any) -> bool:
    """Return whether a fact that both maps have changed by more than its tolerance."""
    if name == "reason":
        return bool(before != after)
    if before is None or after is None or "" in (before, after):
        return False
    if name == "weight_scales":
        return before[2] != after[2] or not all(is_close("scale", a, b) for a, b in zip(before, after, strict=True))
    if name in TOLERANCES:
        return not is_close(name, before, after)
    return bool(before != after)


def is_close(name: str, before: float, after: float) -> bool:
    """Return whether two numbers are the same within the tolerance of a fact."""
    relative, absolute = TOLERANCES[name]
    if math.isnan(before) or math.isnan(after):
        return math.isnan(before) and math.isnan(after)
    return math.isclose(before, after, rel_tol=relative, abs_tol=absolute)

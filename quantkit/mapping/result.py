"""The result of `network_map`: the cards of a network with their facts, edges and folded blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantkit.mapping.difference import MapDifference
from quantkit.mapping.facts import CardFacts
from quantkit.mapping.folding import FoldedBlock, FoldItem
from quantkit.mapping.operator_graph import Card, CardKind
from quantkit.numerics import format_db
from quantkit.view import Block, Remarks, RichDisplay, ViewTable


@dataclass(frozen=True, slots=True)
class NetworkMap(RichDisplay):
    """A map. model: the name of its file. cards, facts, edges: operators, inputs and outputs in the order of the graph.

    members: of each card, the names of the other nodes in it. items: cards by number, with repeated blocks folded.
    described: the sources in words.
    """

    model: str
    sha256: str
    cards: tuple[Card, ...]
    facts: tuple[CardFacts, ...]
    members: tuple[tuple[str, ...], ...]
    edges: tuple[tuple[int, int], ...]
    items: tuple[FoldItem, ...]
    described: tuple[str, ...] = ()
    difference: MapDifference | None = None
    path: Path | None = field(default=None, compare=False)

    @property
    def precisions(self) -> dict[str, int]:
        """Precision → number of operators, the most frequent first; "" where no source says it."""
        own = [f.precision for c, f in zip(self.cards, self.facts, strict=True) if c.kind is CardKind.OPERATOR]
        return dict(Counter(own).most_common())

    @property
    def blocks(self) -> int:
        """Number of folded blocks, at all levels."""
        return count_blocks(self.items)

    def _view_(self) -> Sequence[Block]:
        rows = [
            (
                card.name,
                card.operator,
                facts.precision,
                format_db(facts.sqnr_db) if facts.sqnr_db is not None else "",
                facts.reason,
            )
            for card, facts in zip(self.cards, self.facts, strict=True)
            if card.kind is CardKind.OPERATOR
        ]
        return (
            f"{self.model}: {len(rows):,} operators",
            ViewTable(("operator", "type", "precision", "SQNR", "reason"), rows, frozenset({0, 1, 2, 4})),
            Remarks(self.described),
        )


def count_blocks(items: Sequence[FoldItem]) -> int:
    """Count the blocks in items, at all levels."""
    return sum(1 + count_blocks(item.items) for item in items if isinstance(item, FoldedBlock))

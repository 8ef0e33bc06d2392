"""A map as JSON values: the same facts as on the page, with whole names and exact numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from quantkit.mapping.difference import MapDifference
from quantkit.mapping.folding import FoldItem
from quantkit.mapping.result import NetworkMap


def map_document(made: NetworkMap) -> dict[str, Any]:
    """Return a map as JSON values. nodes: in the order of the graph; edges and blocks name them by number."""
    return {
        "model": made.model,
        "sha256": made.sha256,
        "sources": list(made.described),
        "precisions": dict(made.precisions),
        "nodes": [
            {
                "name": card.name,
                "kind": card.kind.value,
                "operator": card.operator,
                "inside": card.inside,
                "members": list(members),
                **asdict(facts),
            }
            for card, facts, members in zip(made.cards, made.facts, made.members, strict=True)
        ],
        "edges": [list(edge) for edge in made.edges],
        "blocks": items_document(made.items),
        "difference": None if made.difference is None else difference_document(made.difference),
        "file": None if made.path is None else str(made.path),
    }


def items_document(items: Sequence[FoldItem]) -> list[Any]:
    """Return nodes by number, and folded blocks as {"form": number, "items": […]}."""
    return [
        item if isinstance(item, int) else {"form": item.kind, "items": items_document(item.items)} for item in items
    ]


def difference_document(difference: MapDifference) -> dict[str, Any]:
    """Return the differences from another map."""
    return {
        "other": difference.other,
        "sources": list(difference.described),
        "changes": [
            {"name": c.name, "operator": c.operator, "kind": c.kind, "before": dict(c.before), "after": dict(c.after)}
            for c in difference.changes
        ],
    }

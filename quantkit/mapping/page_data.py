"""The data of a map's page: cards, blocks and their layouts as small JSON, which the page's script draws.

Cards, blocks and layouts go by number; all text is ready for display. An item of a level is a card (0 and above) or
block −1 − item. A block's layout has two places more: where its edges enter, and where they leave.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from quantkit.mapping.colours import UNKNOWN, ColourMode, Shade, block_shade, colour_modes
from quantkit.mapping.folding import FoldedBlock, FoldItem, cards_in
from quantkit.mapping.layout import LevelLayout, lay_out
from quantkit.mapping.operator_graph import CardKind
from quantkit.mapping.result import NetworkMap
from quantkit.mapping.wording import LABELS, fact_texts, short_name
from quantkit.report.wording import count_noun

KINDS = {CardKind.OPERATOR: 0, CardKind.INPUT: 1, CardKind.OUTPUT: 2}
TITLE = 22
"""Maximum number of characters of the operators of a block on its card; else it says how many there are."""
DIGITS = 3
"""Decimals of places in widths of a card."""


def page_data(made: NetworkMap) -> dict[str, Any]:
    """Return the data of a page as JSON values."""
    texts = [fact_texts(c, f, m) for c, f, m in zip(made.cards, made.facts, made.members, strict=True)]
    columns = [i for i in range(len(LABELS)) if any(row[i] for row in texts)]
    modes = colour_modes(made)
    levels = LevelBuilder(made, modes)
    root = levels.items(made.items)
    shape = levels.layout(made.items, ports=False)
    return {
        "cards": [[short_name(card.name), short_name(card.operator), KINDS[card.kind]] for card in made.cards],
        "labels": [LABELS[i] for i in columns],
        "facts": [[row[i] for i in columns] for row in texts],
        "modes": [mode_data(mode, shades) for mode, shades in zip(modes, levels.shades, strict=True)],
        "blocks": levels.blocks,
        "layouts": levels.layouts,
        "root": {"layout": shape, "items": root},
        "marked": sorted(marked_cards(made)),
    }


def marked_cards(made: NetworkMap) -> set[int]:
    """Return the cards that differ from the map that this one is compared with."""
    if made.difference is None:
        return set()
    names = {change.name for change in made.difference.changes if change.kind != "added"}
    return {i for i, card in enumerate(made.cards) if card.name in names}


def mode_data(mode: ColourMode, blocks: Sequence[Shade | None]) -> dict[str, Any]:
    """Return a way to colour cards and blocks."""
    return {
        "key": mode.key,
        "label": mode.label,
        "ordered": mode.ordered,
        "legend": [[entry.bin, entry.text] for entry in mode.legend],
        "cards": [shade_data(shade) for shade in mode.shades],
        "blocks": [shade_data(shade) for shade in blocks],
    }


def shade_data(shade: Shade | None) -> list[Any]:
    """Return bin and text, and the shares of bins where there are several."""
    if shade is None:
        return [UNKNOWN, ""]
    shares = [[own, round(share, DIGITS)] for own, share in shade.shares]
    return [shade.bin, shade.text, *([shares] if len(shares) > 1 else [])]


@dataclass
class LevelBuilder:
    """Collects the blocks of all levels, and their layouts, of which equal ones are there once."""

    made: NetworkMap
    modes: Sequence[ColourMode]
    blocks: list[dict[str, Any]] = field(default_factory=list)
    layouts: list[dict[str, Any]] = field(default_factory=list)
    shades: list[list[Shade | None]] = field(default_factory=list)
    _known: dict[tuple[int, tuple[tuple[int, int], ...]], int] = field(default_factory=dict)
    _readers: Mapping[int, Sequence[int]] = field(default_factory=dict)
    _sources: Mapping[int, Sequence[int]] = field(default_factory=dict)
    _repeats: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        readers: dict[int, list[int]] = defaultdict(list)
        sources: dict[int, list[int]] = defaultdict(list)
        for start, end in self.made.edges:
            readers[start].append(end)
            sources[end].append(start)
        self._readers, self._sources = readers, sources
        self._repeats = count_kinds(self.made.items)
        self.shades = [[] for _ in self.modes]

    def items(self, items: Sequence[FoldItem]) -> list[int]:
        """Return the numbers of items, and add the blocks among them."""
        return [item if isinstance(item, int) else -1 - self._add(item) for item in items]

    def _add(self, block: FoldedBlock) -> int:
        place = len(self.blocks)
        names = [self.made.cards[card].name for card in block.cards]
        counts = Counter(self.made.cards[card].operator for card in block.cards)
        operators = ", ".join(f"{n} {name}" if n > 1 else name for name, n in counts.most_common(4))
        more = len(counts) - 4
        brief = " ".join(self.made.cards[card].operator for card in block.cards)
        entry: dict[str, Any] = {
            "title": brief if len(brief) <= TITLE else count_noun(len(names), "operator"),
            "name": short_name(block_name(names)),
            "about": f"{count_noun(len(names), 'operator')}: {short_name(operators)}{', …' if more > 0 else ''}",
            "repeats": self._repeats[block.kind],
        }
        self.blocks.append(entry)
        for mode, shades in zip(self.modes, self.shades, strict=True):
            shades.append(block_shade(mode, block.cards))
        entry["items"] = self.items(block.items)
        entry["layout"] = self.layout(block.items, ports=True)
        return place

    def layout(self, items: Sequence[FoldItem], *, ports: bool) -> int:
        """Return the number of the layout of a level, and add it if it is new."""
        count = len(items) + (2 if ports else 0)
        edges = tuple(sorted(self._edges(items, ports=ports)))
        key = count, edges
        if key not in self._known:
            self._known[key] = len(self.layouts)
            self.layouts.append(layout_data(lay_out(count, edges)))
        return self._known[key]

    def _edges(self, items: Sequence[FoldItem], *, ports: bool) -> set[tuple[int, int]]:
        place = {card: i for i, item in enumerate(items) for card in cards_in((item,))}
        enter, leave = len(items), len(items) + 1
        edges = set()
        for card, i in place.items():
            for source in self._sources.get(card, ()):
                if source in place or ports:
                    edges.add((place.get(source, enter), i))
            for reader in self._readers.get(card, ()) if ports else ():
                if reader not in place:
                    edges.add((i, leave))
        return {(start, end) for start, end in edges if start != end}


def count_kinds(items: Sequence[FoldItem]) -> Counter[int]:
    """Count the blocks of each form, at all levels."""
    counts: Counter[int] = Counter()
    for item in items:
        if isinstance(item, FoldedBlock):
            counts[item.kind] += 1
            counts += count_kinds(item.items)
    return counts


def block_name(names: Sequence[str]) -> str:
    """Return the path that nodes have in common, with where they begin and end below it: `/model.1 … model.2`.

    Nodes that have no path in common go by the first and the last name.
    """
    parts = [name.split("/") for name in names]
    shared = parts[0][: common_length(parts)]
    if not "".join(shared):
        return f"{names[0]} … {names[-1]}" if len(names) > 1 else names[0]
    path, rest = "/".join(shared), [name[len(shared) :] for name in parts]
    first, last = rest[0][:1], rest[-1][:1]
    if len(rest[0]) < 2 or len(rest[-1]) < 2 or first == last:  # the last part is the node itself
        return path
    return f"{path}/{first[0]} … {last[0]}"


def common_length(parts: Sequence[Sequence[str]]) -> int:
    """Return the number of parts that all paths begin with."""
    same = takewhile(lambda one: len(set(one)) == 1, zip(*parts, strict=False))
    return sum(1 for _ in same)


def layout_data(layout: LevelLayout) -> dict[str, Any]:
    """Return a layout: rows, places, and edges as [from, to, bend, bend …]."""
    return {
        "rows": list(layout.rows),
        "places": [round(place, DIGITS) for place in layout.places],
        "paths": [[path.start, path.end, *(round(bend, DIGITS) for bend in path.bends)] for path in layout.paths],
    }

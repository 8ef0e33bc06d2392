"""Repeated blocks of a network: stretches of cards that come more than once in the same form, such as a bottleneck.

A block is a run of neighbours in the order of the cards. That order is topological, so whatever is folded, no path
leaves a block and comes back to it. Two runs are of one form if their operators and the edges inside are the same.
Blocks are found greedily, the one that hides most cards first, and again between and inside of the blocks found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

LONGEST = 160
"""Maximum number of items in a block."""
LEAST = 3
"""Minimum number of items in a block."""
MOST_ENTRIES = 3
"""Maximum number of items outside that a block reads."""
MOST_ROUNDS = 200
Form: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class FoldedBlock:
    """A block. kind: number of its form among the forms of the network. items: its cards and blocks, in order."""

    kind: int
    items: tuple[FoldItem, ...]

    @cached_property
    def cards(self) -> tuple[int, ...]:
        """All cards in it, in order."""
        return tuple(cards_in(self.items))


FoldItem: TypeAlias = "int | FoldedBlock"


def cards_in(items: Sequence[FoldItem]) -> Iterator[int]:
    """Yield the cards in items, at all levels."""
    for item in items:
        if isinstance(item, int):
            yield item
        else:
            yield from item.cards


@dataclass(frozen=True, slots=True)
class Repetition:
    """A form that comes several times: the places of its first items, and its length."""

    starts: tuple[int, ...]
    length: int

    @property
    def hidden(self) -> int:
        """Number of items that are hidden if each is folded into one."""
        return len(self.starts) * (self.length - 1)


@dataclass(frozen=True, slots=True)
class CardForms:
    """Forms and edges of cards, by which they are folded.

    forms: of each card, empty for those that stay outside of blocks. sources: card → cards before it that it reads.
    seeds: cards that blocks begin with where there is a choice, such as convolutions. tails: cards that stay in one
    block with the card before them, such as a Relu.
    """

    forms: Sequence[Form]
    sources: Mapping[int, Sequence[int]]
    seeds: frozenset[int] = frozenset()
    tails: frozenset[int] = frozenset()


def fold_repeats(cards: CardForms) -> tuple[FoldItem, ...]:
    """Return the cards in order, with repeated blocks folded."""
    return Folder(cards).fold(tuple(range(len(cards.forms))))


class Folder:
    """Folds sequences of cards; equal forms get equal numbers."""

    def __init__(self, cards: CardForms) -> None:
        self._cards = cards
        self._kinds: dict[tuple[object, ...], int] = {}

    def fold(self, items: tuple[FoldItem, ...], whole: bool = False) -> tuple[FoldItem, ...]:
        """Return items with repetitions folded. whole: the items are a block, which is not folded as a whole."""
        for _ in range(MOST_ROUNDS):
            search = RepetitionSearch(items, self._cards, len(items) - whole)
            found = search.best()
            if found is None:
                break
            kind = self._kinds.setdefault(search.key(found.starts[0], found.length), len(self._kinds))
            items = tuple(self._replaced(items, found, kind))
        return items

    def _replaced(self, items: tuple[FoldItem, ...], found: Repetition, kind: int) -> Iterator[FoldItem]:
        place, starts = 0, set(found.starts)
        while place < len(items):
            if place in starts:
                inner = items[place : place + found.length]
                yield FoldedBlock(kind, self.fold(inner, whole=True))
                place += found.length
            else:
                yield items[place]
                place += 1


class RepetitionSearch:
    """A search for the repetition that hides most items of a sequence."""

    def __init__(self, items: Sequence[FoldItem], cards: CardForms, longest: int) -> None:
        self._items, self._longest = items, min(LONGEST, longest)
        forms = [cards.forms[i] if isinstance(i, int) else (f"block {i.kind}",) for i in items]
        numbers: dict[Form, int] = {}
        self._forms = [numbers.setdefault(form, len(numbers)) for form in forms]
        self._names = [number if form else -1 for number, form in zip(self._forms, forms, strict=True)]
        self._seeded = [isinstance(item, int) and item in cards.seeds for item in items]
        self._tails = [next(cards_in((item,))) in cards.tails for item in items]
        place = {card: i for i, item in enumerate(items) for card in cards_in((item,))}
        self._reads: list[tuple[int, ...]] = []
        for i, item in enumerate(items):
            sources = (source for card in cards_in((item,)) for source in cards.sources.get(card, ()))
            found = dict.fromkeys(place.get(source, -1 - source) for source in sources)
            self._reads.append(tuple(p for p in found if p != i))
        self._last_reader = [-1] * len(items)
        for i, places in enumerate(self._reads):
            for p in places:
                if p >= 0:
                    self._last_reader[p] = i
        if len(place) < len(cards.forms):  # what the items of a block make may be read outside
            for card, read in cards.sources.items():
                for source in read if card not in place else ():
                    if source in place:
                        self._last_reader[place[source]] = len(items)

    def best(self) -> Repetition | None:
        """Return the repetition that hides most items; of several, one that begins with a seed, or the first."""
        best, score = None, (0, 0)
        candidates = sorted(self._candidates(), key=lambda c: -len(c[1]) * (c[0] - 1))
        for length, starts in candidates:
            if len(starts) * (length - 1) < score[0]:
                break
            for found in self._repetitions(starts, length):
                own = (found.hidden, int(self._seeded[found.starts[0]]))
                if own > score:
                    best, score = found, own
        return best

    def key(self, start: int, length: int) -> tuple[object, ...]:
        """Return what runs of one form have in common: forms of the items, and the edges among them."""
        outside: dict[int, int] = {}
        parts: list[object] = []
        for i in range(start, start + length):
            reads = [
                p - start if start <= p < start + length else -1 - outside.setdefault(p, len(outside))
                for p in self._reads[i]
            ]
            parts.append((self._forms[i], tuple(reads)))
        return tuple(parts)

    def _candidates(self) -> Iterator[tuple[int, list[int]]]:
        """Yield length and starts of runs whose forms are the same, without looking at edges."""
        count = len(self._items)
        names = self._names
        runs = {i: names[i] for i in range(count) if names[i] >= 0}
        for length in range(2, self._longest + 1):
            numbers: dict[tuple[int, int], int] = {}
            longer = {}
            for i, name in runs.items():
                if i + length <= count and names[i + length - 1] >= 0:
                    longer[i] = numbers.setdefault((name, names[i + length - 1]), len(numbers))
            counts = Counter(longer.values())
            runs = {i: name for i, name in longer.items() if counts[name] > 1}
            if not runs:
                return
            if length < LEAST:
                continue
            groups: dict[int, list[int]] = defaultdict(list)
            for i, name in runs.items():
                groups[name].append(i)
            for starts in groups.values():
                period = least_period(names[starts[0] : starts[0] + length])
                if period == length:
                    yield length, starts
                elif length % period and (apart := [i for i in starts if not self._goes_on(i, length, period)]):
                    yield length, apart

    def _goes_on(self, start: int, length: int, period: int) -> bool:
        """Return whether a run is part of a longer one of the same period, whose parts are folded instead."""
        names, end = self._names, start + length
        before = start > 0 and names[start - 1] == names[start - 1 + period]
        return before or (end < len(names) and names[end] == names[end - period])

    def _repetitions(self, starts: Sequence[int], length: int) -> Iterator[Repetition]:
        """Yield repetitions among runs whose forms are the same: those that are closed, with the same edges."""
        groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for start in starts:
            if self._is_closed(start, length):
                groups[self.key(start, length)].append(start)
        for found in groups.values():
            apart: list[int] = []
            for start in found:
                if not apart or start >= apart[-1] + length:
                    apart.append(start)
            if len(apart) > 1:
                yield Repetition(tuple(apart), length)

    def _is_closed(self, start: int, length: int) -> bool:
        """Return whether a run has one exit, its last item, and few entries, and parts no card from its tail."""
        end = start + length
        if self._tails[start] or (end < len(self._items) and self._tails[end]):
            return False
        exits = [i for i in range(start, end) if self._last_reader[i] >= end or self._last_reader[i] < 0]
        entries = {p for i in range(start, end) for p in self._reads[i] if p < start}
        return exits == [end - 1] and 0 < len(entries) <= MOST_ENTRIES


def least_period(names: Sequence[int]) -> int:
    """Return the distance after which a sequence repeats itself; its length if it does not.

    By its borders, as in D. E. Knuth, J. H. Morris, V. R. Pratt, SIAM J. Comput. 6(2), 1977.
    """
    borders, border = [0] * len(names), 0
    for i in range(1, len(names)):
        while border and names[i] != names[border]:
            border = borders[border - 1]
        border += names[i] == names[border]
        borders[i] = border
    return len(names) - border

"""Colours of a map: for each fact the bin that a card falls into, and its text on the card."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quantkit.mapping.difference import MapDifference, NodeChange
from quantkit.mapping.facts import CardFacts
from quantkit.mapping.operator_graph import Card, CardKind
from quantkit.mapping.result import NetworkMap
from quantkit.mapping.wording import change_text, decibel_text, number_text, share_text, short_name, time_text

UNKNOWN = -1
"""The bin of a card of which nothing is known."""
CATEGORIES = 6
"""Number of colours for values without an order; the last is for all others."""


@dataclass(frozen=True, slots=True)
class Shade:
    """The bin of a card, and the text on it; `weight` orders cards of a block: it shows that of its largest.

    shares: of a block by names, the bins of its cards with their share.
    """

    bin: int
    text: str
    weight: float = 0.0
    shares: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """The meaning of a bin; UNKNOWN for what is said of all of them."""

    bin: int
    text: str


@dataclass(frozen=True, slots=True)
class ColourMode:
    """A fact that cards are coloured by. ordered: its bins go from good to bad. legend: of the bins that occur."""

    key: str
    label: str
    ordered: bool
    legend: tuple[LegendEntry, ...]
    shades: tuple[Shade | None, ...]


def colour_modes(made: NetworkMap) -> tuple[ColourMode, ...]:
    """Return the ways to colour a map, without those that no card has a value for."""
    cards = list(zip(made.cards, made.facts, strict=True))
    total = total_time(made.facts)
    found = [
        *([change_mode(made, made.difference)] if made.difference is not None else []),
        named_mode("precision", "precision", cards, [facts.precision for facts in made.facts], PRECISIONS),
        binned_mode("sqnr", "SQNR", cards, lambda f: f.sqnr_db, decibel_text, DECIBELS),
        binned_mode("clipped", "clipped share", cards, lambda f: f.clipped, share_text, SHARES),
        binned_mode("scale", "scale", cards, lambda f: f.scale, number_text, SCALES),
        binned_mode("gain", "gain in float", cards, lambda f: f.gain_db, lambda v: decibel_text(v, "+.2f"), GAINS),
        kernel_mode(cards),
        binned_mode("time", "time", cards, lambda f: f.milliseconds, time_text, time_bins(total)),
        named_mode("reason", "reason for float", cards, [facts.reason.partition(":")[0] for facts in made.facts]),
        named_mode("operator", "operator", cards, [card.operator for card in made.cards]),
    ]
    return tuple(mode for mode in found if any(mode.shades))


@dataclass(frozen=True, slots=True)
class Bins:
    """Borders of ordered bins. rising: larger values are worse."""

    borders: tuple[float, ...]
    legend: tuple[str, ...]
    rising: bool = True

    def bin_of(self, value: float) -> int:
        """Return the bin of a value, 0 for the best."""
        place = bisect_right(self.borders, value)
        return place if self.rising else len(self.borders) - place


DECIBELS = Bins(
    (10.0, 20.0, 30.0, 40.0), ("40 dB and more", "30 to 40 dB", "20 to 30 dB", "10 to 20 dB", "below 10 dB"), False
)
SHARES = Bins((1e-4, 1e-3, 1e-2, 5e-2), ("below 0.01 %", "below 0.1 %", "below 1 %", "below 5 %", "5 % and more"))
SCALES = Bins((1e-3, 1e-2, 0.1, 1.0), ("below 0.001", "below 0.01", "below 0.1", "below 1", "1 and more"))
GAINS = Bins((0.1, 0.5, 1.0, 3.0), ("below 0.1 dB", "below 0.5 dB", "below 1 dB", "below 3 dB", "3 dB and more"))
PRECISIONS = ("INT8", "fused", "FP16", "float", "FP32", "FP8")
"""Precisions whose colours are the same on every map."""
FUSED = "fused"
SAME, CHANGED, REMOVED = 2, 3, 4
"""Bins of differences: what is the same is in a quiet colour."""


def time_bins(total: float) -> Bins:
    """Return bins for times: shares of the time of all kernels."""
    shares = (0.01, 0.02, 0.05, 0.1)
    return Bins(
        tuple(total * share for share in shares),
        ("below 1 % of all", "below 2 %", "below 5 %", "below 10 %", "10 % and more"),
    )


def total_time(facts: Sequence[CardFacts]) -> float:
    """Return the milliseconds of all kernels, each once; 1 if none was measured."""
    times = {f.kernel: f.milliseconds for f in facts if f.milliseconds is not None}
    return sum(times.values()) or 1.0


Cards = Sequence[tuple[Card, CardFacts]]


def binned_mode(
    key: str,
    label: str,
    cards: Cards,
    value_of: Callable[[CardFacts], float | None],
    text_of: Callable[[float | None], str],
    bins: Bins,
) -> ColourMode:
    """Return a mode for a number with ordered bins."""

    def shade(value: float | None) -> Shade | None:
        if value is None or math.isnan(value):
            return None
        return Shade(bins.bin_of(value), text_of(value), value if bins.rising else -value)

    legend = tuple(LegendEntry(i, text) for i, text in enumerate(bins.legend))
    return ColourMode(key, label, True, legend, tuple(shade(value_of(facts)) for _, facts in cards))


def named_mode(key: str, label: str, cards: Cards, values: Sequence[str], known: Sequence[str] = ()) -> ColourMode:
    """Return a mode for names: those that are known have their colour, the most frequent others one of those left.

    A block shows the share of its cards that have each name, so the weight is of no use.
    """
    operators = [card.kind is CardKind.OPERATOR for card, _ in cards]
    names = [value if operator else "" for value, operator in zip(values, operators, strict=True)]
    counts = Counter(name for name in names if name)
    free = [name for name, _ in counts.most_common() if name not in known]
    room = CATEGORIES - len(known)
    own = free if len(free) <= room else free[: room - 1]
    places = {name: i for i, name in enumerate([*known, *own])}
    legend = [
        LegendEntry(places[name], f"{short_name(name)}: {counts[name]:,}") for name in [*known, *own] if counts[name]
    ]
    if others := free[len(own) :]:
        places |= dict.fromkeys(others, CATEGORIES - 1)
        legend.append(LegendEntry(CATEGORIES - 1, f"{len(others)} others: {sum(counts[name] for name in others):,}"))
    shades = tuple(Shade(places[name], short_name(name)) if name else None for name in names)
    return ColourMode(key, label, False, tuple(legend), shades)


def kernel_mode(cards: Cards) -> ColourMode:
    """Return a mode in which neighbours of one kernel have one colour."""
    places: dict[str, int] = {}
    for _, facts in cards:
        if facts.kernel:
            places.setdefault(facts.kernel, len(places) % CATEGORIES)
    shades = tuple(Shade(places[f.kernel], short_name(f.kernel)) if f.kernel else None for _, f in cards)
    legend = LegendEntry(UNKNOWN, "neighbours of one colour are in one kernel; its name is on the card")
    return ColourMode("kernel", "kernel", False, (legend,), shades)


def change_mode(made: NetworkMap, difference: MapDifference) -> ColourMode:
    """Return a mode that marks what differs from another map."""
    changes: Mapping[str, NodeChange] = {change.name: change for change in difference.changes if change.kind != "added"}
    shades = tuple(
        Shade(SAME, "same") if card.name not in changes else change_shade(changes[card.name]) for card in made.cards
    )
    counts = Counter(shade.bin for shade in shades)
    legend = tuple(
        LegendEntry(i, f"{text}: {counts[i]:,}")
        for i, text in ((SAME, "same"), (CHANGED, "changed"), (REMOVED, f"not in {difference.other}"))
        if counts[i]
    )
    return ColourMode("change", "difference", True, legend, shades)


def change_shade(change: NodeChange) -> Shade:
    """Return the shade of a node that differs."""
    if change.kind == "removed":
        return Shade(REMOVED, "removed", 2.0)
    return Shade(CHANGED, change_text(change.before, change.after), 1.0)


def block_shade(mode: ColourMode, cards: Sequence[int]) -> Shade | None:
    """Return the shade of a folded block: the worst of its cards, or the share of those that have each name."""
    shades = [shade for card in cards if (shade := mode.shades[card]) is not None]
    if not shades:
        return None
    if mode.key == "change":
        changed = sum(shade.bin > SAME for shade in shades)
        return Shade(max(shade.bin for shade in shades), f"{changed} of {len(shades)} differ" if changed else "same")
    if mode.ordered:
        worst = max(shades, key=lambda shade: shade.weight)
        return Shade(worst.bin, f"at most {worst.text}" if mode.key != "sqnr" else f"at least {worst.text}")
    counts = Counter(shade.text for shade in shades)
    most = next((text for text, _ in counts.most_common() if text != FUSED), FUSED)
    place = next(shade.bin for shade in shades if shade.text == most)
    if mode.key == "kernel":
        return Shade(place, f"{len(counts)} kernels" if len(counts) > 1 else most)
    bins = Counter(shade.bin for shade in shades)
    shares = tuple((own, count / len(shades)) for own, count in sorted(bins.items()))
    listed = sorted(counts.most_common(), key=lambda one: one[0] == FUSED)  # the end may have no room
    return Shade(place, ", ".join(f"{count} {text}" for text, count in listed[:3]), shares=shares)

"""The facts of a card in words, for the page and for its table of all nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantkit.mapping.facts import CardFacts
from quantkit.mapping.operator_graph import Card
from quantkit.numerics import format_db
from quantkit.report.wording import format_percent, format_significant, format_size
from quantkit.view import shorten_middle

LONGEST = 300
"""Maximum number of characters of a name on the page; the document for programs has whole names."""
LISTED = 20
"""Maximum number of nodes inside a card that are listed."""
LABELS = (
    "precision", "reason", "scale", "SQNR", "clipped", "levels", "largest |x|", "weight scales", "SQNR of weights",
    "outputs with it alone", "gain in float", "kernel", "kernel kind", "kernel reads and writes", "nodes in the kernel",
    "bytes", "time", "shape", "tensor", "contains", "nodes inside",
)  # fmt: skip
"""Names of the facts, in the order in which they are shown."""


def fact_texts(card: Card, facts: CardFacts, members: Sequence[str]) -> tuple[str, ...]:
    """Return the facts of a card as text, in the order of `LABELS`; "" for those that are not known."""
    from_ = f" ({facts.precision_from})" if facts.precision_from else ""
    return (
        facts.precision and facts.precision + from_,
        short_name(facts.reason),
        number_text(facts.scale),
        decibel_text(facts.sqnr_db) + (" (estimated)" if facts.estimated and facts.sqnr_db is not None else ""),
        share_text(facts.clipped),
        "" if facts.levels is None else f"{facts.levels} of 256",
        number_text(facts.amax),
        weight_scales_text(facts.weight_scales),
        decibel_text(facts.weight_sqnr_db),
        decibel_text(facts.alone_db),
        decibel_text(facts.gain_db, "+.2f"),
        short_name(facts.kernel),
        short_name(facts.kernel_kind),
        facts.kernel_types,
        str(facts.kernel_nodes or ""),
        "" if facts.kernel_bytes is None else format_size(facts.kernel_bytes),
        time_text(facts.milliseconds),
        shape_text(facts.shape, facts.type),
        short_name(facts.tensor if facts.tensor != card.name else ""),
        shorten_middle(card.inside, 4 * LONGEST),
        member_text(members),
    )


def short_name(name: str) -> str:
    """Return a name that fits on the page."""
    return shorten_middle(name, LONGEST)


def number_text(value: float | None) -> str:
    """Return a number with four significant digits; "" for None."""
    return "" if value is None else format_significant(value)


def decibel_text(value: float | None, form: str = ".1f") -> str:
    """Return a ratio in dB; "" for None and for one that was not measured."""
    return "" if value is None or value != value else format_db(value, form)


def share_text(value: float | None) -> str:
    """Return a fraction in percent; "" for None."""
    return "" if value is None else format_percent(value, 3)


def time_text(value: float | None) -> str:
    """Return milliseconds; "" for None."""
    return "" if value is None else f"{value:.4f} ms"


def weight_scales_text(value: tuple[float, float, int] | None) -> str:
    """Return the range of the scales of weights; "" for None."""
    if value is None:
        return ""
    low, high, count = value
    if count == 1:
        return f"{format_significant(low)}, one for the tensor"
    return f"{format_significant(low)} … {format_significant(high)}, {count:,} channels"


def shape_text(shape: Sequence[int | None] | None, dtype: str) -> str:
    """Return a shape with its type: `? × 64 × 56 × 56 float32`."""
    if shape is None:
        return dtype
    sizes = " × ".join("?" if size is None else f"{size}" for size in shape) or "scalar"
    return f"{sizes} {dtype}".rstrip()


def member_text(members: Sequence[str]) -> str:
    """Return the names of nodes inside a card."""
    named = [shorten_middle(name, LONGEST // 3) for name in members[:LISTED]]
    more = len(members) - len(named)
    return ", ".join([*named, *([f"{more} more"] if more else [])])


FACT_LABELS: Mapping[str, str] = {
    "operator": "operator", "precision": "precision", "scale": "scale", "weight_scales": "weight scales",
    "amax": "largest |x|", "sqnr_db": "SQNR", "weight_sqnr_db": "SQNR of weights", "clipped": "clipped",
    "alone_db": "outputs with it alone", "gain_db": "gain in float", "kernel": "kernel", "milliseconds": "time",
    "reason": "reason",
}  # fmt: skip
"""Fact that two maps are compared by → its name."""


def fact_text(name: str, value: Any) -> str:
    """Return the value of a fact that two maps are compared by as text."""
    if value is None or value == "":
        return "none"
    if name == "weight_scales":
        return weight_scales_text(value)
    if name in ("scale", "amax"):
        return number_text(value)
    if name == "clipped":
        return share_text(value)
    if name == "milliseconds":
        return time_text(value)
    if name.endswith("_db"):
        return decibel_text(value) or "not measured"
    return short_name(str(value))


def change_text(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return what changed: `precision float → INT8; SQNR 31.2 dB → 35.0 dB`."""
    return "; ".join(
        f"{FACT_LABELS[name]} {fact_text(name, before[name])} → {fact_text(name, after[name])}" for name in before
    )

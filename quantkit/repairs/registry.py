"""The repairs that there are, in the order in which they are done, and the choice among them by name.

Those that rescale activations come first, since everything after them uses statistics that are collected again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from quantkit.errors import UsageError
from quantkit.repairs.bias import BIAS
from quantkit.repairs.equalization import EQUALIZE
from quantkit.repairs.repair import Needs, Repair
from quantkit.repairs.rounding import ROUND
from quantkit.repairs.smoothing import SMOOTH
from quantkit.values import QuantizedType

REPAIRS: tuple[Repair, ...] = (EQUALIZE, SMOOTH, ROUND, BIAS)
REPAIR_NAMES = tuple(repair.name for repair in REPAIRS)


def repairs_named(names: Collection[str]) -> tuple[Repair, ...]:
    """Return the repairs of these names in the order in which they are done. UsageError."""
    unknown = [name for name in names if name not in REPAIR_NAMES]
    if unknown:
        raise UsageError(
            f"unknown repair {', '.join(map(repr, unknown))}", remedy=f"give none, or any of {repair_choices()}"
        )
    return tuple(repair for repair in REPAIRS if repair.name in names)


def repair_choices(*, remarks: bool = False) -> str:
    """Return the names as a list for help texts. remarks: say which repairs need data."""
    if not remarks:
        return ", ".join(REPAIR_NAMES)
    groups = [(Needs.DATA, " (these need data)"), (Needs.STATISTICS, "")]
    lists = [(", ".join(repair.name for repair in REPAIRS if repair.needs is needs), note) for needs, note in groups]
    return ", ".join(names + note for names, note in lists if names)


def unfit_reason(repair: Repair, quantized_type: QuantizedType) -> str:
    """Return why a repair does nothing for a type; empty if it knows the type."""
    return "" if quantized_type is QuantizedType.INT8 else repair.int8_only


def parse_repairs(text: str) -> tuple[str, ...]:
    """Return the names in `equalize,round` or `none` in the order in which the repairs are done. UsageError."""
    names = [] if text == "none" else [part.strip() for part in text.split(",")]
    return names_of_repairs(repairs_named(names))


def names_of_repairs(repairs: Iterable[Repair]) -> tuple[str, ...]:
    """Return the names of repairs."""
    return tuple(repair.name for repair in repairs)


def from_statistics_alone(names: Collection[str] = REPAIR_NAMES) -> tuple[str, ...]:
    """Return the names of those repairs that need no data."""
    return names_of_repairs(repair for repair in repairs_named(names) if repair.needs is Needs.STATISTICS)


def needs_data(names: Collection[str]) -> bool:
    """Return True if one of these repairs has to run the network on data."""
    return any(repair.needs is Needs.DATA for repair in repairs_named(names))


def without_rescaling(names: Collection[str] = REPAIR_NAMES) -> tuple[str, ...]:
    """Return the names of those repairs that leave activations as they are."""
    return names_of_repairs(repair for repair in repairs_named(names) if not repair.rescales)


def without_rounding(names: Collection[str] = REPAIR_NAMES) -> tuple[str, ...]:
    """Return the names of those repairs that leave weights unrounded."""
    return names_of_repairs(repair for repair in repairs_named(names) if not repair.rounds_weights)


def resolve_repairs(
    asked: Sequence[str] | None,
    *,
    statistics: bool,
    data: bool,
    quantized_type: QuantizedType = QuantizedType.INT8,
) -> tuple[str, ...]:
    """Return the repairs that are done: those asked for, by default all that the sources and the type allow.

    UsageError where one lacks its source, or knows only another type.
    """
    possible = REPAIR_NAMES if data else from_statistics_alone() if statistics else ()
    if asked is None:
        known = [repair for repair in repairs_named(possible) if not unfit_reason(repair, quantized_type)]
        return names_of_repairs(known)
    chosen = repairs_named(parse_repairs(",".join(asked) or "none"))
    for repair in chosen:
        if why := unfit_reason(repair, quantized_type):
            raise UsageError(
                f"the repair {repair.name!r} is for INT8: {why}",
                remedy="leave it out; bias is for every type, and none for no repair",
            )
        if repair.name not in possible:
            needs = "statistics or data" if repair.needs is Needs.STATISTICS else "the data"
            raise UsageError(f"the repair {repair.name!r} needs {needs}", remedy="give --data, or leave the repair out")
    return names_of_repairs(chosen)

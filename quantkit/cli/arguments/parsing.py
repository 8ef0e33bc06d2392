"""Texts on the command line → values: lists, sizes, and names from a fixed set."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from quantkit.errors import UsageError

if TYPE_CHECKING:
    from quantkit.histogram import HistogramMode
    from quantkit.values import Algorithm


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """Return the parts of `a,b`; None for None."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """Return the numbers in `1,8,32`. UsageError."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a list of numbers", remedy=f"for example {option} 1,8,32") from None


def parse_switches(text: str) -> tuple[bool, ...]:
    """Return the settings that `on`, `off` or `both` stands for. UsageError."""
    known = {"on": (True,), "off": (False,), "both": (False, True)}
    if text not in known:
        raise UsageError(f"unknown --graphs {text!r}", remedy=f"use one of {', '.join(known)}")
    return known[text]


def parse_size(text: str) -> int:
    """Return the bytes of `512M`, `2G` or `1048576`. UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is not a size", remedy="for example 512M or 2G")
    return int(float(match[1]) * 1024 ** "_KMGT".index(match[2].upper() or "_"))


def parse_histogram(text: str) -> HistogramMode:
    """Return the mode called `tensorrt` or `invariant`. UsageError."""
    from quantkit.histogram import HistogramMode

    try:
        return HistogramMode(text)
    except ValueError:
        raise UsageError(f"unknown histogram {text!r}", remedy="use one of tensorrt, invariant") from None


def parse_algorithm(text: str | None) -> Algorithm | None:
    """Return an algorithm by TensorRT's name for it; None for None. UsageError."""
    from quantkit.values import Algorithm

    try:
        return None if text is None else Algorithm(text)
    except ValueError:
        known = ", ".join(a.value for a in Algorithm)
        raise UsageError(f"unknown algorithm {text!r}", remedy=f"use one of {known}") from None

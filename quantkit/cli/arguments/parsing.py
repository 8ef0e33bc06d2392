"""Texts on the command line → values: lists, sizes, and names from a fixed set."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click

from quantkit.errors import UsageError
from quantkit.view import quoted

if TYPE_CHECKING:
    from quantkit.histogram import HistogramMode
    from quantkit.values import Algorithm


class Number(click.ParamType):  # type: ignore[type-arg] # only newer versions of click have one
    """A number on the command line: digits of ASCII, finite, without the underscores and spaces of Python."""

    name = "number"
    pattern = re.compile(r"[+-]?([0-9]{1,400}([.][0-9]{0,400})?|[.][0-9]{1,400})([eE][+-]?[0-9]{1,4})?")
    wanted = "a number"
    example = "0.5"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text as a number. UsageError."""
        del ctx
        if not isinstance(value, str):
            return value
        found = self.of(value) if self.pattern.fullmatch(value) else math.nan
        if not math.isfinite(found):
            option = param.opts[0] if param else "a number"
            raise UsageError(
                f"{option} {quoted(value)} is not {self.wanted}", remedy=f"for example {option} {self.example}"
            )
        return found

    def of(self, text: str) -> float:
        """Return the number in a text that fits the pattern."""
        return float(text)


class WholeNumber(Number):
    """A whole number on the command line."""

    name = "integer"
    pattern = re.compile("[+-]?[0-9]{1,20}")
    wanted = "a whole number of at most 20 digits"
    example = "8"

    def of(self, text: str) -> int:
        """Return the number in a text that fits the pattern."""
        return int(text)


class PlaceType(click.Path):
    """The type of a parameter that is a path, or a URL, which stays a text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path, or a URL as it is."""
        from quantkit.locations import is_url, refuse_other_scheme

        refuse_other_scheme(value, UsageError)
        return value if is_url(value) else super().convert(value, param, ctx)


NUMBER = Number()
WHOLE = WholeNumber()


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """Return the parts of `a,b`; None for None."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """Return the numbers in `1,8,32`. UsageError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(WHOLE.pattern.fullmatch(part) for part in parts):
        raise UsageError(
            f"{option} {quoted(text)} is not a list of whole numbers", remedy=f"for example {option} 1,8,32"
        )
    return tuple(map(int, parts))


def parse_switches(text: str) -> tuple[bool, ...]:
    """Return the settings that `on`, `off` or `both` stands for. UsageError."""
    known = {"on": (True,), "off": (False,), "both": (False, True)}
    if text not in known:
        raise UsageError(f"unknown --graphs {text!r}", remedy=f"use one of {', '.join(known)}")
    return known[text]


MOST_BYTES = 1 << 63
"""Sizes below it fit into 64 bits with a sign, as those of TensorRT."""


def parse_size(text: str) -> int:
    """Return the bytes of `512M`, `2G` or `1048576`. UsageError."""
    match = re.fullmatch("([0-9]{1,19}(?:[.][0-9]{1,19})?) ?([KMGT]?)(?:I?B)?", text.strip().upper())
    size = float(match[1]) * 1024 ** "_KMGT".index(match[2] or "_") if match else 0.0
    if not 1.0 <= size < MOST_BYTES:
        raise UsageError(f"{quoted(text)} is not a size", remedy="for example 512M or 2G")
    return int(size)


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

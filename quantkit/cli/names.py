"""Words from the command line as values."""

from __future__ import annotations

from quantkit.errors import UsageError
from quantkit.histogram import HistogramMode
from quantkit.table import Algorithm


def histogram_named(text: str) -> HistogramMode:
    """`tensorrt` or `invariant`. UsageError."""
    try:
        return HistogramMode(text)
    except ValueError:
        raise UsageError(f"unknown histogram {text!r}", remedy="one of tensorrt, invariant") from None


def algorithm_named(text: str | None) -> Algorithm | None:
    """An algorithm by TensorRT's name. UsageError."""
    try:
        return None if text is None else Algorithm(text)
    except ValueError:
        known = ", ".join(a.value for a in Algorithm)
        raise UsageError(f"unknown algorithm {text!r}", remedy=f"one of {known}") from None

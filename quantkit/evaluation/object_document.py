"""Conversion of `ObjectChanges` and `RegionChanges` to JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantkit.evaluation.object_changes import ObjectChanges, RegionChanges

FIGURES = frozenset(
    {
        *("share", "low", "high", "mean_iou", "shift", "agreement", "drop"),
        *("reference", "candidate", "reference50", "candidate50"),
    }
)
"""Numbers that may be unknown; null stands for NaN."""
DIGITS = 5
"""Decimals of shares on a curve."""


def changes_json(changes: ObjectChanges | RegionChanges | None) -> dict[str, Any] | None:
    """Return changes as JSON values; NaN stays, for the caller to replace."""
    if changes is None:
        return None
    made: dict[str, Any] = as_json(asdict(changes))
    for curve in made.get("curves", ()):
        for model in ("reference", "candidate"):
            curve[model] = [round(value, DIGITS) for value in curve[model]]
    return made


def as_json(value: Any) -> Any:
    """Return tuples as lists and paths as text, at any depth."""
    if isinstance(value, Mapping):
        return {key: as_json(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [as_json(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def changes_fields(entry: Any) -> Any:
    """Return changes from JSON as fields: NaN where a figure is unknown, at any depth."""
    if isinstance(entry, Mapping):
        return {
            key: math.nan if value is None and key in FIGURES else changes_fields(value) for key, value in entry.items()
        }
    return [changes_fields(value) for value in entry] if isinstance(entry, list) else entry

"""The parts of a data set that its files' names tell: `train/…` and `val/…`, `train-00000-of-00002.parquet`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from quantkit.data.image_set import Split

PART = re.compile(r"(train|training|validation|valid|val|test)([-_.0-9].*)?", re.IGNORECASE)
EVALUATED = ("val", "valid", "validation", "test")
"""The parts to evaluate on, the best first."""


def part_of(name: str, *, folders_only: bool) -> str:
    """Return the part that a folder on the way to a file, or the file's own name, belongs to; "" for none."""
    for text in name.split("/")[: -1 if folders_only else None]:
        if found := PART.fullmatch(text):
            part = found[1].lower()
            return "train" if part == "training" else part
    return ""


def members_of(names: Sequence[str], split: Split, *, folders_only: bool) -> tuple[list[int], str]:
    """Return the indices of the files of one split, and the name of the part; all and "" if they are not divided."""
    parts = [part_of(name, folders_only=folders_only) for name in names]
    known = set(parts)
    held = next((part for part in EVALUATED if part in known), "")
    if "" in known or "train" not in known or not held:
        return list(range(len(names))), ""
    wanted = "train" if split is Split.TRAIN else held
    return [index for index, part in enumerate(parts) if part == wanted], wanted

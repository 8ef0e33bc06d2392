"""Labels that lie in the same files as the samples: members of archives, columns of tables, folders in names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LABELS = frozenset({"y", "label", "labels", "target", "targets"})
"""Names of an array of labels beside others."""
CLASSES = LABELS | {"class", "cls", "class_id", "class_name", "category"}
"""Names of a column or a key of labels in files that people write."""


@dataclass(frozen=True, slots=True)
class DeclaredLabels:
    """The labels of chosen samples as their files have them, in order: class indices, or names of classes.

    source: where they stand, for messages. classes: names by index, if the files declare them. every: all names of
    classes in the data set, also of samples that were not chosen; empty for indices. missing: why there are no labels,
    in words; values are empty then.
    """

    source: str
    values: Sequence[Any] = ()
    classes: tuple[str, ...] = ()
    every: tuple[str, ...] = ()
    missing: str = ""

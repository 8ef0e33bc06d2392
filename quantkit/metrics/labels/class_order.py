"""The order of classes: labels number them in their own way, and a network's outputs in another.

names of both sides are known     labels are matched by name; classes that no label uses do not matter, nor does case
                                  if each name stays the only one of its kind
none of the names is the same     by their order, if there are as many on both sides, with a warning
one side has no names             by their order
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError
from quantkit.metrics.boxes import Objects

SHOWN = 4


@dataclass(frozen=True, slots=True)
class ClassOrder:
    """Index of each label's class among the network's. names: of the network's classes. indices: None: the same.

    A class that no label uses may have the index −1.
    """

    names: tuple[str, ...]
    indices: NDArray[np.intp] | None = None
    notes: tuple[str, ...] = ()

    def apply(self, objects: Objects) -> Objects:
        """Return objects with the network's class indices."""
        return objects if self.indices is None else replace(objects, classes=self.indices[objects.classes])


def match_classes(labels: Sequence[str], network: Sequence[str], used: Mapping[int, str], source: str) -> ClassOrder:
    """Return how the classes of labels correspond to a network's. DataError if that is not known.

    labels, network: names by index; empty if they are unknown. used: indices of the classes that labels use,
    with the place of one such label. source: of the labels. Both are for messages.
    """
    if outside := sorted(index for index in used if labels and index >= len(labels)):
        raise DataError(
            f"{used[outside[0]]}: an object has class {outside[0]}, but the classes that have names are 0 … "
            f"{len(labels) - 1} ({shown(labels)})",
            remedy="correct the label, or name every class, in the order of the labels",
        )
    if not labels or not network or tuple(labels) == tuple(network):
        return ClassOrder(tuple(network or labels))
    ours, theirs = comparable_names(labels, network)
    place = {name: index for index, name in enumerate(theirs)}
    missing = [index for index in sorted(used) if ours[index] not in place]
    if len(place) == len(network) and not missing:
        indices = np.array([place.get(name, -1) for name in ours], np.intp)
        if (indices == np.arange(len(labels))).all():
            return ClassOrder(tuple(network))
        note = f"classes are matched by name: {len(labels)} of the labels, {len(network)} of the network"
        return ClassOrder(tuple(network), indices, (note,))
    both = f"the labels' ({shown(labels)}) and the network's ({shown(network)})"
    if len(labels) == len(network) and not set(ours) & set(theirs):
        return ClassOrder(tuple(labels), None, (f"names of classes differ, {both}: they are taken in their order",))
    raise DataError(
        f"{used[missing[0]] if missing else source}: class {labels[missing[0] if missing else 0]!r} is not a class of "
        f"the network: {both} differ",
        remedy="--classes FILE gives the names of the network's classes, in the order of its outputs",
    )


def comparable_names(labels: Sequence[str], network: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return both sides' names without case and outer spaces, if none of a side becomes equal to another of it."""
    ours, theirs = ([name.strip().casefold() for name in names] for names in (labels, network))
    alike = all(len(set(made)) == len(set(names)) for made, names in ((ours, labels), (theirs, network)))
    return (ours, theirs) if alike else (labels, network)


def shown(names: Sequence[str]) -> str:
    """Return the number of names and the first few."""
    return f"{len(names)}: {', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''}"

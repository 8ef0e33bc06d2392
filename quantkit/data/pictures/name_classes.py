"""Classes in the names of pictures: the first folder in which they differ."""

from __future__ import annotations

from collections.abc import Sequence

from quantkit.data.declared_labels import DeclaredLabels


def folder_around(names: Sequence[str]) -> str:
    """Return the folder around all names, with a slash at its end; "" if there is none."""
    if not names:
        return ""
    shared = ""
    first, last = min(names).split("/")[:-1], max(names).split("/")[:-1]  # all others lie between them
    for ours, theirs in zip(first, last, strict=False):
        if ours != theirs:
            break
        shared += f"{ours}/"
    return shared


def labels_in_names(names: Sequence[str], indices: Sequence[int], source: str) -> DeclaredLabels | None:
    """Return the class folders of chosen names; None unless every name has one, and there are two at least.

    Folders around all pictures are no classes.
    """
    length = len(folder_around(names))
    rest = [name[length:].split("/") for name in names]
    if not rest or any(len(parts) < 2 for parts in rest):
        return None
    every = tuple(sorted({parts[0] for parts in rest}))
    if len(every) < 2:
        return None
    return DeclaredLabels(f"{len(every)} class folders of {source}", [rest[i][0] for i in indices], every=every)

"""A digest of labels, so that evaluations on other labels are not taken for the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from quantkit.metrics.boxes import ClassMap, Scene


class LabelDigest:
    """The sha256 of labels that were added batch by batch, whatever the size of the batches: over those of each."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._digests = bytearray()
        self._known = True

    def add(self, labels: Iterable[Any]) -> None:
        """Add the labels of a batch, one for each sample."""
        for label in labels:
            self._hash = hashlib.sha256()
            try:
                self._feed(label_content(label))
            except TypeError:
                self._known = False
            self._digests += self._hash.digest()

    @property
    def text(self) -> str | None:
        """The digest; None without labels, or if one holds values that have no digest."""
        return hashlib.sha256(self._digests).hexdigest() if self._known and self._digests else None

    def state(self) -> Mapping[str, Any]:
        """Return the digests of all labels, one after the other."""
        return {"digests": bytes(self._digests), "known": self._known}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the labels that follow."""
        self._digests += state["digests"]
        self._known = self._known and state["known"]

    def _feed(self, value: Any) -> None:
        """Add a value and its type. TypeError for types other than numbers, text, arrays, and collections of those."""
        if isinstance(value, np.ndarray | np.generic):
            values = np.asarray(value)
            if values.dtype.hasobject:
                raise TypeError("objects have no digest")
            self._hash.update(f"{values.dtype.str}{values.shape}".encode())
            self._hash.update(np.ascontiguousarray(values).tobytes())
        elif value is None or isinstance(value, bool | int | float | str):
            text = repr(value).encode("utf-8", "surrogateescape")
            self._hash.update(b"%d:%s" % (len(text), text))
        elif is_dataclass(value) and not isinstance(value, type):
            self._feed([getattr(value, field.name) for field in fields(value)])
        elif isinstance(value, Mapping):
            self._feed([[key, value[key]] for key in sorted(value, key=repr)])
        elif isinstance(value, list | tuple):
            self._hash.update(b"[%d" % len(value))
            for part in value:
                self._feed(part)
        else:
            raise TypeError(f"{type(value).__name__} has no digest")


def label_content(label: Any) -> Any:
    """Return what a label says of its image, without how the image became the input."""
    if isinstance(label, Scene):
        return label.objects
    return label.classes if isinstance(label, ClassMap) else label

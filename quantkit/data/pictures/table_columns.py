"""Which columns of a table hold the images and the labels: by the Hugging Face features in its schema, else by type and
name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantkit.data.declared_labels import CLASSES
from quantkit.errors import DataError

IMAGES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "image_bytes", "bytes", "data", "content")
"""Names of a column of images, the best first, where several columns could be one."""
KEY = b"huggingface"
"""The key of the features in the metadata of a schema, as the library `datasets` writes them."""


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """A column of labels. classes: names by index, if the features declare them."""

    name: str
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableColumns:
    """The column of images, the columns that can be labels, and the names of all columns."""

    image: str
    labels: tuple[LabelColumn, ...]
    every: tuple[str, ...]


def columns_of(schema: Any, place: str) -> TableColumns:
    """Return the columns of a table by its Arrow schema. DataError where none, or not one alone, can hold images."""
    features = declared_features(schema)
    image = image_column(schema, features, place)
    declared = [
        LabelColumn(name, tuple(map(str, feature.get("names") or ())))
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and name in schema.names
    ]
    named = [LabelColumn(name) for name in schema.names if name.lower() in CLASSES and name != image]
    return TableColumns(image, tuple(declared or named), tuple(schema.names))


def declared_features(schema: Any) -> Mapping[str, Any]:
    """Return the Hugging Face features of a schema by column; empty if it declares none that can be read."""
    try:
        found = json.loads((schema.metadata or {}).get(KEY, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def image_column(schema: Any, features: Mapping[str, Any], place: str) -> str:
    """Return the name of the column of images. DataError."""
    declared = [
        n for n, f in features.items() if isinstance(f, dict) and f.get("_type") == "Image" and n in schema.names
    ]
    found = declared or [field.name for field in schema if holds_bytes(field.type)]
    if len(found) > 1:
        found = [name for name in IMAGES if name in found][:1] or found
    if len(found) != 1:
        fault = f"{', '.join(found[:4])} could all be the images" if found else "no column holds the bytes of images"
        raise DataError(
            f"{place}: {fault}; its columns are {', '.join(schema.names[:12]) or 'none'}",
            remedy="name the column of encoded images `image`: bytes, or a struct with the bytes, as in Hugging Face's",
        )
    return found[0]


def holds_bytes(kind: Any) -> bool:
    """Return True for a column of bytes, or of a struct with a field `bytes`."""
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(kind[i].name == "bytes" and holds_bytes(kind[i].type) for i in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def choose_label(columns: TableColumns, classes: int | None) -> LabelColumn | str:
    """Return the column of labels; why there is none, in words, where none or several could be it.

    classes: of the network, which decide between columns that declare theirs.
    """
    found = columns.labels
    if len(found) > 1:
        found = tuple(c for c in found if len(c.classes) == classes) or tuple(c for c in found if c.name == "label")
    if len(found) == 1:
        return found[0]
    listed = ", ".join(column.name for column in columns.labels)
    if listed:
        return f"its columns {listed} are all labels, and none fits the network alone"
    return f"none of its columns ({names_in_words(columns.every)}) is called label, target or class"


def names_in_words(names: Sequence[str]) -> str:
    """Return the first names of a list."""
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")

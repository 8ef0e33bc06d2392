"""The file of a shard's totals: sealed safetensors, with the totals as a tree of plain values and arrays.

values      uint8 [B]    the bytes of all arrays, one after the other, in the order in which the tree names them
sha256      uint8 [32]   the seal (see `statistics.sealed`)
metadata    one key, that of the format: canonical JSON with the record of the shard and the tree

None, true, false, whole numbers, texts and lists stand for themselves; everything else is an object with one key:

    {"float": "0x1.8p+0"}   {"map": [[key, …], …]}   {"tuple": […]}   {"array": [type, shape]}   {"bytes": length}
    {"record": [name, [[field, …], …]]}    one of the frozen values that the format names, and no other
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any, Literal

import numpy as np

from quantkit.artifact import canonical_json
from quantkit.document import DocumentType
from quantkit.errors import ShardError
from quantkit.frozen_record import FrozenRecord
from quantkit.sharding import ShardRecord
from quantkit.statistics.sealed import check_typed, open_sealed, sealed_bytes
from quantkit.values import Array

STORED = "biufUS"
"""Kinds of arrays: numbers, truth values and texts."""
STORED_TYPE = re.compile(rf"[<>|][{STORED}]\d{{1,9}}")
"""Types of arrays as `dtype.str` writes them; numpy evaluates other texts."""


class TreeDocument(FrozenRecord):
    """The metadata of the file."""

    format: Literal[1]
    shard: ShardRecord
    tree: Any


@functools.cache
def document_type(what: str, remedy: str) -> DocumentType[TreeDocument]:
    """Return the type of the metadata, for errors about such a file."""
    return DocumentType(TreeDocument, what, ShardError, remedy)


@dataclass(frozen=True, slots=True)
class StoredTotals:
    """The content of a file: the record of the shard, and the tree."""

    shard: ShardRecord
    tree: Mapping[str, Any]

    @property
    def samples(self) -> int:
        """The number of samples that were read. KeyError, TypeError or ValueError where the tree is damaged."""
        return int(self.tree["data"]["samples"])

    @property
    def content(self) -> str:
        """The identity of the samples by content, without their order. Errors are those of `samples`."""
        return str(self.tree["data"]["content"])


@dataclass(frozen=True, slots=True)
class TotalsFormat:
    """A kind of files. suffix: of their names. key: of the metadata. what: such a file in words, with an article.

    remedy: for a damaged one. records: the frozen values that a tree may hold, by name.
    """

    suffix: str
    key: str
    what: str
    remedy: str
    records: Mapping[str, type[Any]] = field(default_factory=dict)

    def content_of(self, shard: ShardRecord, tree: Mapping[str, Any]) -> bytes:
        """Return the content of the file. TypeError for values that a tree does not hold."""
        blob: list[bytes] = []
        described = describe_value(tree, blob, self.records)
        document = TreeDocument(format=1, shard=shard, tree=described)
        values = np.frombuffer(b"".join(blob), np.uint8)
        return sealed_bytes({"values": values}, self.key, canonical_json(document.model_dump(mode="json")))

    def parse(self, content: bytes, where: str) -> StoredTotals:
        """Return the content of a file; `where` names it in errors. ShardError where it is another, or damaged."""
        other = f"{where} is not {self.what}, or is damaged"
        try:
            file = open_sealed(content, self.key)
            document = document_type(self.what, self.remedy).parse(file.text, f"{other}: its metadata")
            values = file.arrays.get("values", np.zeros(0, np.uint8))
            reader = TreeReader(check_typed(values, np.uint8, (values.size,)).tobytes(), self.records)
            tree = reader.value(document.tree)
            if not isinstance(tree, Mapping):
                raise ValueError("its tree is no map")
        except KeyError as error:
            raise ShardError(f"{other}: no {error}", remedy=self.remedy) from None
        except (ValueError, TypeError, OverflowError) as error:
            raise ShardError(f"{other}: {error}", remedy=self.remedy) from None
        return StoredTotals(document.shard, tree)


def describe_value(value: Any, blob: list[bytes], records: Mapping[str, type[Any]]) -> Any:
    """Return a value as JSON, and add the bytes of its arrays to `blob`. TypeError."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return {"float": float(value).hex()}
    if isinstance(value, np.generic):
        return describe_value(value.item(), blob, records)
    if isinstance(value, bytes):
        blob.append(value)
        return {"bytes": len(value)}
    if isinstance(value, np.ndarray):
        return describe_array(value, blob)
    if isinstance(value, Mapping):
        return {"map": [[str(key), describe_value(item, blob, records)] for key, item in value.items()]}
    if isinstance(value, list):
        return [describe_value(item, blob, records) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [describe_value(item, blob, records) for item in value]}
    if records.get(name := type(value).__name__) is type(value):
        parts = [[part.name, describe_value(getattr(value, part.name), blob, records)] for part in fields(value)]
        return {"record": [name, parts]}
    raise TypeError(f"a value of type {name} has no place in a file")


def describe_array(array: Array, blob: list[bytes]) -> Any:
    """Return type and shape of an array as JSON, and add its bytes to `blob`. TypeError."""
    if array.dtype.kind not in STORED:
        raise TypeError(f"an array of {array.dtype} has no place in a file")
    blob.append(np.ascontiguousarray(array).tobytes())
    return {"array": [array.dtype.str, list(array.shape)]}


class TreeReader:
    """A reader of values from JSON; the bytes of their arrays follow each other in `blob`."""

    def __init__(self, blob: bytes, records: Mapping[str, type[Any]]) -> None:
        self._blob, self._at, self._records = blob, 0, records

    def value(self, described: Any) -> Any:
        """Return a value. ValueError, TypeError or KeyError where it is damaged."""
        if described is None or isinstance(described, (bool, int, str)):
            return described
        if isinstance(described, list):
            return [self.value(item) for item in described]
        if not isinstance(described, dict) or len(described) != 1:
            raise ValueError(f"a value of type {type(described).__name__} has another form")
        ((kind, content),) = described.items()
        if kind == "float":
            return float.fromhex(content)
        if kind == "bytes":
            return self._take(content)
        if kind == "array":
            return self._array(*content)
        if kind == "map":
            return {key: self.value(item) for key, item in content}
        if kind == "tuple":
            return tuple(self.value(item) for item in content)
        if kind == "record":
            name, parts = content
            return self._records[name](**{part: self.value(item) for part, item in parts})
        raise ValueError(f"unknown kind of value {kind!r}")

    def _array(self, type_text: str, shape: list[int]) -> Array:
        if not STORED_TYPE.fullmatch(type_text) or any(size < 0 for size in shape):
            raise ValueError(f"an array is {type_text} {shape}")
        dtype = np.dtype(type_text)
        content = self._take(dtype.itemsize * prod(shape))
        array: Array = np.frombuffer(content, dtype).reshape(shape).copy()
        return array

    def _take(self, length: int) -> bytes:
        content = self._blob[self._at : self._at + length]
        if length < 0 or len(content) != length:
            raise ValueError("arrays are longer than the file")
        self._at += length
        return content

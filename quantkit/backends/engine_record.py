"""The record beside an engine (`x.engine.json`): its inputs, its target, and its layers.

An engine is valid for one TensorRT and one GPU (or as its compatibility options say), and does not hold its origin.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from quantkit.artifact import Digest, text_bytes
from quantkit.document import DocumentType
from quantkit.errors import BackendError
from quantkit.frozen_record import FileName, FrozenRecord
from quantkit.paths import beside
from quantkit.provenance import ModelRecord, read_record, with_digest

SUFFIXES = frozenset({".engine", ".plan", ".trt"})
"""Suffixes of engine files."""
MOVES = frozenset({"Reformat", "NoOp", "Shuffle", "Copy", "Constant"})
"""Layer types that only move data."""


def is_engine(path: Path) -> bool:
    """Return True if a file has the suffix of an engine."""
    return path.suffix.lower() in SUFFIXES


class EngineLayer(FrozenRecord):
    """A layer of an engine.

    nodes: its ONNX nodes. kind: TensorRT's layer type. precision: in which it computes; `mixed` for a region whose
    content is not shown. reason: why it is not INT8, in an engine that allows INT8; None otherwise.
    """

    name: str
    nodes: tuple[str, ...]
    kind: str
    precision: str
    tactic: str = ""
    reason: str | None = None

    @property
    def computes(self) -> bool:
        """True if it does more than move data."""
        return self.kind not in MOVES


def precision_counts(layers: Sequence[EngineLayer]) -> dict[str, int]:
    """Return the number of layers that compute in each precision, the most frequent first."""
    return dict(Counter(layer.precision for layer in layers if layer.computes).most_common())


class TensorRecord(FrozenRecord):
    """An input or output of the engine. shape: −1 for a dynamic dimension; dtype: its name in numpy."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class TableUse(FrozenRecord):
    """The calibration table that an engine was built with.

    share: fraction of the tensors that calibration observes which have a scale; missing: the others. completed: tensors
    whose scale was derived from the network. inner: tensors without a scale that only TensorRT has.
    """

    file: FileName
    sha256: str
    header: str
    rule: str | None = None
    share: float
    completed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


class EngineRecord(FrozenRecord):
    """The record of an engine. `identity` decides whether an existing engine can be reused."""

    format: Literal[1] = 1
    quantkit: str
    file: FileName
    sha256: str
    bytes: int
    tensorrt: str
    gpu: str
    model: ModelRecord
    precision: str
    shapes: dict[str, str]
    options: dict[str, Any]
    table: TableUse | None = None
    explicit: bool = False
    """True if the model has Q/DQ."""
    seconds: float
    device_memory: int
    layers: tuple[EngineLayer, ...]
    kept: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    trtexec: FileName | None = None
    no_trtexec: str = ""
    """The reason why there is no `trtexec` line."""
    inputs: tuple[TensorRecord, ...] = ()
    outputs: tuple[TensorRecord, ...] = ()
    """Inputs and outputs are empty in records of older versions, which did not keep them."""

    @property
    def has_scales(self) -> bool:
        """True if INT8 had scales to work with."""
        return self.explicit or self.table is not None

    def identity(self) -> dict[str, Any]:
        """Return everything that the engine depends on, by the name that the user knows it by."""
        return {
            "TensorRT": self.tensorrt,
            "GPU": self.gpu,
            "model": Digest(self.model.sha256),
            "table": Digest(self.table.sha256) if self.table else None,
            "rule of the table": self.table.rule if self.table else None,
            "quantkit": self.quantkit if self.table else None,
            "shapes": self.shapes,
            "options": self.options,
        }


ENGINE_RECORD = DocumentType[EngineRecord](
    EngineRecord, "a record of this quantkit", BackendError, "build again with --force"
)


def engine_record_path(engine: Path) -> Path:
    """Return the path of the record beside an engine: `x.engine` → `x.engine.json`."""
    return beside(engine, engine.name + ".json")


def engine_record_bytes(record: EngineRecord) -> bytes:
    """Return a record as indented JSON."""
    document = with_digest(record.model_dump(mode="json", exclude_none=True))
    return text_bytes(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def read_engine_record(engine: Path) -> EngineRecord | None:
    """Read the record beside an engine; None where there is none. BackendError where it is damaged."""
    return read_record(ENGINE_RECORD, engine_record_path(engine))


def is_engine_record(engine: Path) -> bool:
    """Return True if there is a record beside an engine, or where it would be."""
    try:
        return read_engine_record(engine) is not None
    except BackendError:
        return False

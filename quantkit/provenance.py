"""The provenance beside a calibration table (`x.calib.json`): what it was made of.

A table is text that TensorRT reads and cannot carry this itself; the sidecar holds the table's sha256, so that an
edited or exchanged table is noticed. It names files by their name only and holds no dates, so that it can be shared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from quantkit.errors import TableError
from quantkit.frozen_record import FrozenRecord
from quantkit.histogram import HistogramMode


class TableRecord(FrozenRecord):
    """The table itself."""

    file: str
    sha256: str
    header: str
    tensors: int


class ModelRecord(FrozenRecord):
    """The model, by the name of its file and the sha256 of graph and weights."""

    file: str
    sha256: str


class DataRecord(FrozenRecord):
    """The samples: their sum of digests (`content`), and their order in batches (`order`)."""

    source: str
    kind: str
    samples: int
    """Samples that were counted."""
    chosen: int
    """Samples that were chosen: those counted, and those that were left out because they cannot be read."""
    content: str
    order: str | None = None
    limit: int | None = None
    shuffle: bool
    seed: int
    skipped: tuple[str, ...] = ()
    """Samples that could not be read and were left out on request."""
    files: tuple[tuple[str, int, int], ...] = ()
    """Name, size and time of modification (ns) of every file: while these are the same, so is the content."""


class RunRecord(FrozenRecord):
    """How the statistics were collected."""

    histogram: HistogramMode
    backend: str
    batch_size: int | None = None
    batches: int
    slice: int
    max_memory: int | None = None
    """None where a table was made from statistics, which do not tell."""


class Provenance(FrozenRecord):
    """All of it. `adopted` tables came from elsewhere: only table and model are known. `qdq` tables hold the scales of
    the Q/DQ model `source`; their model is the float network that was left of it."""

    format: Literal[1] = 1
    quantkit: str
    table: TableRecord
    model: ModelRecord
    origin: Literal["calibrated", "adopted", "qdq"] = "calibrated"
    source: ModelRecord | None = None
    rule: str | None = None
    data: DataRecord | None = None
    preprocess: dict[str, Any] | None = None
    preprocess_from: str | None = None
    run: RunRecord | None = None


def backend_kind(backend: str) -> str:
    """What decides about the numbers of a backend: `onnxruntime 1.32.0 cpu` → `onnxruntime cpu`; `tensorrt`."""
    words = backend.split(" ")
    return words[0] if words[0] == "tensorrt" else f"{words[0]} {words[-1]}"


def provenance_path(table: Path) -> Path:
    """`x.calib` → `x.calib.json`."""
    return table.with_name(table.name + ".json")


def provenance_bytes(provenance: Provenance) -> bytes:
    """Indented JSON with sorted keys; the list of files takes one line each."""
    document = provenance.model_dump(mode="json", exclude_none=True)
    files = document.get("data", {}).pop("files", None)
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    if files:
        lines = ",\n".join("      " + json.dumps(entry, ensure_ascii=False) for entry in files)
        head, tail = text.split('"data": {\n', 1)
        text = f'{head}"data": {{\n    "files": [\n{lines}\n    ],\n{tail}'
    return (text + "\n").encode()


def read_provenance(path: Path) -> Provenance | None:
    """The provenance in a file; None where there is none. TableError where it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}", remedy="check the path") from None
    try:
        return Provenance.model_validate_json(content)
    except ValidationError as error:
        where = error.errors()[0]
        raise TableError(
            f"{path} is no provenance of this quantkit: {'.'.join(map(str, where['loc']))}: {where['msg']}",
            remedy="calibrate again with --force, or remove it",
        ) from None

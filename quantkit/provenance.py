"""The provenance record beside a calibration table (`x.calib.json`): what the table was made from.

A table is text in TensorRT's format, which has no place for it; the record holds the sha256 of the table, so that an
edited or exchanged table is detected. It contains only names of files, and no dates, so that it can be shared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from quantkit.artifact import canonical_json, check_destinations, sha256_of, text_bytes
from quantkit.document import DocumentType
from quantkit.errors import TableError
from quantkit.frozen_record import FileName, FrozenRecord
from quantkit.histogram import HistogramMode
from quantkit.paths import beside, exists
from quantkit.regular_file import Stamp

DIGEST = "digest"
"""The key of a record's own sha256, which is over all other keys."""
T = TypeVar("T")


class TableRecord(FrozenRecord):
    """The table of the record."""

    file: FileName
    sha256: str
    header: str
    tensors: int
    without_scale: tuple[str, ...] | None = None
    """Float tensors whose values have no scale (NaN, Inf, masks, no values at all); None if there are none."""


class ModelRecord(FrozenRecord):
    """The model: the name of its file, and the sha256 of graph and weights."""

    file: FileName
    sha256: str


class DataRecord(FrozenRecord):
    """The samples: the sum of their digests (`content`), and a digest of their order in batches (`order`)."""

    source: FileName
    kind: str
    samples: int
    """Number of samples that were counted."""
    chosen: int
    """Number of samples that were chosen: those counted, and those that were skipped because they cannot be read."""
    content: str
    order: str | None = None
    limit: int | None = None
    shuffle: bool
    seed: int
    skipped: tuple[FileName, ...] = ()
    """Samples that could not be read and were skipped on request."""
    files: tuple[Stamp | tuple[str, int, int], ...] = ()
    """Name, size, modification time (ns), inode and time of change (ns) of every file: if these are the same, so is the
    content. Records of quantkit 0.1 have the first three alone, and the content is compared."""


class RunRecord(FrozenRecord):
    """The run that collected the statistics."""

    histogram: HistogramMode
    backend: str
    batch_size: int | None = None
    batches: int
    slice: int
    max_memory: int | None = None
    """None if a table was made from statistics, which do not record it."""
    exclude: tuple[str, ...] = ()
    """Layers that were to stay float, so that what they read needs no scale."""


class Provenance(FrozenRecord):
    """A provenance record. `adopted` tables are of unknown origin: only table and model are known. `qdq` tables hold
    the scales of the Q/DQ model `source`; their model is the float network that was recovered from it."""

    format: Literal[1] = 1
    quantkit: str
    table: TableRecord
    model: ModelRecord
    origin: Literal["calibrated", "adopted", "qdq"] = "calibrated"
    source: ModelRecord | None = None
    rule: str | None = None
    data: DataRecord | None = None
    preprocess: dict[str, Any] | None = None
    preprocess_from: FileName | None = None
    run: RunRecord | None = None


PROVENANCE = DocumentType[Provenance](
    Provenance, "a provenance record of this quantkit", TableError, "calibrate again with --force, or remove it"
)


def backend_kind(backend: str) -> str:
    """Return the part of a backend's label that affects the numbers: `onnxruntime 1.32.0 cpu` → `onnxruntime cpu`."""
    words = backend.split(" ")
    return words[0] if words[0] == "tensorrt" else f"{words[0]} {words[-1]}"


def provenance_path(table: Path) -> Path:
    """Return the path of the record beside a table: `x.calib` → `x.calib.json`."""
    return beside(table, table.name + ".json")


def provenance_bytes(provenance: Provenance) -> bytes:
    """Return a record as indented JSON with sorted keys; each file takes one line."""
    kept = provenance.model_dump(mode="json", exclude_none=True)
    if provenance.data is not None and not provenance.data.files:
        del kept["data"]["files"]
    document = with_digest(kept)
    files = document.get("data", {}).pop("files", None)
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    if files:
        lines = ",\n".join("      " + json.dumps(entry, ensure_ascii=False) for entry in files)
        head, tail = text.split('"data": {\n', 1)
        text = f'{head}"data": {{\n    "files": [\n{lines}\n    ],\n{tail}'
    return text_bytes(text + "\n")


def read_provenance(path: Path) -> Provenance | None:
    """Read the provenance record in a file; None if there is no file. TableError where it is damaged."""
    return read_record(PROVENANCE, path)


def with_digest(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON values of a record together with their sha256, so that damage on disk is noticed."""
    return {**document, DIGEST: sha256_of(text_bytes(canonical_json(dict(document))))}


def read_record(kind: DocumentType[T], path: Path) -> T | None:
    """Read a record with its digest; None if there is no file. The failure of its kind where it is damaged.

    Records of quantkit 0.1 have no digest.
    """
    return typed_record(kind, kind.read_untyped(path), str(path)) if exists(path) else None


def parse_record(kind: DocumentType[T], text: str, where: str) -> T:
    """Return the record in a text, otherwise as `read_record`."""
    return typed_record(kind, kind.parse_untyped(text, where), where)


def typed_record(kind: DocumentType[T], document: Any, where: str) -> T:
    """Return JSON values as a record. The failure of its kind where they are not those of its digest."""
    digest = document.pop(DIGEST, None) if isinstance(document, dict) else None
    found = kind.typed(document, where)
    if digest is not None and digest != with_digest(document)[DIGEST]:
        raise kind.failure(f"{where} is damaged: its content is not what was written", remedy=kind.remedy)
    return found


def is_provenance(path: Path) -> bool:
    """Return True if a file is a provenance record, which only quantkit writes."""
    try:
        return read_provenance(path) is not None
    except TableError:
        return False


def check_tables_writable(
    tables: Iterable[Path], *, read: Iterable[object] = (), force: bool
) -> Callable[[Path], bool]:
    """Check the files of tables and of their records before the work: result and errors as for `check_destinations`.

    A record that lies there without its table may be replaced.
    """
    tables, read = tuple(tables), tuple(read)
    check_destinations(tables, read=read, force=force)
    return check_destinations(map(provenance_path, tables), read=read, force=force, ours=is_provenance)

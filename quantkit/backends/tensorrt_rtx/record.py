"""The record of a compiled network (`x.compiled.json`): its kernels for each architecture, and the model it is made of.

It is what `quantkit compile --record` writes, and other verbs read; no engine and no compiler is needed for that.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from quantkit.artifact import text_bytes
from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork
from quantkit.document import DocumentType
from quantkit.errors import BackendError
from quantkit.frozen_record import FileName, FrozenRecord
from quantkit.provenance import ModelRecord, typed_record, with_digest


class SavedEngine(FrozenRecord):
    """An engine that was saved: its file, and the architecture of the GPUs that run it."""

    file: FileName
    sha256: str
    bytes: int
    architecture: str


class CompiledRecord(FrozenRecord):
    """The record of a compiled network. networks: one for each architecture."""

    format: Literal[1] = 1
    quantkit: str
    model: ModelRecord
    networks: tuple[CompiledNetwork, ...]
    engines: tuple[SavedEngine, ...] = ()


COMPILED_RECORD = DocumentType[CompiledRecord](
    CompiledRecord, "a record of quantkit compile", BackendError, "compile again: quantkit compile MODEL --record PATH"
)


def compiled_record_bytes(record: CompiledRecord) -> bytes:
    """Return a record as JSON with its digest; each kernel takes one line."""
    document = with_digest(record.model_dump(mode="json", exclude_none=True))
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text_bytes(text.replace('{"name":', '\n{"name":') + "\n")


def read_compiled_record(path: str | os.PathLike[str]) -> CompiledRecord:
    """Read a record. BackendError if it is missing, damaged, or something else."""
    return typed_record(COMPILED_RECORD, COMPILED_RECORD.read_untyped(path), str(path))


def is_compiled_record(path: Path) -> bool:
    """Return True if a file is such a record, which only quantkit writes."""
    try:
        read_compiled_record(path)
    except BackendError:
        return False
    return True

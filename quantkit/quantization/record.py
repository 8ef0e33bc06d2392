"""The record of `quantize` in the metadata of a Q/DQ model: its float model, its scales, and what else was changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quantkit.document import DocumentType
from quantkit.errors import ModelError
from quantkit.provenance import parse_record

METADATA_KEY = "quantkit.quantize"


@dataclass(frozen=True, slots=True)
class QuantizationRecord:
    """The part of the record that is read again.

    model: sha256 of the float model. scales: their origin. weights: the form in which they are stored. fp16: the rest
    of the network is FP16. repairs: their names.
    """

    model: str = ""
    scales: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    fp16: bool = False
    repairs: tuple[str, ...] = ()


RECORD = DocumentType[QuantizationRecord](
    QuantizationRecord, "a record of quantkit quantize", ModelError, "quantize it again"
)


def quantization_record(metadata: Mapping[str, str], name: str) -> QuantizationRecord | None:
    """Return the record in the metadata of the model `name`; None if there is none. ModelError if it is damaged."""
    text = metadata.get(METADATA_KEY)
    return None if text is None else parse_record(RECORD, text, f"the metadata {METADATA_KEY!r} of {name}")

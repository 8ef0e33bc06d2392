"""The base of all records that are kept in files: frozen, strict, and without unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenRecord(BaseModel):
    """A frozen record. Unknown keys and values of another type are refused (pydantic's ValidationError)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

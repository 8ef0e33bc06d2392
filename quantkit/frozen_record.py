"""The base of all records that are kept in files: frozen, strict, and without unknown keys."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict

from quantkit.regular_file import readable_name


def readable_text(value: Any) -> Any:
    """Return a text with the names of files in it as records keep them; another value, which is refused, as it is."""
    return readable_name(value) if isinstance(value, str) else value


FileName: TypeAlias = Annotated[str, BeforeValidator(readable_text)]
r"""The name of a file, or a text that contains one: bytes that are not UTF-8 become `\xe4`."""


class FrozenRecord(BaseModel):
    """A frozen record. Unknown keys and values of another type are refused (pydantic's ValidationError)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

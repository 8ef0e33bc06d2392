"""The door through which JSON and TOML documents come in: their bytes become one typed value, or one error.

Before a value is looked at, its document is bounded: the size of the file, the depth of its nesting, numbers that are
finite and fit into 64 bits, no key twice, text in UTF-8 (a byte order mark is skipped). Then pydantic checks the types.

    RECORD = DocumentType(Provenance, "a provenance record", TableError, "calibrate again with --force")
    RECORD.read(path)               the value in a file
    RECORD.read_optional(path)      None if there is no file
    RECORD.parse(content, where)    the value in a text, such as the metadata of a model
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from quantkit.errors import QuantkitError
from quantkit.regular_file import read_regular
from quantkit.view import shorten_middle

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST = 256 << 20
"""Maximum size of a document, in bytes: a provenance record lists every image of a large data set."""
LARGEST_TOML = 1 << 20
"""Maximum size of TOML, which people write by hand, in bytes."""
DEEPEST = 64
"""Maximum depth of lists and mappings in each other."""
LONGEST = 200
"""Maximum number of characters of a file that an error quotes."""
DIGITS = 20
"""Maximum number of characters of an integer of 64 bits."""
LONG_NUMBER = "{} has more than 64 bits"
PLACE = re.compile(r"^(?P<fault>.*?) ?\(?at line (?P<line>\d+),? column \d+\)?$", re.DOTALL)
T = TypeVar("T")


@dataclass(frozen=True)
class DocumentType(Generic[T]):
    """How the documents of one kind are read, and refused.

    type: the type of the value, for pydantic. name: what a document of this kind is, with its article. failure: the
    error that is raised. remedy: for documents that are something else or damaged. toml: TOML instead of JSON.
    """

    type: Any
    name: str
    failure: type[QuantkitError]
    remedy: str
    toml: bool = False

    def read(self, path: str | os.PathLike[str]) -> T:
        """Return the value in a file. `failure` if it cannot be read, names the line or the key of the fault."""
        return self.parse(read_text_file(path, self.failure, "check the path", self._most), str(path))

    def read_optional(self, path: str | os.PathLike[str]) -> T | None:
        """Return the value in a file; None if there is no file. `failure`."""
        try:
            content = read_regular(path, self._most)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.failure(f"{path}: {error.strerror or error}", remedy="check the path") from None
        return self.parse(decode_text(content, str(path), self.failure), str(path))

    def parse(self, text: str, where: str) -> T:
        """Return the value in a text; `where` names it in errors. `failure`."""
        value = self.parse_untyped(text, where)
        try:
            found: T = validate_typed(value, self.type)
        except ValidationError as error:
            raise self.failure(f"{where} is not {self.name}: {first_fault(error)}", remedy=self.remedy) from None
        return found

    def parse_untyped(self, text: str, where: str) -> Any:
        """Return the bounded value in a text, with types that are not checked yet. `failure`."""
        try:
            value = bounded_toml(text) if self.toml else bounded_json(text)
            check_bounds(value)
        except (ValueError, RecursionError) as error:
            line, fault = located_fault(error)
            form = "TOML" if self.toml else "JSON"
            raise self.failure(f"{where}{line}: not usable as {form}: {fault}", remedy=self.remedy) from None
        return value

    @property
    def _most(self) -> int:
        return LARGEST_TOML if self.toml else LARGEST


def read_text_file(path: str | os.PathLike[str], failure: type[QuantkitError], remedy: str, most: int = LARGEST) -> str:
    """Return the text of a regular file in UTF-8, without a byte order mark. `failure`, with `remedy` if there is none.

    most: maximum size in bytes.
    """
    try:
        content = read_regular(path, most)
    except OSError as error:
        raise failure(f"{path}: {error.strerror or error}", remedy=remedy) from None
    return decode_text(content, str(path), failure)


def decode_text(content: bytes, where: str, failure: type[QuantkitError]) -> str:
    """Return bytes as text: UTF-8 without a byte order mark and without NUL. `failure` names the line."""
    try:
        text = content.decode("utf-8-sig")
        fault = text.find("\0")
    except UnicodeDecodeError as error:
        text, fault = "", error.start
    if fault < 0:
        return text
    line = (text[:fault] or content[:fault].decode("latin-1")).count("\n") + 1
    raise failure(f"{where}, line {line}: not text in UTF-8", remedy="save the file as text in UTF-8")


def bounded_json(text: str) -> Any:
    """Return the value of a JSON text. ValueError for NaN, long numbers and keys that repeat; RecursionError."""

    def mapping(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise ValueError(f"the key {quoted(twice)} comes twice")
        return found

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number of JSON")

    def integer(digits: str) -> int:
        if len(digits) > DIGITS:
            raise ValueError(LONG_NUMBER.format(quoted(digits)))
        return int(digits)

    return json.loads(text, object_pairs_hook=mapping, parse_constant=constant, parse_int=integer)


def bounded_toml(text: str) -> dict[str, Any]:
    """Return the value of a TOML text. ValueError, also for long numbers; RecursionError."""
    try:
        found: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python converts no more than 4300 digits
        raise ValueError(LONG_NUMBER.format("a number")) from None
    return found


def check_bounds(document: Any) -> None:
    """Check that nesting is not too deep, that numbers are finite and fit into 64 bits, and that there are no dates.

    ValueError names the key.
    """
    layer = [("", document)]
    for _ in range(DEEPEST + 1):
        for key, value in layer:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{key or 'the document'} is {value}, not a finite number")
            if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
                raise ValueError(LONG_NUMBER.format(key or "the document"))
            if not isinstance(value, (str, int, float, list, dict, type(None))):
                raise ValueError(f"{key} is a date or a time; write a text in quotes")
        layer = [inner for key, value in layer for inner in children(key, value)]
        if not layer:
            return
    raise ValueError(f"nested more than {DEEPEST} deep")


def children(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the items of a list or a mapping, each with its path, such as `data.files.0`."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    prefix = f"{key}." if key else ""
    for name, item in items:
        yield f"{prefix}{name}", item


@functools.cache
def adapter_of(kind: Any) -> TypeAdapter[Any]:
    """Return the validator of a type."""
    return TypeAdapter(kind)


def validate_typed(value: Any, kind: Any) -> Any:
    """Return a value of JSON as one of a type, by pydantic's strict rules for JSON. ValidationError."""
    try:
        return adapter_of(kind).validate_json(json.dumps(value, ensure_ascii=False).encode(), strict=True)
    except UnicodeEncodeError:  # a file name that is not UTF-8, which pydantic takes from Python alone
        return adapter_of(kind).validate_python(value, strict=False)


def first_fault(error: ValidationError) -> str:
    """Return the first fault that pydantic found: `run.batches: input should be a valid integer`."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    message = fault["msg"][:1].lower() + fault["msg"][1:]
    place = ".".join(map(str, fault["loc"]))
    return shorten_middle(f"{place}: {message}" if place else message, LONGEST)


def located_fault(error: ValueError | RecursionError) -> tuple[str, str]:
    """Return where a parser found a fault, `, line 3` or an empty text, and the fault."""
    if isinstance(error, RecursionError):
        return "", f"nested more than {DEEPEST} deep"
    if isinstance(error, json.JSONDecodeError):
        return f", line {error.lineno}", error.msg[:1].lower() + error.msg[1:]
    if match := PLACE.match(str(error)):
        return f", line {match['line']}", shorten_middle(match["fault"], LONGEST)
    return "", shorten_middle(str(error), LONGEST)


def quoted(text: str) -> str:
    """Return a text of a file for an error, in quotes and not too long."""
    return repr(shorten_middle(text, LONGEST))

"""The door through which JSON, TOML and YAML documents come in: their bytes become one typed value, or one error.

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
from typing import Any, Generic, Literal, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from quantkit.document.yaml_text import parse_yaml
from quantkit.errors import QuantkitError
from quantkit.regular_file import read_regular
from quantkit.view import quoted, shorten_middle

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST = 256 << 20
"""Maximum size of a document, in bytes: a provenance record lists every image of a large data set."""
LARGEST_BY_HAND = 1 << 20
"""Maximum size of TOML and YAML, which people write by hand, in bytes."""
DEEPEST = 64
"""Maximum depth of lists and mappings in each other."""
LONGEST = 200
"""Maximum number of characters of a message."""
DIGITS = 20
"""Maximum number of characters of an integer of 64 bits."""
LONG_NUMBER = "{} has more than 64 bits"
WORDS = {"tuple": "array", "dictionary": "table of keys", "list": "array"}
UNION_MEMBER = re.compile(r"(list|dict|tuple|set|union)\[.*\]")
"""A part of a place that pydantic adds for the member of a union that it tried."""
PYTHON_TYPE = re.compile(rf"\b(?:{'|'.join(WORDS)})\b")
"""Pydantic's words for types, which are Python's, where JSON and TOML have others."""
PLACE = re.compile(r"^(?P<fault>.*?) ?\(?at line (?P<line>\d+),? column \d+\)?$", re.DOTALL)
Form = Literal["JSON", "TOML", "YAML"]
T = TypeVar("T")


@dataclass(frozen=True)
class DocumentType(Generic[T]):
    """How the documents of one kind are read, and refused.

    type: the type of the value, for pydantic. name: what a document of this kind is, with its article. failure: the
    error that is raised. remedy: for documents that are something else or damaged. form: their language.
    nonfinite: NaN and Infinity are values, as Python writes them. absent: the remedy for files that cannot be read.
    """

    type: Any
    name: str
    failure: type[QuantkitError]
    remedy: str
    form: Form = "JSON"
    nonfinite: bool = False
    absent: str = "check the path"

    def read(self, path: str | os.PathLike[str]) -> T:
        """Return the value in a file. `failure` names the line or the key of a fault."""
        return self.typed(self.read_untyped(path), str(path))

    def read_optional(self, path: str | os.PathLike[str]) -> T | None:
        """Return the value in a file; None if there is no file. `failure`."""
        try:
            return self.parse(self._text(path), str(path))
        except FileNotFoundError:
            return None

    def parse(self, text: str, where: str) -> T:
        """Return the value in a text; `where` names it in errors. `failure`."""
        return self.typed(self.parse_untyped(text, where), where)

    def read_untyped(self, path: str | os.PathLike[str]) -> Any:
        """Return the bounded value in a file, with types that are not checked yet. `failure`."""
        try:
            return self.parse_untyped(self._text(path), str(path))
        except FileNotFoundError as error:
            raise self.failure(f"{path}: {error.strerror}", remedy=self.absent) from None

    def parse_untyped(self, text: str, where: str) -> Any:
        """Return the bounded value in a text, with types that are not checked yet. `failure`."""
        try:
            value = self._bounded(text)
            check_bounds(value, nonfinite=self.nonfinite)
        except (ValueError, RecursionError) as error:
            raise self._refusal(where, describe_syntax(error, self.form)) from None
        return value

    def typed(self, value: Any, where: str) -> T:
        """Return a bounded value as one of the type. `failure`."""
        try:
            found: T = validate_typed(value, self.type)
        except ValidationError as error:
            raise self._refusal(where, first_fault(error)) from None
        return found

    def _bounded(self, text: str) -> Any:
        if self.form == "JSON":
            return bounded_json(text, nonfinite=self.nonfinite)
        return bounded_toml(text) if self.form == "TOML" else bounded_yaml(text)

    def _text(self, path: str | os.PathLike[str]) -> str:
        """Return the text of a file. FileNotFoundError if there is none, else `failure`."""
        try:
            return decode_text(read_regular(path, LARGEST if self.form == "JSON" else LARGEST_BY_HAND))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self.failure(f"{path}: {error.strerror or error}", remedy=self.absent) from None
        except ValueError as error:
            raise self._refusal(str(path), str(error)) from None

    def _refusal(self, where: str, fault: str) -> QuantkitError:
        refusal: QuantkitError = self.failure(f"{where} is not {self.name}: {fault}", remedy=self.remedy)
        return refusal


def read_text_file(path: str | os.PathLike[str], failure: type[QuantkitError], remedy: str, most: int = LARGEST) -> str:
    """Return the text of a regular file in UTF-8, without a byte order mark. `failure`, with `remedy` if there is none.

    most: maximum size in bytes.
    """
    try:
        return decode_text(read_regular(path, most))
    except OSError as error:
        raise failure(f"{path}: {error.strerror or error}", remedy=remedy) from None
    except ValueError as error:
        raise failure(f"{path}: {error}", remedy="save the file as text in UTF-8") from None


def decode_text(content: bytes) -> str:
    """Return bytes as text: UTF-8 without a byte order mark and without NUL. ValueError names the line."""
    try:
        text = content.decode("utf-8-sig")
        fault = text.find("\0")
    except UnicodeDecodeError as error:
        text, fault = "", error.start
    if fault < 0:
        return text
    line = (text[:fault] or content[:fault].decode("latin-1")).count("\n") + 1
    raise ValueError(f"line {line} is not text in UTF-8")


def bounded_json(text: str, *, nonfinite: bool = False) -> Any:
    """Return the value of a JSON text. ValueError for NaN, long numbers and keys that repeat; RecursionError.

    nonfinite: accept NaN and Infinity.
    """

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

    constants = None if nonfinite else constant
    return json.loads(text, object_pairs_hook=mapping, parse_constant=constants, parse_int=integer)


def bounded_toml(text: str) -> dict[str, Any]:
    """Return the value of a TOML text. ValueError, also for long numbers; RecursionError."""
    try:
        found: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python converts no more than 4300 digits
        raise ValueError(LONG_NUMBER.format("a number")) from None
    return found


def bounded_yaml(text: str) -> Any:
    """Return the value of a YAML text, by YAML 1.2's core schema: `no` and dates are texts; keys become texts.

    ValueError, also for aliases, tags, keys that repeat, and nesting that is too deep.
    """
    return parse_yaml(text, DEEPEST)


def check_bounds(document: Any, *, nonfinite: bool = False) -> None:
    """Check that nesting is not too deep, that numbers are finite and fit into 64 bits, and that there are no dates.

    ValueError names the key.
    """
    layer = [("", document)]
    for _ in range(DEEPEST + 1):
        for key, value in layer:
            if isinstance(value, float) and not (nonfinite or math.isfinite(value)):
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
    return shorten_middle(next(iter_faults(error)), LONGEST)


def iter_faults(error: ValidationError) -> Iterator[str]:
    """Yield every fault that pydantic found, with the documents' words for types."""
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        message = PYTHON_TYPE.sub(lambda match: WORDS[match[0]], fault["msg"][:1].lower() + fault["msg"][1:])
        place = ".".join(part for part in map(str, fault["loc"]) if not UNION_MEMBER.fullmatch(part))
        yield f"{place}: {message}" if place else message


def describe_syntax(error: ValueError | RecursionError, form: str) -> str:
    """Return what a parser of JSON, TOML or YAML (`form`) found: `line 3 is not JSON: expecting value`."""
    if isinstance(error, RecursionError):
        return f"nested more than {DEEPEST} deep"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno} is not {form}: {error.msg[:1].lower()}{error.msg[1:]}"
    text = shorten_middle(str(error), LONGEST)
    if not isinstance(error, tomllib.TOMLDecodeError):
        return text
    place = PLACE.match(text)
    return f"line {place['line']} is not {form}: {place['fault']}" if place else f"not {form}: {text}"

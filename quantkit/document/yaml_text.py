"""Reading YAML as plain data, without what makes YAML dangerous or surprising.

PyYAML's parser delivers events; values are built here, by the core schema of YAML 1.2 (yaml.org/spec/1.2.2, 10.3), to
which `no`, `on`, `12:30` and dates are texts. Aliases, which can repeat one value without end, and tags are refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_NUMBER = 40
"""Maximum number of characters of a number."""
TEXT_TAGS = frozenset({None, "!", "tag:yaml.org,2002:str"})
CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    "-.inf": -float("inf"),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
INTEGER = re.compile(r"[-+]?[0-9]+")
PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def parse_yaml(text: str, deepest: int) -> Any:
    """Return the value of a YAML document; None for an empty one. Keys of mappings are texts.

    ValueError names the line: syntax, aliases, tags, keys that repeat, more than `deepest` levels, several documents.
    """
    import yaml

    builder = ValueBuilder(deepest)
    try:
        for event in parse_events(text):
            builder.add(event)
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        line = f"line {where.line + 1}" if where else "the text"
        raise ValueError(f"{line} is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {str(error).splitlines()[0]}") from None
    return builder.value


def parse_events(text: str) -> Iterator[Any]:
    """Yield the events of a YAML text, by libyaml if PyYAML was built with it. YAMLError."""
    import yaml

    yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


class ValueBuilder:
    """The value of a document, built from its events."""

    def __init__(self, deepest: int) -> None:
        self.value: Any = None
        self._deepest = deepest
        self._open: list[Any] = []
        self._keys: list[str | None] = []
        self._documents = 0

    def add(self, event: Any) -> None:
        """Take the next event. ValueError names the line."""
        kind, line = type(event).__name__, event.start_mark.line + 1
        if getattr(event, "anchor", None) is not None:
            raise ValueError(f"line {line}: anchors and aliases (& and *) are not supported; write the value out")
        if kind == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                raise ValueError(f"line {line}: a second document begins")
        elif kind == "ScalarEvent":
            self._scalar(event, line)
        elif kind in ("SequenceStartEvent", "MappingStartEvent"):
            self._start([] if kind == "SequenceStartEvent" else {}, event.tag, line)
        elif kind in ("SequenceEndEvent", "MappingEndEvent"):
            self._open.pop()
            self._keys.pop()

    def _start(self, container: Any, tag: str | None, line: int) -> None:
        if tag not in (None, "!", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            raise ValueError(f"line {line}: tags such as {tag} are not supported")
        if len(self._open) >= self._deepest:
            raise ValueError(f"nested more than {self._deepest} deep")
        self._place(container, line)
        self._open.append(container)
        self._keys.append(None)

    def _scalar(self, event: Any, line: int) -> None:
        if event.tag not in TEXT_TAGS:
            raise ValueError(f"line {line}: tags such as {event.tag} are not supported")
        if self._open and isinstance(self._open[-1], dict) and self._keys[-1] is None:
            if event.value in self._open[-1]:
                raise ValueError(f"line {line}: the key {event.value[:40]!r} comes twice")
            self._keys[-1] = event.value
            return
        plain = event.implicit[0] and event.tag is None
        self._place(plain_value(event.value, line) if plain else event.value, line)

    def _place(self, value: Any, line: int) -> None:
        if not self._open:
            self.value = value
        elif isinstance(self._open[-1], list):
            self._open[-1].append(value)
        elif self._keys[-1] is None:
            raise ValueError(f"line {line}: a list or a mapping is no key")
        else:
            self._open[-1][self._keys[-1]] = value
            self._keys[-1] = None


def plain_value(text: str, line: int) -> Any:
    """Return the value of a text without quotes. ValueError for a number of too many digits."""
    if text in CONSTANTS:
        return CONSTANTS[text]
    number = INTEGER.fullmatch(text) or PREFIXED.fullmatch(text)
    if not number and not REAL.fullmatch(text):
        return text
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"line {line}: a number has more than {LONGEST_NUMBER} digits")
    if not number:
        return float(text)
    return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)

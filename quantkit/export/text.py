"""Protocol buffers' text format of `config.pbtxt`: fields in the given order, with comments before them.

Source: Protocol Buffers, "Text Format Language Specification" (strings: quotes, backslashes and control characters are
escaped, the rest is UTF-8).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from quantkit.view import CONTROL, escape_controls


class Word(str):
    """A value without quotes, which is a member of an enumeration."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Remark:
    """A comment before the next field; empty for a blank line."""

    text: str = ""


Message: TypeAlias = "tuple[tuple[str, Any] | Remark, ...]"
"""Fields by name; a value is a string, number, `Word`, list of numbers or of messages, message, or mapping."""


def pbtxt(message: Message) -> str:
    """Return the message as text."""
    return "\n".join(message_lines(message, "")) + "\n"


def message_lines(message: Message, margin: str) -> Iterator[str]:
    """Yield the lines of a message."""
    for field in message:
        if isinstance(field, Remark):
            yield f"{margin}# {escape_controls(' '.join(field.text.split()))}" if field.text else ""
            continue
        name, value = field
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield f"{margin}{name} {{ key: {quote_text(key)} value: {quote_text(item)} }}"
        elif isinstance(value, (str, bool, int)):
            yield f"{margin}{name}: {format_scalar(value)}"
        elif isinstance(value, list):
            if all(isinstance(item, int) for item in value):
                yield f"{margin}{name}: [ {', '.join(map(str, value))} ]" if value else f"{margin}{name}: []"
            else:
                for item in value:
                    yield from message_block(name, item, margin)
        else:
            yield from message_block(name, value, margin)


def message_block(name: str, message: Message, margin: str) -> Iterator[str]:
    """Yield the lines of a message in braces."""
    if not message:
        yield f"{margin}{name} {{ }}"
        return
    yield f"{margin}{name} {{"
    yield from message_lines(message, margin + "  ")
    yield f"{margin}}}"


def format_scalar(value: str | int | bool) -> str:
    """Return a value as written after a colon."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, Word)) else quote_text(value)


def quote_text(text: str) -> str:
    """Return a string in quotes."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c) or CONTROL.sub(octal_bytes, c) for c in text) + '"'


def octal_bytes(match: re.Match[str]) -> str:
    """Return the bytes of a character as `\\302\\233`."""
    return "".join(f"\\{byte:03o}" for byte in match[0].encode("utf-8", "replace"))

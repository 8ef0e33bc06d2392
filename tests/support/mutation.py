"""Seeded changes of documents: bytes, text, JSON values and protocol buffers, one to three changes at a time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import onnx

TOKENS = (
    "", "0", "-1", "1e400", "NaN", "Infinity", "-0.0", "9" * 400, "18446744073709551616", "2147483648", "null", "true",
    "[]", "{}", '""',
    "\x00", "\x1b[2J", "\r", "\n\n", "\u202e", "\u2028", "²", "٣", "\udce4", "\ufeff", "\ud800", "💥", "#",
    "@", ": ", ",", "=", "\\", '"', "'", "[", "{", "]", "}", "../..", "/dev/zero", "a" * 300, "[" * 300, "inf", "nan",
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.0, -0.0, 0.5, 1e308, 1e-320, float("nan"),
    float("inf"), "", "a", "0", "²", "\x00", "\n", "\udce4", "\u202e", "a" * 300, [], {}, [[]], [None], {"": None},
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 7, 8, 16, 21, 127, 255, 256, 65535, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 3.4e38, -3.4e38, float("inf"), float("-inf"), float("nan"))


def mutate_bytes(draw: random.Random, content: bytes) -> bytes:
    """Flip, drop, repeat, overwrite or cut bytes."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(changed) + 1)
        size = min(draw.choice((1, 1, 2, 4, 8, 64)), len(changed) - at)
        kind = draw.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del changed[at : at + size]
        elif kind == 2:
            changed[at:at] = changed[at : at + size]
        elif kind == 3:
            changed[at : at + size] = bytes(draw.randrange(256) for _ in range(size))
        elif kind == 4:
            changed[at : at + size] = draw.choice((b"\xff", b"\x00", b"\x7f")) * size
        elif draw.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def mutate_text(draw: random.Random, content: bytes) -> bytes:
    """Replace words, numbers and lines, or insert tokens that mean something to a parser."""
    text = content.decode("utf-8", "surrogateescape")
    for _ in range(draw.randint(1, 3)):
        at, token = draw.randrange(len(text) + 1), draw.choice(TOKENS)
        kind = draw.randrange(5)
        if kind == 0:
            text = text[:at] + token + text[at:]
        elif kind == 1:
            text = text[:at] + token + text[at + draw.randint(1, 8) :]
        elif kind == 2:
            lines = text.split("\n")
            lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
            text = "\n".join(lines)
        elif kind == 3:
            lines = text.split("\n")
            del lines[draw.randrange(len(lines))]
            text = "\n".join(lines)
        else:
            words = text.split(" ")
            words[draw.randrange(len(words))] = token
            text = " ".join(words)
    return text.encode("utf-8", draw.choice(("surrogatepass", "replace")))


def mutate_json(draw: random.Random, content: bytes) -> bytes:
    """Change the value of a JSON document: other types, missing and additional keys, repeated items."""
    document = json.loads(content)
    for _ in range(draw.randint(1, 3)):
        document = changed_value(draw, document)
    return json.dumps(document, ensure_ascii=draw.random() < 0.5).encode("utf-8", "replace")


def changed_value(draw: random.Random, value: Any) -> Any:
    """Return the value with one change somewhere in it."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        kind = draw.randrange(8)
        if kind == 0:
            return {name: item for name, item in value.items() if name != key}
        if kind == 1:
            return {**value, str(draw.choice(VALUES)): draw.choice(VALUES)}
        return {**value, key: changed_value(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        kind = draw.randrange(6)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return [*value, value[at]]
        return [*value[:at], changed_value(draw, value[at]), *value[at + 1 :]]
    return draw.choice(VALUES)


def mutate_model(draw: random.Random, content: bytes) -> bytes:
    """Change fields anywhere in a protocol buffer of an ONNX model; sometimes its bytes."""
    if draw.random() < 0.15:
        return mutate_bytes(draw, content)
    model = onnx.ModelProto.FromString(content)
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    for _ in range(draw.randint(1, 3)):
        change_message(draw, model, names)
    return bytes(model.SerializeToString())


def change_message(draw: random.Random, message: Any, names: Sequence[str]) -> None:
    """Change one field of a message or of one inside it; in place."""
    fields = [field for field, _ in message.ListFields()]
    if not fields or draw.random() < 0.1:
        fields = list(message.DESCRIPTOR.fields)
    field = draw.choice(fields)
    value = getattr(message, field.name)
    if isinstance(value, (str, bytes, int, float)) or not hasattr(value, "__len__"):
        if hasattr(value, "ListFields"):
            if message.HasField(field.name) and draw.random() < 0.9:
                change_message(draw, value, names)
            else:
                message.ClearField(field.name)
            return
        if draw.random() < 0.15:
            message.ClearField(field.name)
        else:
            set_scalar(draw, lambda new: setattr(message, field.name, new), value, names)
        return
    change_list(draw, value, names)


def change_list(draw: random.Random, value: Any, names: Sequence[str]) -> None:
    """Drop, repeat, swap or change an item of a repeated field; in place."""
    if not value:
        if hasattr(value, "add"):
            value.add()
        return
    at, kind = draw.randrange(len(value)), draw.randrange(8)
    if kind == 0:
        del value[at]
    elif kind == 1:
        value.append(value[at])
    elif kind == 2 and not hasattr(value, "add"):
        other = draw.randrange(len(value))
        value[at], value[other] = value[other], value[at]
    elif hasattr(value, "add"):
        change_message(draw, value[at], names)
    else:
        set_scalar(draw, lambda new: value.__setitem__(at, new), value[at], names)


def set_scalar(draw: random.Random, write: Callable[[Any], None], value: Any, names: Sequence[str]) -> None:
    """Write another value of the same type; values out of a field's range are left out."""
    choices: dict[type, Callable[[], Any]] = {
        str: lambda: (
            draw.choice(names) if names and draw.random() < 0.6 else draw.choice(["", "x", "\n", "\x1b[2J", "é"])
        ),
        bytes: lambda: mutate_bytes(draw, value),
        float: lambda: draw.choice(FLOATS),
    }
    new = choices.get(type(value), lambda: draw.choice(NUMBERS))()
    try:
        write(new)
    except (TypeError, ValueError):
        return

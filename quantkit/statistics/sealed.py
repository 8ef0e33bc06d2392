"""Safetensors files with a seal: a sha256 over all bytes of the file, so that damage on disk is noticed.

The seal is an array of 32 bytes in the file, which counts as zeros while the digest is taken. The bytes that were
digested are the bytes that are used: a file is read once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantkit.artifact import text_bytes
from quantkit.regular_file import read_regular
from quantkit.values import Array

SEAL = "sha256"
SIZE = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class SealedFile:
    """The content of a file: the text of its metadata, and its arrays by name.

    sealed: False for a file that has no seal, as quantkit 0.1 wrote them.
    """

    text: str
    arrays: dict[str, Array]
    sealed: bool


def sealed_bytes(arrays: Mapping[str, Array], key: str, text: str) -> bytes:
    """Return the content of a sealed file: arrays, and JSON as its metadata under `key`. The same for the same.

    File names that are not UTF-8, such as those of unreadable samples, are escaped in it.
    """
    from safetensors.numpy import save

    content = bytearray(save({**arrays, SEAL: np.zeros(SIZE, np.uint8)}, metadata={key: text_bytes(text).decode()}))
    start = seal_place(content, header_of(content))
    content[start : start + SIZE] = hashlib.sha256(content).digest()
    return bytes(content)


def read_sealed(path: Path, key: str) -> SealedFile:
    """Read a file with metadata under `key`. OSError; KeyError where it is another file; ValueError where damaged."""
    return open_sealed(read_regular(path), key)


def open_sealed(content: bytes, key: str) -> SealedFile:
    """Return the content of a file with metadata under `key`. KeyError where it is another file; ValueError where
    damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        header = header_of(content)
        text = (header.get("__metadata__") or {})[key]
        if SEAL not in header:
            return SealedFile(text, arrays, False)
        start = seal_place(content, header)
    except (SafetensorError, AttributeError, TypeError) as error:  # also types that numpy does not know
        raise ValueError(str(error)) from None
    unsealed = bytearray(content)
    unsealed[start : start + SIZE] = bytes(SIZE)
    if arrays.pop(SEAL).tobytes() != hashlib.sha256(unsealed).digest():
        raise ValueError("its content is not what was written")
    return SealedFile(text, arrays, True)


def header_of(content: bytes | bytearray) -> dict[str, Any]:
    """Return the header of a safetensors file: the place of every array, and the metadata. ValueError."""
    found: dict[str, Any] = json.loads(content[8 : data_start(content)])
    return found


def seal_place(content: bytes | bytearray, header: Mapping[str, Any]) -> int:
    """Return where the seal starts in the file, in bytes."""
    return data_start(content) + int(header[SEAL]["data_offsets"][0])


def data_start(content: bytes | bytearray) -> int:
    """Return where the arrays start in the file, in bytes: behind the length of the header and the header."""
    return 8 + int.from_bytes(content[:8], "little")


def check_typed(array: Array, dtype: type, shape: tuple[int, ...]) -> Array:
    """Return `array` if it has the type and the shape. ValueError."""
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"an array is {array.dtype} {list(array.shape)}, not {np.dtype(dtype)} {list(shape)}")
    return array

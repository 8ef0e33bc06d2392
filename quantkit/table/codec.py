"""TensorRT's text format of a calibration table, read strictly and written byte for byte.

    TRT-8601-EntropyCalibration2
    images: 3c008912
    (Unnamed Layer* 12) [Constant]_output: 3a4fb8dc

A line is a tensor name, `": "`, and the scale as the hexadecimal word of a big-endian float32 without leading zeros.
Names may contain spaces, brackets and `": "`, so a line is split at its last `": "`.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from quantkit.artifact import write_whole
from quantkit.errors import TableError
from quantkit.numerics import scale_of_word, word_of
from quantkit.paths import given_path
from quantkit.regular_file import read_regular
from quantkit.table.table import CalibrationTable, Header
from quantkit.values import Algorithm

REMEDY = "give a table that TensorRT or quantkit wrote, or calibrate again"
MOST = 64 << 20
"""Maximum size of a table, in bytes: a million tensors."""
NAMED = {a.value: a for a in Algorithm if a is not Algorithm.LEGACY}


def read_table(path: str | os.PathLike[str]) -> CalibrationTable:
    """Read a table. TableError names file and line."""
    try:
        content = read_regular(given_path(path, "the table"), MOST)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}", remedy="check the path") from None
    return parse_table(content, str(path))


def parse_table(content: bytes, where: str = "the table") -> CalibrationTable:
    """Parse the bytes of a table. TableError names the line."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TableError(f"{where}, line {line}: not text (byte {error.start})", remedy=REMEDY) from None
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.split(newline)
    if lines[-1] != "":
        raise TableError(f"{where}, line {len(lines)}: cut short, no line end", remedy=REMEDY)
    header = parse_header(lines[0], where)
    scales: dict[str, float] = {}
    seen: dict[str, int] = {}
    for number, entry in enumerate(lines[1:-1], 2):
        if "\r" in entry or "\n" in entry:
            raise TableError(f"{where}, line {number}: two kinds of line ends", remedy=REMEDY)
        name, scale = parse_line(entry, f"{where}, line {number}")
        if name in scales and scales[name] != scale:
            raise TableError(
                f"{where}, line {number}: {name!r} has scale {scale:.9g}, but {scales[name]:.9g} in line {seen[name]}",
                remedy="remove the wrong line",
            )
        scales[name] = scale
        seen.setdefault(name, number)
    return CalibrationTable(header, scales, tuple(lines[1:-1]), newline)


def parse_header(line: str, where: str) -> Header:
    """Parse the first line. TableError."""
    if match := re.fullmatch(r"TRT-([1-9][0-9]{3,5})-(\w+)", line):
        if match[2] not in NAMED:
            raise TableError(
                f"{where}, line 1: unknown algorithm {match[2]!r}",
                remedy=f"use one of {', '.join(NAMED)}",
            )
        return Header(NAMED[match[2]], int(match[1]))
    if match := re.fullmatch(r"0( ?)([0-9a-f]{16})\1([0-9a-f]{16})", line):
        cutoff, quantile = (struct.unpack(">d", bytes.fromhex(word))[0] for word in (match[2], match[3]))
        return Header(Algorithm.LEGACY, None, cutoff, quantile, bool(match[1]))
    raise TableError(f"{where}, line 1: not the header of a calibration table: {line[:80]!r}", remedy=REMEDY)


def parse_line(line: str, where: str) -> tuple[str, float]:
    """Parse a line, `name: 3c010a14`, into name and scale. TableError."""
    name, separator, word = line.rpartition(": ")
    if not separator or not name:
        raise TableError(f"{where}: not `name: scale`: {line[:80]!r}", remedy=REMEDY)
    try:
        return name, scale_of_word(word)
    except ValueError as error:
        raise TableError(f"{where}: {word[:20]!r}: {error}", remedy=REMEDY) from None


def table_bytes(table: CalibrationTable) -> bytes:
    """Return the content of the file; if the table was read from one, byte for byte the same."""
    lines = table.lines
    if dict(parse_line(line, "") for line in lines) != dict(table.scales):  # the table was made or edited
        lines = tuple(f"{name}: {word_of(scale)}" for name, scale in table.scales.items())
    return table.newline.join([table.header.text, *lines, ""]).encode("utf-8")


def write_table(table: CalibrationTable, path: str | os.PathLike[str]) -> None:
    """Write the file atomically, without a provenance record. OutputError."""
    write_whole(Path(path), table_bytes(table))

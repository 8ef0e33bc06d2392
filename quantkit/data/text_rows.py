"""Lines and cells of the text files that people write: class names and labels. Numbers in them are ASCII digits."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from io import StringIO

from quantkit.errors import DataError
from quantkit.view import quoted

INDEX = re.compile(r"[0-9]{1,18}")
"""A class index that fits into 64 bits."""


def text_lines(text: str) -> list[str]:
    """Return the lines of a text, which end in LF, CR LF or CR; other separators of lines belong to names."""
    return [line.rstrip("\n") for line in StringIO(text, newline=None)]


def csv_rows(text: str, where: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line and the cells of every row. DataError names the line of a fault."""
    rows = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{where}, line {rows.line_num}: {error}", remedy="fix the line") from None
        yield rows.line_num, row


def shown_cells(row: list[str], delimiter: str = ",") -> str:
    """Return a row for an error: in quotes, and not too long."""
    return quoted(delimiter.join(row))

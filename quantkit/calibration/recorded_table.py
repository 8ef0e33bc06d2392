"""A calibration table together with its provenance record, read once: the bytes that were digested are the table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantkit.artifact import sha256_of
from quantkit.errors import StaleError
from quantkit.provenance import Provenance, provenance_path, read_provenance
from quantkit.table import CalibrationTable, read_table, table_bytes

EDITED = "calibrate again with --force; for a table that you trust, quantkit table adopt --force writes a new record"


@dataclass(frozen=True, slots=True)
class RecordedTable:
    """A table, the sha256 of its file, and its provenance record, if there is one."""

    path: Path
    table: CalibrationTable
    sha256: str
    record: Provenance | None

    @property
    def changed(self) -> bool:
        """True if the file is not the one that the record describes."""
        return self.record is not None and self.record.table.sha256 != self.sha256


def read_recorded_table(path: Path) -> RecordedTable:
    """Read a table and its record. TableError where one of them is damaged."""
    table = read_table(path)
    return RecordedTable(path, table, sha256_of(table_bytes(table)), read_provenance(provenance_path(path)))


def read_unchanged_table(path: Path, remedy: str = EDITED) -> RecordedTable:
    """Read a table and its record. TableError; StaleError where the table was edited, damaged or exchanged since."""
    found = read_recorded_table(path)
    if found.changed:
        raise StaleError(f"{path} was changed after quantkit wrote it", remedy=remedy)
    return found

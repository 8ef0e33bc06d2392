"""The calibration table of an INT8 build: found beside the model or given, checked, and as the engine used it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from quantkit.backends.tensorrt.build import EngineBuild
from quantkit.backends.tensorrt.options import BuildOptions
from quantkit.calibration.recorded_table import read_unchanged_table
from quantkit.errors import StaleError, UsageError
from quantkit.graph import Model
from quantkit.paths import beside, exists
from quantkit.provenance import Provenance
from quantkit.qdq.reader import has_qdq
from quantkit.table import CalibrationTable, table_bytes


@dataclass(frozen=True, slots=True)
class TableScales:
    """A calibration table with its file and its provenance record."""

    path: Path
    table: CalibrationTable
    sha256: str
    provenance: Provenance | None

    @property
    def rule(self) -> str | None:
        """Return the calibration method of the table, if its provenance record exists."""
        return self.provenance.rule if self.provenance else None


def find_table_scales(model: Model, options: BuildOptions, table: str | os.PathLike[str] | None) -> TableScales | None:
    """Return the table that an INT8 build uses, or None. StaleError if it belongs to another network."""
    if table is None:
        usual = beside(model.path, f"{model.path.stem}.calib")
        if not options.int8 or has_qdq(model) or not exists(usual):
            return None
        table = usual
    elif not options.int8:
        raise UsageError(
            f"a table needs INT8, but the precision is {options.precision.value}", remedy="leave out --table"
        )
    found = read_unchanged_table(Path(table))
    path, known = found.path, found.record
    if known is not None and known.model.sha256 != model.sha256:
        raise StaleError(
            f"{path} was made for another network ({known.model.file}, {known.model.sha256[:12]})",
            remedy="calibrate this network: quantkit calibrate MODEL --data DATA",
        )
    return TableScales(path, found.table, found.sha256, known)


def provenance_notes(scales: TableScales | None) -> tuple[str, ...]:
    """Return a note about a table whose origin is not known."""
    if scales is None or scales.provenance is not None:
        return ()
    return (f"{scales.path} has no provenance record; only its tensor names show that it fits this network",)


def completed_table(scales: TableScales | None, made: EngineBuild, path: Path) -> TableScales | None:
    """Return the table for trtexec and other tools: with the completed scales, under this TensorRT's header."""
    if scales and made.covered and table_bytes(made.covered.table) != table_bytes(scales.table):
        return TableScales(used_table_path(path), made.covered.table, "", None)
    return scales


def used_table_path(engine: Path) -> Path:
    """Return `x.engine.calib` for `x.engine`: the table as it was used, if scales were filled in."""
    return beside(engine, f"{engine.name}.calib")

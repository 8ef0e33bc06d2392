"""The files that `calibrate` wrote beside a model: where quantize and layers take scales from if none are named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from quantkit.cli.arguments.unused import is_given
from quantkit.errors import UsageError
from quantkit.paths import beside, exists


@dataclass(frozen=True, slots=True)
class ScaleFiles:
    """A frozen value of the options that name the files that scales come from: of quantize and layers."""

    stats: Path | None
    table: Path | None


def find_scales(model: Path, *, needed: bool, tables: bool = True) -> ScaleFiles:
    """Return the statistics beside a model, else the table, which TensorRT's calibrators write alone.

    needed: if not, there may be neither. tables: whether a table will do; not for a rule or a repair that is asked
    for. UsageError if scales are needed and there are none.
    """
    path, table = beside(model, f"{model.stem}.stats.safetensors"), beside(model, f"{model.stem}.calib")
    if exists(path) or not needed:
        return ScaleFiles(path if exists(path) else None, None)
    parameters = click.get_current_context().params
    asked = [name for name in ("rule", "repair") if is_given(name) and parameters[name] != "none"]
    if exists(table) and tables and not asked:
        return ScaleFiles(None, table)
    why = "neither --stats nor --table is given"
    if exists(table):
        why = (
            f"the table {table.name} does not allow --{asked[0]}" if asked else f"there is only the table {table.name}"
        )
    raise UsageError(
        f"there are no statistics of {model}: {path.name} does not exist beside it, and {why}",
        remedy=f"write them with quantkit calibrate --backend onnxruntime --data … {model}"
        + (f" --force, which writes {table.name} again" if exists(table) else ""),
    )

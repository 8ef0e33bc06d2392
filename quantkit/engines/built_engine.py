"""An engine that was built, with what is to be said about it; and one that is there already, from the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantkit._version import __version__
from quantkit.backends.engine_record import EngineRecord, precision_counts, read_engine_record
from quantkit.backends.tensorrt.options import BuildOptions, Precision, TrtexecCommand
from quantkit.backends.tensorrt.shapes import ShapeRange
from quantkit.calibration.reuse import REMEDY, refuse_changed
from quantkit.engines.table_scales import TableScales
from quantkit.errors import StaleError, TableError
from quantkit.graph import Model
from quantkit.regular_file import regular_file_digest
from quantkit.view import Block, Remarks, RichDisplay, ViewTable


@dataclass(frozen=True, slots=True)
class BuiltEngine(RichDisplay):
    """An engine file and its record. command: the equivalent `trtexec` line, or why there is none."""

    path: Path
    record: EngineRecord
    command: TrtexecCommand
    reused: bool
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    """What is known before the build: operators that this TensorRT computes wrongly, a choice of another machine."""

    @property
    def counts(self) -> dict[str, int]:
        """Return precision → number of layers that compute in it."""
        return precision_counts(self.record.layers)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return known faults, TensorRT's own warnings, and missing INT8 layers or scales."""
        record = self.record
        found = (*self.faults, *(f"TensorRT: {text}" for text in record.warnings))
        int8 = record.precision in (Precision.INT8.value, Precision.BEST.value) and record.has_scales
        if int8 and set(self.counts) - {"unknown"} and not self.counts.get("INT8"):
            found += (
                "no layer of this engine computes in INT8: TensorRT found other precisions faster"
                + (" (--no-fp16 shows the effect of INT8)" if record.options.get("fp16") else ""),
            )
        if record.table and record.table.missing:
            missing = record.table.missing
            shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            lacking = "1 tensor lacks a scale" if len(missing) == 1 else f"{len(missing)} tensors lack scales"
            found += (f"{lacking} in the table, so layers that read or write such are not INT8: {shown}",)
        return found

    def _view_(self) -> Sequence[Block]:
        record = self.record
        counts = ", ".join(f"{count} {precision}" for precision, count in self.counts.items())
        rows = [(layer.name, layer.precision, layer.reason or "") for layer in record.layers if layer.reason]
        return (
            f"{self.path.name}: {record.precision}, {record.bytes / 2**20:.1f} MiB, layers: {counts or 'unknown'}",
            ViewTable(("layer", "precision", "why not INT8"), rows, frozenset({0, 1, 2})),
            Remarks([*self.notes, *self.warnings]),
        )


def engine_identity(
    model: Model,
    options: BuildOptions,
    ranges: Mapping[str, ShapeRange],
    scales: TableScales | None,
    version: str,
    gpu: str,
) -> dict[str, object]:
    """Return everything that determines the engine; the counterpart of `EngineRecord.identity`."""
    return {
        "TensorRT": version,
        "GPU": gpu,
        "model": model.sha256,
        "table": scales.sha256 if scales else None,
        "rule of the table": scales.rule if scales else None,
        "quantkit": __version__ if scales else None,
        "shapes": {name: r.text for name, r in ranges.items()},
        "options": options.document(),
    }


def reuse_engine(path: Path, wanted: Mapping[str, object], least: float) -> BuiltEngine:
    """Return the existing engine.

    StaleError if it was built from other inputs, TableError if its table covers less than `least` of the tensors.
    """
    record = read_engine_record(path)
    if record is None:
        raise StaleError(f"{path} already exists but has no record of how it was built", remedy=REMEDY)
    if regular_file_digest(path) != record.sha256:
        raise StaleError(f"{path} was changed after quantkit wrote it", remedy=REMEDY)
    refuse_changed(path, record.identity(), wanted)
    if record.table and record.table.share < least:
        raise TableError(
            f"{path} was built with a table that covers {record.table.share:.0%} of the network's float tensors",
            remedy="calibrate again, or accept it with a lower --min-coverage",
        )
    line = TrtexecCommand(record.trtexec, record.no_trtexec)
    return BuiltEngine(path, record, line, True, ("nothing changed: the existing engine is reused",))

"""The result of a calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantkit.calibration.job import CalibrationJob
from quantkit.calibration.learning_curve import LearningCurve
from quantkit.calibration.tables import RangeFinding, find_suspicious_ranges
from quantkit.data.preprocess_choice import PreprocessChoice
from quantkit.statistics import Statistics
from quantkit.table import CalibrationTable
from quantkit.view import Block, Remarks, RichDisplay, ViewTable


@dataclass(frozen=True, slots=True)
class Calibration(RichDisplay):
    """What a calibration gives. `tables` is by rule name, in the order of the rules."""

    statistics: Statistics | None
    """None where TensorRT calibrated, and where tables are reused whose statistics file is gone."""
    tables: Mapping[str, CalibrationTable]
    files: tuple[Path, ...]
    reused: bool
    target: str
    """TensorRT's version in the first table's header, and where it came from."""
    target_source: str
    preprocess: PreprocessChoice
    inputs: tuple[str, ...]
    samples: int
    batches: int
    seconds: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    findings: tuple[RangeFinding, ...] = ()
    unwatched: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Watched tensors that never had a value."""
    curve: LearningCurve | None = None
    decoded: bool = True
    """Whether data went through the network; tables can come from the statistics that are there."""

    @property
    def table(self) -> CalibrationTable:
        """The table of the first rule."""
        return next(iter(self.tables.values()))

    def _view_(self) -> Sequence[Block]:
        source = "reused" if self.reused else f"{self.samples:,} samples, {self.batches:,} batches"
        rows = [(name, *(amax_text(table, name) for table in self.tables.values())) for name in self.table.scales]
        return (
            f"Calibration of {len(self.table)} tensors for TensorRT {self.target}: {source}; amax by rule",
            ViewTable(("tensor", *self.tables), rows),
            Remarks([*self.notes, *self.warnings]),
        )


def amax_text(table: CalibrationTable, name: str) -> str:
    """The largest value that a table keeps of a tensor, empty where it has none."""
    return f"{table.amax(name):.4g}" if name in table.scales else ""


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """Figures of what was done."""

    samples: int
    batches: int
    seconds: float
    reused: bool
    files: tuple[Path, ...]
    skipped: tuple[str, ...]
    decoded: bool


def summarize_calibration(
    job: CalibrationJob,
    statistics: Statistics | None,
    tables: Mapping[str, CalibrationTable],
    made: CalibrationFigures,
    notes: tuple[str, ...],
    warnings: tuple[str, ...],
    curve: LearningCurve | None,
) -> Calibration:
    """The result."""
    about_spec = (job.spec.warning,) if job.spec.warning else ()
    return Calibration(
        statistics=statistics,
        tables=tables,
        files=made.files,
        reused=made.reused,
        target=job.headers[job.rules[0].name].version_text,
        target_source=job.target.source,
        preprocess=job.spec,
        inputs=tuple(i.describe() for i in job.model.inputs),
        samples=made.samples,
        batches=made.batches,
        seconds=made.seconds,
        notes=notes,
        warnings=(*about_spec, *warnings),
        findings=find_suspicious_ranges(statistics) if statistics else (),
        unwatched=job.watch.unwatched,
        skipped=made.skipped,
        missing=tuple(n for n in job.watch.tensors if n not in next(iter(tables.values())).scales),
        curve=curve,
        decoded=made.decoded,
    )

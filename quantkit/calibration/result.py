"""The result of a calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantkit.calibration.job import CalibrationJob
from quantkit.calibration.learning_curve import LearningCurve
from quantkit.calibration.tables import RangeFinding, find_suspicious_ranges
from quantkit.data.preprocess_choice import PreprocessChoice
from quantkit.errors import UsageError
from quantkit.statistics import Statistics
from quantkit.table import CalibrationTable
from quantkit.view import Block, Remarks, RichDisplay, ViewTable


@dataclass(frozen=True, slots=True)
class Calibration(RichDisplay):
    """A frozen value with the result of a calibration. `tables` is by rule name, in the order of the rules; of one
    shard of a run there are statistics alone."""

    statistics: Statistics | None
    """None if TensorRT calibrated, or if tables are reused whose statistics file is gone."""
    tables: Mapping[str, CalibrationTable]
    files: tuple[Path | str, ...]
    """What was written or reused; the URL of a shard as text."""
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
    """True if data went through the network; False if the tables come from existing statistics."""

    @property
    def table(self) -> CalibrationTable:
        """The table of the first rule. UsageError for one shard of a run, which has none."""
        for table in self.tables.values():
            return table
        raise UsageError("one shard of a run has no table", remedy="merge all shards, and make tables of the result")

    def _view_(self) -> Sequence[Block]:
        source = (
            "reused"
            if self.reused
            else f"{self.samples:,} samples, {self.batches:,} batch{'' if self.batches == 1 else 'es'}"
        )
        if self.statistics and self.statistics.shard:
            return (f"Shard {self.statistics.shard.shard} of a calibration: {source}",)
        rows = [(name, *(amax_text(table, name) for table in self.tables.values())) for name in self.table.scales]
        return (
            f"Calibration of {len(self.table)} tensors for TensorRT {self.target}: {source}; amax by rule",
            ViewTable(("tensor", *self.tables), rows),
            Remarks([*self.notes, *self.warnings]),
        )


def amax_text(table: CalibrationTable, name: str) -> str:
    """Return the largest value that a table can represent for a tensor, as text; empty if it has no scale."""
    return f"{table.amax(name):.4g}" if name in table.scales else ""


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """Figures and files of one calibration run."""

    samples: int
    batches: int
    seconds: float
    reused: bool
    files: tuple[Path | str, ...]
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
    """Return the result of a run."""
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
        missing=tuple(n for table in list(tables.values())[:1] for n in job.watch.tensors if n not in table.scales),
        curve=curve,
        decoded=made.decoded,
    )

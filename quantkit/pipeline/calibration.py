"""The result of a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quantkit.job.preparing import ChosenSpec
from quantkit.job.tables import Finding, suspicious
from quantkit.job.value import Job
from quantkit.pipeline.learning import Curve
from quantkit.statistics import Statistics
from quantkit.table import CalibrationTable


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration gives. `tables` is by rule name, in the order of the rules."""

    statistics: Statistics | None
    """None where TensorRT calibrated, and where tables are reused whose statistics file is gone."""
    tables: Mapping[str, CalibrationTable]
    files: tuple[Path, ...]
    reused: bool
    target: str
    """TensorRT's version in the first table's header, and where it came from."""
    target_source: str
    preprocess: ChosenSpec
    inputs: tuple[str, ...]
    samples: int
    batches: int
    seconds: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    unwatched: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Watched tensors that never had a value."""
    curve: Curve | None = None
    decoded: bool = True
    """Whether data went through the network; tables can come from the statistics that are there."""

    @property
    def table(self) -> CalibrationTable:
        """The table of the first rule."""
        return next(iter(self.tables.values()))

    def _repr_html_(self) -> str:
        return f"<p>{self.samples} samples, {self.batches} batches</p>{self.table._repr_html_()}"


@dataclass(frozen=True, slots=True)
class Made:
    """Figures of what was done."""

    samples: int
    batches: int
    seconds: float
    reused: bool
    files: tuple[Path, ...]
    skipped: tuple[str, ...]
    decoded: bool


def summed_up(
    job: Job,
    statistics: Statistics | None,
    tables: Mapping[str, CalibrationTable],
    made: Made,
    notes: tuple[str, ...],
    warnings: tuple[str, ...],
    curve: Curve | None,
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
        findings=suspicious(statistics) if statistics else (),
        unwatched=job.watch.unwatched,
        skipped=made.skipped,
        missing=tuple(n for n in job.watch.tensors if n not in next(iter(tables.values())).scales),
        curve=curve,
        decoded=made.decoded,
    )

"""What an evaluation finds: models beside a reference, on the same samples.

    Evaluation            the reference and its candidates, on `samples` samples
    └── ModelScore        one model: metrics, difference, outputs, classes, changed samples, speed
        ├── Difference    reference − candidate, with a 95 % interval
        ├── OutputError   how far one output is from the reference's
        ├── ClassDrop     the same for one class
        ├── Confusion     a change of the predicted class, counted
        └── Changed       a sample whose answer changed

Shares and metrics are fractions (0.9118), differences are in points (100 × fraction) where the metric is a share, in
the metric's own unit where not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantkit.values import NamedChoice
from quantkit.view import Block, Remarks, RichDisplay, ViewTable


class ModelKind(NamedChoice):
    """What a model is."""

    FLOAT = "float ONNX"
    QDQ = "Q/DQ ONNX"
    TABLE = "table + ONNX"
    ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """reference − candidate of a metric, so that a loss is positive.

    value, low, high: the difference and its paired 95 % interval. p: probability of a difference as large by chance.
    better, worse: samples that the candidate gains and loses. method: how interval and p were found.
    """

    value: float
    low: float
    high: float
    p: float
    better: int
    worse: int
    method: str


@dataclass(frozen=True, slots=True)
class OutputDeviation:
    """One output against the reference's, over all samples. sqnr_db: 10·log10(Σ ref² / Σ (ref − out)²).

    kl: mean KL divergence of softmax(reference) from softmax(candidate), in nats, for class scores; else None.
    """

    name: str
    sqnr_db: float
    cosine: float
    kl: float | None
    largest: float
    """Largest |reference − candidate|."""


@dataclass(frozen=True, slots=True)
class ClassDrop:
    """A class: reference and candidate are shares of its `count` samples that are right; p is adjusted over classes."""

    name: str
    count: int
    reference: float
    candidate: float
    drop: float
    """In points."""
    p: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Samples of class `label` that the reference called `reference` and the candidate calls `candidate`."""

    label: str
    reference: str
    candidate: str
    count: int


@dataclass(frozen=True, slots=True)
class ChangedSample:
    """A sample that changed: its name, its label ("" without labels), both answers and how sure both were.

    For metrics that are not about classes, the answers are scores as text.
    """

    sample: str
    label: str
    reference: str
    reference_confidence: float
    candidate: str
    candidate_confidence: float
    path: Path | None = None
    """The image file, where the data are files."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """Mean confidence (largest softmax) of reference and candidate, and the mean of the paired differences."""

    reference: float
    candidate: float
    shift: float
    """candidate − reference, in points."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast it ran here. `where`: `onnxruntime, processor` or a GPU; a processor's figure says nothing of a GPU's.

    latency_ms: median of one batch, None where it was not measured alone.
    """

    samples_per_second: float
    latency_ms: float | None
    batch: int
    where: str


@dataclass(frozen=True, slots=True)
class ModelScore:
    """One model. `difference`, `agreement` and what follows are None or empty for the reference itself."""

    name: str
    kind: ModelKind
    path: Path | None
    sha256: str
    bytes: int
    metrics: Mapping[str, float]
    speed: Speed | None
    int8_layers: tuple[int, int] | None = None
    """INT8 layers and all layers that could be: of an engine by its record, of a Q/DQ model by its weighted nodes."""
    difference: MetricDifference | None = None
    agreement: float | None = None
    """Share of samples with the reference's answer."""
    outputs: tuple[OutputDeviation, ...] = ()
    confidence: Confidence | None = None
    classes: tuple[ClassDrop, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    changed: tuple[ChangedSample, ...] = ()
    changed_samples: int = 0
    """How many samples changed; `changed` holds those that changed most."""


@dataclass(frozen=True, slots=True)
class Evaluation(RichDisplay):
    """Models on the same samples; the first is the reference.

    metric: what `difference` is about; None where there are no labels. verdict: a sentence for each candidate.
    provenance: what decides about the figures (data identity, preprocessing, versions), JSON values only.
    """

    models: tuple[ModelScore, ...]
    samples: int
    metric: str | None
    share: bool
    """Whether the metric is a share, so that differences are in points."""
    verdict: tuple[str, ...]
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]
    seconds: float
    max_drop: float | None = None
    """The budget, in points or in the metric's unit; None where none was given."""
    files: tuple[Path, ...] = field(default=())
    warnings: tuple[str, ...] = ()
    """Those of the notes that put the figures in doubt: they are told also where nothing else is."""

    @property
    def reference(self) -> ModelScore:
        """The model that all others are compared with."""
        return self.models[0]

    @property
    def candidates(self) -> tuple[ModelScore, ...]:
        """The models that are compared with the reference."""
        return self.models[1:]

    @property
    def within_budget(self) -> bool:
        """Whether no candidate loses more than the budget."""
        budget = self.max_drop
        return budget is None or all(m.difference is None or m.difference.value <= budget for m in self.candidates)

    def _view_(self) -> Sequence[Block]:

        return evaluation_view(self)


def is_cpu_speed(speed: Speed) -> bool:
    """Whether it was measured on a processor and not on a GPU."""
    return "processor" in speed.where


HEAD = ("kind", "metric", "drop", "95 % interval", "agreement", "SQNR dB", "INT8 layers", "samples/s")


def score_row(score: ModelScore, evaluation: Evaluation) -> tuple[str, ...]:
    """kind, metric, drop, interval, agreement, SQNR, INT8 layers, speed as text; empty where there is none."""
    value = score.metrics.get(evaluation.metric) if evaluation.metric else None
    lost = score.difference
    layers = score.int8_layers
    return (
        score.kind.value,
        format_metric(value, evaluation.share),
        "" if lost is None else f"{lost.value:+.2f}",
        interval_text(lost),
        "" if score.agreement is None else f"{score.agreement:.2%}",
        f"{score.outputs[0].sqnr_db:.1f}" if score.outputs else "",
        f"{layers[0]} of {layers[1]}" if layers else "",
        f"{score.speed.samples_per_second:,.0f}" if score.speed else "",
    )


def format_metric(value: float | None, share: bool) -> str:
    """A metric's value: a share in percent."""
    if value is None:
        return ""
    return f"{value:.2%}" if share else f"{value:.4g}"


def interval_text(lost: MetricDifference | None) -> str:
    """`−0.10 … +0.18`; empty where there is no interval."""
    if lost is None or not (math.isfinite(lost.low) and math.isfinite(lost.high)):
        return ""
    return f"{lost.low:+.2f} … {lost.high:+.2f}"


def evaluation_view(evaluation: Evaluation) -> Sequence[Block]:
    """A row for each model, and the verdict."""
    head = ("model", *score_columns(evaluation.metric))
    rows = [(model.name, *score_row_without_cpu(model, evaluation)) for model in evaluation.models]
    unit = ", differences in points" if evaluation.share else ""
    return (
        f"{evaluation.samples:,} samples{unit}",
        ViewTable(head, rows, frozenset({0, 1})),
        Remarks([*evaluation.verdict, *evaluation.notes]),
    )


def score_columns(metric: str | None) -> tuple[str, ...]:
    """What `score_row` tells."""
    return (HEAD[0], metric or HEAD[1], *HEAD[2:])


def score_row_without_cpu(score: ModelScore, evaluation: Evaluation) -> tuple[str, ...]:
    """`score_row`, without speeds of a processor, which say nothing of a GPU's and are others every time."""
    kind, metric, drop, interval, *rest, speed = score_row(score, evaluation)
    told = "" if score.speed and is_cpu_speed(score.speed) else speed
    return kind, metric, drop.replace("-", "−"), interval.replace("-", "−"), *rest, told

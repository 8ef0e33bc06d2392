"""The result of an evaluation: models compared with a reference, on the same samples.

    Evaluation                the reference and its candidates
    └── ModelScore            one model: metrics, difference, outputs, classes, changed samples, speed
        ├── MetricDifference  reference − candidate, with a 95 % interval
        ├── OutputDeviation   distance of one float output from the reference's
        ├── OutputMatch       equality of one other output with the reference's
        ├── ClassDrop         the difference for one class
        ├── Confusion         a change of the predicted class, counted
        ├── ChangedSample     a sample whose prediction changed
        └── ObjectChanges, RegionChanges    of detectors and segmentation (see `object_changes`)

Shares and metrics are fractions (0.9118). Differences are in percentage points (100 × fraction) if the metric is a
share, else in the metric's own unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from quantkit.evaluation.object_changes import ObjectChanges, RegionChanges
from quantkit.metrics.registry import metric_title
from quantkit.values import NamedChoice
from quantkit.view import Block, Remarks, SavableDisplay, ViewTable, percent_text, signed, true_minus

DEFAULT_BUDGET = 0.5
"""Loss that counts as small if no budget is given, in percentage points."""


class ModelKind(NamedChoice):
    """Kind of a model."""

    FLOAT = "float ONNX"
    QDQ = "Q/DQ ONNX"
    TABLE = "table + ONNX"
    ENGINE = "engine"


class IntervalMethod(Enum):
    """How interval and p of a difference were computed; the value describes it."""

    CHANGED_SAMPLES = "Bonett-Price interval, McNemar's test (mid-p)"
    BOOTSTRAP_MEAN = "paired bootstrap, BCa"
    BOOTSTRAP_SET = "paired bootstrap of the whole set, percentiles"
    EQUAL_SCORES = "every sample has the same score"
    EQUAL_CHANGES = "every sample changes by the same amount: no interval"
    VALUE_ONLY = "only the value is known: no interval"
    NO_RESAMPLES = "no bootstrap sample has a value: no interval"
    UNKNOWN = "method unknown"
    """A method of another version of quantkit, in a file that it wrote."""


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """reference − candidate of a metric, so that a loss is positive.

    value, low, high: the difference and its paired 95 % interval. p: probability of a difference as large by chance.
    better, worse: samples that the candidate gains and loses. replicates: of the bootstrap, 0 for other methods.
    """

    value: float
    low: float
    high: float
    p: float
    better: int
    worse: int
    method: IntervalMethod
    replicates: int = 0

    @property
    def method_text(self) -> str:
        """Return the method in words, with the number of replicates."""
        return f"{self.method.value}, {self.replicates:,} replicates" if self.replicates else self.method.value


@dataclass(frozen=True, slots=True)
class OutputDeviation:
    """Deviation of one output from the reference's, over all samples. sqnr_db: 10·log10(Σ ref² / Σ (ref − out)²).

    kl: mean KL divergence of softmax(reference) from softmax(candidate), in nats, for class scores; otherwise None.
    """

    name: str
    sqnr_db: float
    cosine: float
    kl: float | None
    largest: float
    """Largest |reference − candidate|."""


@dataclass(frozen=True, slots=True)
class OutputMatch:
    """Equality of one output that is not float with the reference's: of single values, and of whole samples."""

    name: str
    values: int
    equal_values: int
    samples: int
    equal_samples: int


@dataclass(frozen=True, slots=True)
class ClassDrop:
    """Drop of one class. reference, candidate: share correct of its `count` samples. p: adjusted for all classes."""

    name: str
    count: int
    reference: float
    candidate: float
    drop: float
    """In percentage points."""
    p: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Number of samples of class `label` for which `reference` and `candidate` are predicted."""

    label: str
    reference: str
    candidate: str
    count: int


@dataclass(frozen=True, slots=True)
class ChangedSample:
    """A sample whose prediction changed: name, label ("" without labels), both predictions with their confidence.

    For metrics that are not about classes, the predictions are scores as text.
    """

    sample: str
    label: str
    reference: str
    reference_confidence: float
    candidate: str
    candidate_confidence: float
    path: Path | None = None
    """The image file, if the data are files."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """Mean confidence (largest softmax) of reference and candidate, and the mean of the paired differences."""

    reference: float
    candidate: float
    shift: float
    """candidate − reference, in percentage points."""


class Device(Enum):
    """Kind of device that a speed was measured on."""

    CPU = "CPU"
    GPU = "GPU"


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of a model on this machine. CPU speed does not predict GPU speed.

    latency_ms: median of one batch; None if it was not measured alone. where: library and device in words.
    """

    samples_per_second: float
    latency_ms: float | None
    batch: int
    where: str
    device: Device


@dataclass(frozen=True, slots=True)
class ModelScore:
    """Scores of one model; `difference`, `agreement` and the fields below are None or empty for the reference."""

    name: str
    kind: ModelKind
    path: Path | None
    sha256: str
    bytes: int
    metrics: Mapping[str, float]
    speed: Speed | None
    int8_layers: tuple[int, int] | None = None
    """INT8 layers and all candidates: of an engine from its record, of a Q/DQ model from its nodes with weights."""
    fp8_layers: int = 0
    """The candidates that are FP8."""
    difference: MetricDifference | None = None
    agreement: float | None = None
    """Share of samples with the same prediction as the reference."""
    outputs: tuple[OutputDeviation, ...] = ()
    matches: tuple[OutputMatch, ...] = ()
    """Outputs that are not float, such as indices and masks."""
    confidence: Confidence | None = None
    classes: tuple[ClassDrop, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    changed: tuple[ChangedSample, ...] = ()
    changed_samples: int = 0
    """Number of samples that changed; `changed` holds those that changed most."""
    objects: ObjectChanges | None = None
    """Detectors, instance segmentation and keypoints: how the objects change."""
    regions: RegionChanges | None = None
    """Semantic segmentation: how the regions change."""

    @property
    def shared(self) -> float | None:
        """The share of samples with the reference's class, of its objects that are found again, or of equal pixels.

        None if it is unknown.
        """
        share = self.agreement
        if self.objects is not None:
            share = self.objects.matches.share
        elif self.regions is not None:
            share = self.regions.agreement
        return None if share is None or math.isnan(share) else share

    @property
    def worst_output(self) -> OutputDeviation | None:
        """The float output with the lowest SQNR; None if none was compared."""
        return min(self.outputs, key=lambda o: -math.inf if math.isnan(o.sqnr_db) else o.sqnr_db, default=None)

    @property
    def worst_match(self) -> OutputMatch | None:
        """The other output that is equal for the fewest samples; None if none was compared."""
        return min(self.matches, key=lambda match: (match.equal_samples, match.equal_values), default=None)


@dataclass(frozen=True, slots=True)
class Evaluation(SavableDisplay):
    """Models evaluated on the same samples; the first is the reference.

    metric: the metric of `difference`; None without labels. verdict: a sentence for each candidate. provenance:
    everything that determines the result (data identity, preprocessing, versions), JSON values only.
    """

    models: tuple[ModelScore, ...]
    samples: int
    metric: str | None
    share: bool
    """True if the metric is a share, so that differences are in percentage points."""
    verdict: tuple[str, ...]
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]
    seconds: float
    max_drop: float | None = None
    """The budget, in percentage points or in the metric's unit; None if none was given."""
    files: tuple[Path, ...] = field(default=())
    warnings: tuple[str, ...] = ()
    """Notes that put the result in doubt; they are also printed in quiet mode."""
    doubts: tuple[str, ...] = ()
    """Reasons why no conclusion can be drawn from the figures, for example guessed preprocessing."""
    scores: str | None = None
    """The output whose largest value is taken for the predicted class; None if there is none."""
    scores_assumed: bool = False
    """True if neither labels nor its values show that this output holds class scores."""
    uncompared: tuple[str, ...] = ()
    """Outputs that could not be compared; `notes` say why."""

    @property
    def statements(self) -> tuple[str, ...]:
        """The verdict with the doubts that stand beside it."""
        return (*self.verdict, *(f"In doubt: {text}." for text in self.doubts))

    @property
    def reference(self) -> ModelScore:
        """Return the model that all others are compared with."""
        return self.models[0]

    @property
    def candidates(self) -> tuple[ModelScore, ...]:
        """Return the models that are compared with the reference."""
        return self.models[1:]

    @property
    def within_budget(self) -> bool:
        """Return True if no candidate loses more than the budget, and nothing puts that in doubt."""
        return self.max_drop is None or not (self.doubts or self.over_budget)

    @property
    def over_budget(self) -> tuple[ModelScore, ...]:
        """Return the candidates that lose more than the budget, as measured."""
        budget = math.inf if self.max_drop is None else self.max_drop
        return tuple(m for m in self.candidates if m.difference is not None and not m.difference.value <= budget)

    def _view_(self) -> Sequence[Block]:
        return evaluation_view(self)


HEAD = ("kind", "metric", "drop", "95 % interval", "agreement", "SQNR dB", "INT8 layers", "samples/s")


def layers_text(score: ModelScore, between: str) -> str:
    """Return the INT8 layers of all, for example `22/22`; those in FP8 with their type: `FP8 20/22`."""
    if score.int8_layers is None:
        return ""
    int8, every = score.int8_layers
    parts = [f"{int8}{between}{every}"] if int8 or not score.fp8_layers else []
    return ", ".join([*parts, *([f"FP8 {score.fp8_layers}{between}{every}"] if score.fp8_layers else [])])


def score_row(score: ModelScore, evaluation: Evaluation) -> tuple[str, ...]:
    """Return kind, metric, drop, interval, agreement, SQNR, INT8 layers and speed as text; "" for missing values."""
    value = score.metrics.get(evaluation.metric) if evaluation.metric else None
    lost = score.difference
    return (
        score.kind.value,
        format_metric(value, evaluation.share),
        "" if lost is None else signed(lost.value),
        interval_text(lost),
        agreement_text(score),
        "" if (worst := score.worst_output) is None else decibel_text(worst.sqnr_db),
        layers_text(score, " of "),
        f"{score.speed.samples_per_second:,.0f}" if score.speed else "",
    )


def agreement_text(score: ModelScore) -> str:
    """Return the share of what is as in the reference as text; "" if it is unknown."""
    return "" if score.shared is None else f"{percent_text(score.shared)}%"


def format_metric(value: float | None, share: bool) -> str:
    """Return the value of a metric as text; a share in percent."""
    if value is None:
        return ""
    return f"{percent_text(value)}%" if share else f"{value:.4g}"


def decibel_text(value: float) -> str:
    """Return an SQNR without its unit: `31.2`; `equal` for equal outputs, `−inf` if the reference is zero."""
    return "equal" if value == math.inf else true_minus(f"{value:.1f}")


def interval_text(lost: MetricDifference | None) -> str:
    """Return for example `−0.10 … +0.18`, or "" without an interval."""
    if lost is None or not (math.isfinite(lost.low) and math.isfinite(lost.high)):
        return ""
    return f"{signed(lost.low)} … {signed(lost.high)}"


def evaluation_view(evaluation: Evaluation) -> Sequence[Block]:
    """Return a table with a row for each model, and the verdict."""
    head = ("model", *score_columns(evaluation.metric))
    rows = [(model.name, *score_row_without_cpu(model, evaluation)) for model in evaluation.models]
    unit = ", differences in percentage points" if evaluation.share else ""
    return (
        f"{evaluation.samples:,} samples{unit}",
        ViewTable(head, rows, frozenset({0, 1})),
        Remarks([*evaluation.statements, *evaluation.notes]),
    )


def score_columns(metric: str | None) -> tuple[str, ...]:
    """Return the column titles of `score_row`."""
    return (HEAD[0], metric_title(metric) if metric else HEAD[1], *HEAD[2:])


def score_row_without_cpu(score: ModelScore, evaluation: Evaluation) -> tuple[str, ...]:
    """Return `score_row` without CPU speeds, which do not predict GPU speeds and differ on every run."""
    kind, metric, drop, interval, *rest, speed = score_row(score, evaluation)
    shown = "" if score.speed and score.speed.device is Device.CPU else speed
    return kind, metric, drop, interval, *rest, shown

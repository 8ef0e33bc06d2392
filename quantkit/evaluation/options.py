"""What an evaluation measures, and by which labels: settled once the outputs of a network are known."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantkit.data import DataOptions, Feed, Portion
from quantkit.data.classes import read_classes
from quantkit.data.labels import LabelOptions, Labels, LabelTask, open_labels
from quantkit.errors import DataError, UsageError
from quantkit.evaluation.accumulate import Outputs, Scoring, choose_score_output, score_outputs, start_scoring
from quantkit.evaluation.box_labels import open_scenes
from quantkit.evaluation.subjects import Subject
from quantkit.metrics.metric import Metric
from quantkit.metrics.registry import resolve_metric
from quantkit.metrics.topk import class_scores
from quantkit.preprocess import Preprocess

DEFAULT_METRICS = ("top1",)
BOXES = re.compile(r"yolo(:\w+)?(@.*)?")


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How an evaluation runs. Defaults suit most networks.

    classes: file of class names, in the order of the outputs. without_labels: agreement and output errors only.
    max_drop: the budget, in points where the metric is a share. changed: how many changed samples are kept. names: what
    the models are called, instead of their files' names. provider: onnxruntime's. device, allow_code: of engines.
    min_coverage: share of the network's float tensors that need a scale in a table.
    """

    data: DataOptions = field(default_factory=DataOptions)
    """All samples, unless a limit is given."""
    classes: str | Path | None = None
    without_labels: bool = False
    max_drop: float | None = None
    changed: int = 20
    names: tuple[str, ...] = ()
    provider: str = "cpu"
    device: int = 0
    allow_code: bool = False
    min_coverage: float = 0.9

    def __post_init__(self) -> None:
        if self.max_drop is not None and not self.max_drop >= 0.0:
            raise UsageError(f"a budget of {self.max_drop}", remedy="give --max-drop at least 0, for example 0.5")
        if self.changed < 0:
            raise UsageError(f"{self.changed} changed samples", remedy="give at least 0")
        if self.without_labels and self.max_drop is not None:
            raise UsageError("without labels no drop is known", remedy="leave --max-drop or --no-labels out")
        if self.provider not in ("cpu", "cuda"):
            raise UsageError(f"unknown provider {self.provider!r}", remedy="one of cpu, cuda")


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What is to be found out, and by which labels. spec: how images are prepared; None where they are not."""

    metrics: tuple[str, ...]
    labels: Path | None
    data: Any
    options: EvaluateOptions
    spec: Preprocess | None

    @property
    def boxes(self) -> bool:
        """Whether a metric is about boxes. UsageError where others are about classes."""
        found = [text for text in self.metrics if BOXES.fullmatch(text)]
        if found and len(found) < len(self.metrics):
            other = next(text for text in self.metrics if text not in found)
            raise UsageError(
                f"{found[0]} wants boxes as labels, {other} does not", remedy="evaluate by one of them at a time"
            )
        return bool(found)


def resolve_metrics(
    subjects: Sequence[Subject], first: Outputs, portion: Portion, feed: Feed, wanted: EvaluationRequest
) -> Scoring:
    """What is measured, now that the outputs are known. DataError, UsageError."""
    names = tuple(dict.fromkeys(wanted.metrics or DEFAULT_METRICS))
    at = next((text.partition("@")[2] for text in names if "@" in text), "") or None
    scores = choose_score_output(first, portion.samples, at)
    labels = find_labels(scores, first, portion, feed, wanted)
    makers: list[Callable[[], Metric]] = []
    if labels is not None:
        makers = name_apart(names, [resolve_metric(text, list(first)) for text in names])
    scoring = start_scoring(subjects, first, scores, makers, labels)
    if scores is None and labels is None and not wanted.options.without_labels:
        fitting = score_outputs(first, portion.samples)
        scoring.undecided = fitting if len(fitting) > 1 else ()
    return scoring


def name_apart(texts: Sequence[str], makers: Sequence[Callable[[], Metric]]) -> list[Callable[[], Metric]]:
    """Makers of metrics of different names: those that would share one, of several outputs, are called as asked for."""
    names = [make().name for make in makers]

    def called(make: Callable[[], Metric], text: str) -> Callable[[], Metric]:
        def made() -> Metric:
            metric = make()
            metric.name = text
            return metric

        return made

    return [
        make if names.count(name) == 1 else called(make, text)
        for make, name, text in zip(makers, names, texts, strict=True)
    ]


def no_scores_error(outputs: Outputs, fitting: Sequence[str]) -> UsageError:
    """That top1 has no output to go by, or several that fit."""
    if fitting:
        return UsageError(
            f"{describe_score_outputs(fitting)}, and top1 is of one of them", remedy=name_output_remedy(fitting)
        )
    return UsageError(
        f"no output holds class scores [N, C] for top1; there are {', '.join(map(repr, outputs))}",
        remedy="name a metric: --metric top1@OUTPUT, or --metric module:callable",
    )


def describe_score_outputs(fitting: Sequence[str]) -> str:
    """`outputs 'a' and 'b' hold class scores`."""
    return f"outputs {', '.join(map(repr, fitting[:-1]))} and {fitting[-1]!r} hold class scores"


def name_output_remedy(fitting: Sequence[str]) -> str:
    """How one of them is named."""
    return f"name the one to measure by, for example --metric top1@{fitting[0]}"


def find_labels(
    scores: str | None, first: Outputs, portion: Portion, feed: Feed, wanted: EvaluationRequest
) -> Labels | None:
    """The labels; None where there are none and nobody insists. DataError, UsageError."""
    options = wanted.options
    insists = bool(wanted.metrics or wanted.labels or options.max_drop is not None)
    if options.without_labels:
        if wanted.metrics or wanted.labels:
            raise UsageError("--no-labels leaves nothing to measure by", remedy="leave --no-labels, or the others, out")
        return None
    if scores is None and not wanted.metrics:
        if insists:
            raise no_scores_error(first, score_outputs(first, portion.samples))
        return None
    if wanted.boxes:
        return open_scenes(wanted.data, feed, wanted.labels, wanted.spec)
    found = None if scores is None else class_scores(first[scores])
    task = LabelTask(
        None if found is None else found.shape[1],
        not wanted.metrics or any(text.startswith("top") and ":" not in text for text in wanted.metrics),
    )
    classes = None if options.classes is None else read_classes(Path(options.classes))
    carried = feed.kind in ("batches", "stream") and portion.labels is None and wanted.labels is None
    labels = None
    if not (carried and not insists):
        labels = open_labels(wanted.data, feed, LabelOptions(wanted.labels, classes), task)
    if labels is None and insists:
        raise DataError(
            "there are no labels to measure by",
            remedy="sort images into class folders, or give --labels FILE (file,label a line)",
        )
    return labels

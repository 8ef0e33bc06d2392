"""Totals that an evaluation keeps over all batches: metrics, output errors, and the prediction for each sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.data import Portion
from quantkit.data.labels import Labels
from quantkit.errors import DataError, UsageError
from quantkit.evaluation.outputs.output_errors import MatchCounter, OutputComparison
from quantkit.evaluation.outputs.predictions import PredictionComparison, are_probabilities
from quantkit.evaluation.outputs.score_evidence import Evidence, score_evidence
from quantkit.evaluation.scenes.named_head import describe_ambiguity
from quantkit.evaluation.scenes.region_watch import RegionWatch, watch_regions
from quantkit.evaluation.scenes.watch import ImageSource, ObjectWatch, Search, head_question, watch_objects
from quantkit.evaluation.subjects import Subject
from quantkit.metrics.class_scores import class_scores
from quantkit.metrics.label_digest import LabelDigest
from quantkit.metrics.metric import MergeableMetric, Metric, MetricFactory
from quantkit.values import Array

if TYPE_CHECKING:
    import onnx

Outputs = Mapping[str, Array]


@dataclass(slots=True)
class ModelTotals:
    """Totals of one model so far. comparisons, matches: with the reference, which itself has none. predictions: beside
    the reference's."""

    subject: Subject
    metrics: list[Metric]
    comparisons: dict[str, OutputComparison]
    matches: dict[str, MatchCounter]
    predictions: PredictionComparison | None

    def state(self) -> Mapping[str, Any]:
        """Return the totals so far as plain values, arrays, and records of them. UsageError for metrics of users that
        have none."""
        return {
            "metrics": [mergeable(metric).state() for metric in self.metrics],
            "comparisons": {name: comparison.state() for name, comparison in self.comparisons.items()},
            "matches": {name: match.state() for name, match in self.matches.items()},
            "predictions": None if self.predictions is None else self.predictions.state(),
        }

    def extend(self, state: Mapping[str, Any], left_out: Collection[str]) -> None:
        """Add the totals of the samples that follow. left_out: outputs that are not compared any more."""
        for metric, more in zip(self.metrics, state["metrics"], strict=True):
            mergeable(metric).extend(more)
        for name in self.comparisons.keys() - left_out:
            self.comparisons[name].extend(state["comparisons"][name])
        for name in self.matches.keys() - left_out:
            self.matches[name].extend(state["matches"][name])
        if self.predictions is not None:
            self.predictions.extend(state["predictions"])


def mergeable(metric: Metric) -> MergeableMetric:
    """Return a metric whose totals can be kept and merged. UsageError."""
    if isinstance(metric, MergeableMetric):
        return metric
    raise UsageError(
        f"metric {metric.name} keeps a state of its own, which cannot be divided into shards",
        remedy="give a function (outputs, labels) → scores, one of each sample, or evaluate without shards",
    )


@dataclass(slots=True)
class Scoring:
    """Totals of all models so far, on the same samples. scores: the output with class scores, or None.

    assumed: neither labels nor a metric nor the values show that it holds them.
    """

    models: list[ModelTotals]
    scores: str | None
    labels: Labels | None
    assumed: bool = False
    names: list[str] = field(default_factory=list)
    truth: list[Array] = field(default_factory=list)
    digest: LabelDigest = field(default_factory=LabelDigest)
    """Digest of all labels."""
    uncompared: dict[str, str] = field(default_factory=dict)
    """Output → reason why it is not compared."""
    undecided: tuple[str, ...] = ()
    """Several outputs that hold class scores, if none of them was named."""
    notes: tuple[str, ...] = ()
    """Further notes on the pass."""
    classes: int | None = None
    """Number of class scores of a sample."""
    regions: RegionWatch | None = None
    """The regions of all models, if the network is one of semantic segmentation."""
    objects: ObjectWatch | None = None
    """The objects of all models, if the network is a detector."""
    labels_ignored: bool = False
    """True if labels were not looked for, because no output holds class scores and no metric was named."""

    def add(self, portion: Portion, found: Sequence[Outputs]) -> None:
        """Add a batch and the outputs of every model. DataError names model, output and sample."""
        labels = self.labels.of(portion) if self.labels else None
        renamed = [self._renamed(t, outputs, found[0], portion) for t, outputs in zip(self.models, found, strict=True)]
        for totals, outputs in zip(self.models, renamed, strict=True):
            if labels is not None:
                for metric in totals.metrics:
                    metric.add(outputs, labels, portion.names)
            for name, comparison in totals.comparisons.items():
                if name not in self.uncompared:
                    comparison.add(renamed[0][name], outputs[name])
            for name, match in totals.matches.items():
                if name not in self.uncompared:
                    match.add(renamed[0][name], outputs[name], portion.samples)
            if totals.predictions is not None and self.scores is not None:
                totals.predictions.add(
                    as_score_rows(renamed[0][self.scores]), as_score_rows(outputs[self.scores]), portion.names
                )
        for watch in (self.objects, self.regions):
            if watch is not None:
                watch.add(portion, renamed)
        self.names.extend(portion.names)
        if isinstance(labels, np.ndarray):
            self.truth.append(labels)
        if labels is not None:
            self.digest.add(labels)

    def state(self) -> Mapping[str, Any]:
        """Return the totals so far as plain values, arrays, and records of them. UsageError."""
        return {
            "models": [totals.state() for totals in self.models],
            "names": self.names,
            "truth": self.truth,
            "digest": self.digest.state(),
            "uncompared": self.uncompared,
            "objects": None if self.objects is None else self.objects.state(),
            "regions": None if self.regions is None else self.regions.state(),
        }

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the totals of the samples that follow, from the state of another scoring that began with the same batch.

        KeyError, TypeError, ValueError where it is none.
        """
        for totals, more in zip(self.models, state["models"], strict=True):
            totals.extend(more, self.uncompared)
        self.names.extend(state["names"])
        self.truth.extend(state["truth"])
        self.digest.extend(state["digest"])
        self.uncompared |= {name: why for name, why in state["uncompared"].items() if name not in self.uncompared}
        for watch, more in ((self.objects, state["objects"]), (self.regions, state["regions"])):
            if watch is not None:
                watch.extend(more)

    def _renamed(self, totals: ModelTotals, outputs: Outputs, reference: Outputs, portion: Portion) -> Outputs:
        """Return a model's outputs under the reference's names, after checking them. DataError."""
        if len(outputs) == len(reference) == 1:
            outputs = dict(zip(reference, outputs.values(), strict=True))
        who = totals.subject.name
        for name, known in reference.items():
            if name not in outputs:
                raise DataError(
                    f"{who} has no output {name!r}; it has {', '.join(map(repr, outputs))}",
                    remedy="evaluate models with the same outputs together",
                )
            array = outputs[name]
            if array.shape != known.shape:
                if name == self.scores or not self._may_differ(totals.subject, name, (known.shape, array.shape)):
                    raise DataError(
                        f"{who}: output {name!r} is {list(array.shape)}, but the reference's is {list(known.shape)}",
                        remedy="evaluate models with the same outputs together",
                    )
                self.uncompared[name] = f"output {name!r} is not compared: its shape depends on the values and differs"
            refuse_non_finite((self.models[0].subject.name, who), name, (known, array), portion)
        return outputs

    def _may_differ(self, subject: Subject, name: str, found: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
        """Return True if shapes of an output differ only where no model fixes it: in its length, if none is known."""
        if len(found[0]) != len(found[1]):
            return False
        shapes = [s.shapes.get(name) or (None, *found[0][1:]) for s in (self.models[0].subject, subject)]
        return all(
            first == second or not any(isinstance(shape[axis], int) for shape in shapes if axis < len(shape))
            for axis, (first, second) in enumerate(zip(*found, strict=True))
        )


def refuse_non_finite(who: tuple[str, str], name: str, arrays: tuple[Array, Array], portion: Portion) -> None:
    """Raise DataError if an output of reference or candidate holds a value that is not finite, unlike the other's.

    The error names the model, the output and the sample.
    """
    known, array = arrays
    if array.dtype.kind != "f" or (np.isfinite(array).all() and np.isfinite(known).all()):
        return
    alike = np.isinf(array)
    if known.shape == array.shape:
        alike = (alike & (known == array)) | (np.isnan(array) & np.isnan(known))
    model, broken = who[1], ~(np.isfinite(array) | alike)
    if not broken.any() and known.shape == array.shape:
        model, broken = who[0], ~(np.isfinite(known) | alike)
    if not broken.any():
        return
    raise DataError(
        f"{model}: output {name!r} holds NaN or Inf for {portion.sample_of(broken)}",
        remedy="fix the network or remove the sample; float16 overflows beyond 65504",
    )


def as_score_rows(output: Array) -> Array:
    """Return class scores as [N, C]."""
    scores = class_scores(output)
    assert scores is not None
    return scores


def score_outputs(graph: onnx.GraphProto | None, outputs: Outputs, samples: int) -> dict[str, Evidence]:
    """Return the outputs that can hold class scores [N, C], with the evidence that they do."""
    evidence = {
        name: score_evidence(graph, name, output)
        for name, output in outputs.items()
        if output.dtype.kind == "f" and output.ndim and len(output) == samples
    }
    return {name: found for name, found in evidence.items() if found is not Evidence.EXCLUDED}


def choose_score_output(fitting: Mapping[str, Evidence], named: str | None) -> str | None:
    """Return the output with class scores that a metric names, else the only one that certainly or possibly does.

    None if it is ambiguous.
    """
    if named is not None:
        return named if named in fitting else None
    certain = [name for name, found in fitting.items() if found is Evidence.CERTAIN]
    best = certain if len(certain) == 1 else list(fitting)
    return best[0] if len(best) == 1 else None


def start_watching(scoring: Scoring, first: Outputs, source: ImageSource, named: tuple[str, ...] = ()) -> None:
    """Watch objects or regions from now on, in place of the outputs that hold them.

    named: metrics that name a head without being measured. UsageError if a metric finds no head.
    """
    metrics = [totals.metrics for totals in scoring.models]
    question = head_question(scoring.models[0].subject, first)
    search = Search(named, unnamed=scoring.scores is None and not named)
    scoring.objects = watch_objects(question, metrics, source, search)
    if scoring.objects is None:
        scoring.regions = watch_regions(question, metrics, source, search)
    if (
        scoring.objects is None
        and scoring.regions is None
        and search.unnamed
        and (text := describe_ambiguity(question))
    ):
        scoring.notes += (text,)
    watched = [name for watch in (scoring.objects, scoring.regions) if watch is not None for name in watch.outputs]
    for totals in scoring.models:
        for name in watched:
            totals.comparisons.pop(name, None)
            totals.matches.pop(name, None)


def start_scoring(
    subjects: Sequence[Subject],
    first: Outputs,
    scores: str | None,
    factories: Sequence[MetricFactory],
    labels: Labels | None,
    assumed: bool = False,
) -> Scoring:
    """Return totals of nothing yet; `first` is an example of the reference's outputs."""
    others = [name for name, output in first.items() if output.dtype.kind != "f"]
    floats = [name for name, output in first.items() if output.dtype.kind == "f"]
    ordered = sorted(floats, key=lambda name: name != scores)  # class scores come first
    probabilities = None if scores is None else are_probabilities(as_score_rows(first[scores]))
    models = [
        ModelTotals(
            subject,
            [create() for create in factories] if labels else [],
            {name: OutputComparison(name, name == scores, probabilities) for name in ordered} if number else {},
            {name: MatchCounter(name) for name in others} if number else {},
            PredictionComparison(probabilities) if scores is not None else None,
        )
        for number, subject in enumerate(subjects)
    ]
    classes = None if scores is None else as_score_rows(first[scores]).shape[1]
    return Scoring(models, scores, labels, assumed, classes=classes)

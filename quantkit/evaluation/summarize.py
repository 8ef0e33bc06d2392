"""The result of an evaluation, from what was kept of every batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from quantkit._version import __version__
from quantkit.artifact import sha256_of
from quantkit.data.feed import describe_left_out
from quantkit.data.preprocess_choice import PreprocessChoice
from quantkit.errors import DataError
from quantkit.evaluation.accumulate import ModelTotals, Scoring
from quantkit.evaluation.answer_changes import Predictions, agreement, confidence
from quantkit.evaluation.class_drops import class_drops, confusions, most_changed, most_changed_scores
from quantkit.evaluation.options import describe_score_outputs, name_output_remedy
from quantkit.evaluation.paired import paired_difference
from quantkit.evaluation.result import (
    ChangedSample,
    ClassDrop,
    Confusion,
    Evaluation,
    ModelKind,
    ModelScore,
    Speed,
    is_cpu_speed,
)
from quantkit.evaluation.verdict import model_verdict
from quantkit.metrics.metric import Metric, MetricResult
from quantkit.values import Array

CONFUSIONS = 50
"""Changes of the class that are kept, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """What the result tells besides the scores. source: the data's path; data: their record. warnings: of the data."""

    source: Path | None
    data: Mapping[str, Any]
    spec: PreprocessChoice
    speeds: tuple[Speed | None, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    skipped: tuple[str, ...]
    max_drop: float | None
    changed: int
    seconds: float
    skipped_before: tuple[str, ...] = ()
    """Samples of other parts of the data that were left out."""


def summarize(scoring: Scoring, context: EvaluationContext) -> Evaluation:
    """All of it. DataError where a metric cannot be computed."""
    results = [[metric.result() for metric in tally.metrics] for tally in scoring.tallies]
    main = scoring.tallies[0].metrics[0] if scoring.labels else None
    models = []
    for number, (tally, found) in enumerate(zip(scoring.tallies, results, strict=True)):
        score = score_model(tally, found, context.speeds[number])
        if number and main is not None:
            lost = paired_difference(results[0][0], found[0], main.share, main.higher_is_better)
            score = replace(score, difference=lost)
        models.append(score_candidate(score, tally, scoring, context, main, (results[0], found)) if number else score)
    refuse_unknown_budget(models, main, context)
    metric, share = (main.name, main.share) if main else (None, True)
    said = [model_verdict(models[0], m, metric, share, len(scoring.names), context.max_drop) for m in models[1:]]
    return Evaluation(
        models=tuple(models),
        samples=len(scoring.names),
        metric=metric,
        share=share,
        verdict=tuple(said),
        notes=(*dict.fromkeys((*evaluation_warnings(context), *evaluation_notes(scoring, context))),),
        warnings=evaluation_warnings(context),
        provenance=evaluation_provenance(scoring, context),
        seconds=context.seconds,
        max_drop=context.max_drop,
    )


def score_model(tally: ModelTotals, results: list[MetricResult], speed: Speed | None) -> ModelScore:
    """A model by itself."""
    subject = tally.subject
    return ModelScore(
        name=subject.name,
        kind=subject.kind,
        path=subject.path if subject.sha256 else None,  # none is in memory
        sha256=subject.sha256,
        bytes=subject.bytes,
        metrics={m.name: result.value for m, result in zip(tally.metrics, results, strict=True)},
        speed=speed,
        int8_layers=subject.int8_layers,
    )


def score_candidate(
    score: ModelScore,
    tally: ModelTotals,
    scoring: Scoring,
    context: EvaluationContext,
    main: Metric | None,
    results: tuple[list[MetricResult], list[MetricResult]],
) -> ModelScore:
    """A candidate beside the reference."""
    errors = tuple(c.result() for name, c in tally.comparisons.items() if name not in scoring.uncompared)
    score = replace(score, outputs=errors)
    if tally.answers is not None:
        return add_class_changes(score, tally.answers.result(), scoring, context)
    first, second = (found[0].per_sample if found else None for found in results)
    if main is None or first is None or second is None:
        return score
    changed = most_changed_scores(scoring.names, first, second, main.higher_is_better, context.changed)
    return replace(
        score,
        changed=add_image_paths(changed, context),
        changed_samples=int(np.count_nonzero(np.asarray(first) != second)),
    )


def add_class_changes(
    score: ModelScore, answers: tuple[Predictions, Predictions], scoring: Scoring, context: EvaluationContext
) -> ModelScore:
    """What is told of a network that tells classes apart."""
    before, after = answers
    names = scoring.labels.names if scoring.labels else ()
    truth = class_labels(scoring)
    drops: tuple[ClassDrop, ...] = ()
    if truth is not None:
        drops = class_drops(truth, before.classes == truth, after.classes == truth, names)
    moves: tuple[Confusion, ...] = confusions(truth, as_index(before.classes), as_index(after.classes), names)
    return replace(
        score,
        agreement=agreement(before, after),
        confidence=confidence(before, after),
        classes=drops,
        confusions=moves[:CONFUSIONS],
        changed=add_image_paths(most_changed(scoring.names, truth, answers, names, context.changed), context),
        changed_samples=int(np.count_nonzero(before.classes != after.classes)),
    )


def class_labels(scoring: Scoring) -> Array | None:
    """The labels as class indices [N]; None where they are something else."""
    if not scoring.truth or any(part.ndim != 1 or part.dtype.kind not in "iu" for part in scoring.truth):
        return None
    return as_index(np.concatenate(scoring.truth))


def as_index(classes: Array) -> Array:
    """Class numbers as indices."""
    return classes.astype(np.intp)


def add_image_paths(changed: tuple[ChangedSample, ...], context: EvaluationContext) -> tuple[ChangedSample, ...]:
    """Samples with the files that they are, where the data are images."""
    root = context.source
    if context.data["kind"] != "images" or root is None:
        return changed
    folder = root if root.is_dir() else root.parent
    return tuple(replace(found, path=folder / found.sample) for found in changed)


def refuse_unknown_budget(models: list[ModelScore], main: Metric | None, context: EvaluationContext) -> None:
    """DataError where there is a budget and nothing to hold against it."""
    if context.max_drop is not None and main is None and len(models) > 1:
        raise DataError("without labels no drop is known", remedy="give labels, or leave --max-drop out")


def evaluation_warnings(context: EvaluationContext) -> tuple[str, ...]:
    """What puts the figures in doubt."""
    found = [context.spec.warning] if context.spec.warning else []
    found += context.warnings
    found += describe_left_out({*context.skipped, *context.skipped_before})
    return tuple(dict.fromkeys(found))


def evaluation_notes(scoring: Scoring, context: EvaluationContext) -> tuple[str, ...]:
    """What the user should know besides."""
    notes = [*context.notes, *(scoring.labels.notes if scoring.labels else ()), *scoring.uncompared.values()]
    simulated = [t.subject.name for t in scoring.tallies if t.subject.kind in (ModelKind.QDQ, ModelKind.TABLE)]
    if simulated:
        notes.append(f"INT8 is simulated, Q and DQ computed in float: {', '.join(simulated)}")
    if any(speed is not None and is_cpu_speed(speed) for speed in context.speeds[1:]):
        notes.append("speeds on a processor say nothing of a GPU's")
    if scoring.labels is None:
        notes.append(explain_no_metric(scoring))
        if scoring.scores is not None:
            notes.append(f"output {scoring.scores!r} is taken for class scores")
    return tuple(dict.fromkeys(notes))


def explain_no_metric(scoring: Scoring) -> str:
    """Why there is no metric, and what is told instead."""
    if scoring.undecided:
        return f"no metric: {describe_score_outputs(scoring.undecided)}; where there are labels, {name_output_remedy(scoring.undecided)}"
    told = "errors of outputs" if scoring.scores is None else "agreement with the reference and errors of outputs"
    return f"no labels: {told} only"


def evaluation_provenance(scoring: Scoring, context: EvaluationContext) -> dict[str, Any]:
    """What decides about the figures."""
    labels, classes = scoring.labels, class_labels(scoring)
    return {
        "quantkit": __version__,
        "data": dict(context.data),
        "labels": labels.source if labels else None,
        "labels_sha256": None if classes is None else sha256_of(classes.astype("<i8").tobytes()),
        "preprocess": context.spec.document,
        "preprocess_from": context.spec.source,
        "runs_on": sorted({speed.where for speed in context.speeds if speed}),
        "skipped": list(context.skipped),
    }

"""Summary of an evaluation from the totals over all batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from quantkit._version import __version__
from quantkit.artifact import sha256_of
from quantkit.data.feed import describe_left_out
from quantkit.data.preprocess_choice import PreprocessChoice
from quantkit.errors import DataError
from quantkit.evaluation.accumulate import ModelTotals, Scoring
from quantkit.evaluation.bootstrap import replicate_set
from quantkit.evaluation.class_drops import class_drops, confusions, most_changed, most_changed_scores
from quantkit.evaluation.doubts import origin_warnings, preprocessing_doubts, reference_doubt, reference_warnings
from quantkit.evaluation.options import list_score_outputs, output_remedy
from quantkit.evaluation.outputs.predictions import Predictions, agreement, confidence
from quantkit.evaluation.paired import paired_difference
from quantkit.evaluation.result import (
    ChangedSample,
    ClassDrop,
    Confusion,
    Device,
    Evaluation,
    ModelKind,
    ModelScore,
    Speed,
)
from quantkit.evaluation.scenes.object_summary import ModelObjects, SceneNames, object_changes
from quantkit.evaluation.scenes.plausible_objects import implausible_objects
from quantkit.evaluation.scenes.region_summary import region_changes
from quantkit.evaluation.verdict import model_verdict
from quantkit.metrics.metric import Metric, MetricResult
from quantkit.metrics.objects.figures import ObjectFigures
from quantkit.metrics.regions.overlap import MapOverlaps
from quantkit.metrics.registry import USER_METRIC
from quantkit.paths import is_folder
from quantkit.values import Array

CONFUSIONS = 50
"""Changes of the predicted class that are kept, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """Facts that the result contains besides the scores. source: path of the data. data: their record."""

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
    """Return the result. DataError if a metric cannot be computed."""
    results = [[metric.result() for metric in totals.metrics] for totals in scoring.models]
    main = scoring.models[0].metrics[0] if scoring.labels else None
    drawn = [replicate_figures(found) if len(results) > 1 else [] for found in results]
    models = []
    for number, (totals, found) in enumerate(zip(scoring.models, results, strict=True)):
        score = score_model(totals, found, context.speeds[number])
        if number and main is not None:
            pair = (drawn[0][0], drawn[number][0])
            lost = paired_difference(results[0][0], found[0], main.share, main.higher_is_better, pair)
            score = replace(score, difference=lost)
        if number:
            score = score_candidate(score, totals, scoring, context, main, (results[0], found))
            score = add_changed_scenes(score, number, scoring, context, (results, drawn))
        models.append(score)
    refuse_unknown_budget(models, main, context)
    metric, share = (main.name, main.share) if main else (None, True)
    doubts = evaluation_doubts(models[0], results[0], scoring, context)
    warnings = evaluation_warnings(models[0], scoring, context, doubts)
    made = Evaluation(
        models=tuple(models),
        samples=len(scoring.names),
        metric=metric,
        share=share,
        verdict=(),
        notes=tuple(dict.fromkeys((*warnings, *doubts, *evaluation_notes(scoring, context)))),
        warnings=tuple(dict.fromkeys((*warnings, *(text for text in doubts if text != context.spec.doubt)))),
        provenance=evaluation_provenance(scoring, context),
        seconds=context.seconds,
        max_drop=context.max_drop,
        doubts=doubts,
        scores=scoring.scores,
        scores_assumed=scoring.assumed,
        uncompared=tuple(scoring.uncompared),
    )
    return replace(made, verdict=tuple(model_verdict(made, model) for model in made.candidates))


def score_model(totals: ModelTotals, results: list[MetricResult], speed: Speed | None) -> ModelScore:
    """Return the scores of a model without a comparison."""
    subject = totals.subject
    return ModelScore(
        name=subject.name,
        kind=subject.kind,
        path=subject.path if subject.sha256 else None,  # a model in memory has none
        sha256=subject.sha256,
        bytes=subject.bytes,
        metrics=figures_by_name(totals.metrics, results),
        speed=speed,
        int8_layers=subject.int8_layers,
        fp8_layers=subject.fp8_layers,
    )


def figures_by_name(metrics: Sequence[Metric], results: Sequence[MetricResult]) -> dict[str, float]:
    """Return the values of all metrics by name, then the figures beside them."""
    values = {metric.name: result.value for metric, result in zip(metrics, results, strict=True)}
    for result in results:
        values |= {name: value for name, value in result.further.items() if name not in values}
    return values


def replicate_figures(results: Sequence[MetricResult]) -> list[Array | None]:
    """Return the bootstrapped figures [R, parts] of each metric; None where one has no parts, or too few samples."""
    return [
        None if result.replicate is None or result.samples < 2 else replicate_set(result.replicate, result.samples)
        for result in results
    ]


def add_changed_scenes(
    score: ModelScore,
    number: int,
    scoring: Scoring,
    context: EvaluationContext,
    measured: tuple[list[list[MetricResult]], list[list[Array | None]]],
) -> ModelScore:
    """Add how objects or regions of a candidate, by number, differ from the reference's.

    measured: results of the metrics of each model, and their replicates.
    """
    known = scoring.labels.names if scoring.labels else ()
    objects, regions = scoring.objects, scoring.regions
    if objects is not None and not objects.fault:
        names = SceneNames(scoring.names, known or objects.classes, lambda sample: image_path(sample, context))
        sides = []
        for at in (0, number):
            figures = details_of(measured, at, ObjectFigures)
            collector = objects.collectors[at]
            sides.append(ModelObjects(collector.head, collector.found, *(figures or ())))
        score = replace(score, objects=object_changes(sides[0], sides[1], names, context.changed))
    if regions is not None and not regions.fault:
        first, second = (details_of(measured, at, MapOverlaps) for at in (0, number))
        pair = None if first is None or second is None else (first[0], second[0], first[1], second[1])
        changes, classes = regions.changes[number - 1], known or regions.classes
        found = region_changes(changes, pair, classes, lambda sample: image_path(sample, context), context.changed)
        score = replace(score, regions=found)
    return score


Detail = TypeVar("Detail")


def details_of(
    measured: tuple[list[list[MetricResult]], list[list[Array | None]]], model: int, kind: type[Detail]
) -> tuple[Detail, Array | None] | None:
    """Return the first detail of a kind among the results of a model, with its replicates; None if there is none."""
    pairs = zip(measured[0][model], measured[1][model], strict=True)
    return next(((found.detail, rows) for found, rows in pairs if isinstance(found.detail, kind)), None)


def image_path(sample: str, context: EvaluationContext) -> Path | None:
    """Return the path of an image file; None if the data are not image files."""
    root = context.source
    if context.data["kind"] != "images" or root is None:
        return None
    return (root if is_folder(root) else root.parent) / sample


def score_candidate(
    score: ModelScore,
    totals: ModelTotals,
    scoring: Scoring,
    context: EvaluationContext,
    main: Metric | None,
    results: tuple[list[MetricResult], list[MetricResult]],
) -> ModelScore:
    """Add the comparison of a candidate with the reference."""
    for name, found in totals.comparisons.items():
        if found.masked and not found.compared:
            scoring.uncompared[name] = f"output {name!r} is not compared: none of its values is finite in both models"
    errors = tuple(c.result() for name, c in totals.comparisons.items() if name not in scoring.uncompared)
    matches = tuple(m.result() for name, m in totals.matches.items() if name not in scoring.uncompared)
    score = replace(score, outputs=errors, matches=matches)
    if totals.predictions is not None:
        return add_class_changes(score, totals.predictions.result(), scoring, context)
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
    score: ModelScore, predictions: tuple[Predictions, Predictions], scoring: Scoring, context: EvaluationContext
) -> ModelScore:
    """Add agreement, confidence and changes by class of a classifier."""
    before, after = predictions
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
        changed=add_image_paths(most_changed(scoring.names, truth, predictions, names, context.changed), context),
        changed_samples=int(np.count_nonzero(before.classes != after.classes)),
    )


def class_labels(scoring: Scoring) -> Array | None:
    """Return the labels as class indices [N]; None if they are something else."""
    if not scoring.truth or any(part.ndim != 1 or part.dtype.kind not in "iu" for part in scoring.truth):
        return None
    return as_index(np.concatenate(scoring.truth))


def as_index(classes: Array) -> Array:
    """Convert class numbers to indices."""
    return classes.astype(np.intp)


def add_image_paths(changed: tuple[ChangedSample, ...], context: EvaluationContext) -> tuple[ChangedSample, ...]:
    """Add the paths of the image files, if the data are images."""
    return tuple(replace(found, path=image_path(found.sample, context)) for found in changed)


def refuse_unknown_budget(models: list[ModelScore], main: Metric | None, context: EvaluationContext) -> None:
    """Raise DataError if there is a budget but no metric to check."""
    if context.max_drop is not None and main is None and len(models) > 1:
        raise DataError("no drop can be measured without labels", remedy="give labels, or omit --max-drop")


def evaluation_warnings(
    reference: ModelScore, scoring: Scoring, context: EvaluationContext, doubts: Sequence[str]
) -> tuple[str, ...]:
    """Return what the user should look at before relying on the result, without the doubts."""
    found = [context.spec.warning] if context.spec.warning else []
    found += context.warnings
    found += describe_left_out({*context.skipped, *context.skipped_before})
    found += origin_warnings([totals.subject for totals in scoring.models])
    if not any(text.startswith(reference.name) for text in doubts):
        found += reference_warnings(reference, class_labels(scoring), reference_predictions(scoring))
    undefined = {name: c.undefined for t in scoring.models for name, c in t.comparisons.items() if c.undefined}
    found += [f"output {name!r} holds NaN in both models, {count:,} times" for name, count in undefined.items()]
    return tuple(dict.fromkeys(found))


def evaluation_doubts(
    reference: ModelScore, results: Sequence[MetricResult], scoring: Scoring, context: EvaluationContext
) -> tuple[str, ...]:
    """Return why no conclusion can be drawn from the figures; empty if nothing is known against them.

    results: of the reference's metrics.
    """
    main = scoring.models[0].metrics[0] if scoring.labels else None
    found = list(preprocessing_doubts([totals.subject for totals in scoring.models], context.spec))
    text = reference_doubt(reference, main, class_labels(scoring), reference_predictions(scoring), scoring.classes)
    figures = next((r.detail for r in results if isinstance(r.detail, ObjectFigures)), None)
    if text is None and figures is not None:
        text = implausible_objects(reference.name, figures)
    return tuple(dict.fromkeys([*found, *([text] if text else [])]))


def reference_predictions(scoring: Scoring) -> Predictions | None:
    """Return the predictions of the reference; None without class scores."""
    totals = scoring.models[0].predictions
    return None if totals is None else totals.result()[0]


def evaluation_notes(scoring: Scoring, context: EvaluationContext) -> tuple[str, ...]:
    """Return further notes for the user."""
    notes = [*context.notes, *(scoring.labels.notes if scoring.labels else ()), *scoring.notes]
    notes += scoring.uncompared.values()
    for kind, watch in (("objects", scoring.objects), ("classes of pixels", scoring.regions)):
        if watch is not None and watch.fault:
            notes.append(f"{kind} are not compared: {watch.fault}")
    masked = {name: c.masked for t in scoring.models for name, c in t.comparisons.items() if c.masked}
    for name, count in masked.items():
        notes.append(f"{count:,} values of output {name!r} are infinite or NaN in both models, and do not count")
    notes += simulation_notes(scoring.models)
    if any(speed is not None and speed.device is Device.CPU for speed in context.speeds[1:]):
        notes.append("CPU speed does not predict GPU speed")
    if scoring.labels is None:
        notes.append(explain_no_metric(scoring))
        if scoring.assumed:
            notes.append(f"output {scoring.scores!r} may hold class scores; if it does not, ignore the agreement")
    return tuple(dict.fromkeys(notes))


def simulation_notes(models: Sequence[ModelTotals]) -> list[str]:
    """Return which models onnxruntime simulates, by the type that they have on a GPU."""
    subjects = [totals.subject for totals in models]
    quantized = [subject for subject in subjects if subject.kind in (ModelKind.QDQ, ModelKind.TABLE)]
    types = {
        "INT8": [subject.name for subject in quantized if not subject.fp8_layers or (subject.int8_layers or (0,))[0]],
        "FP8": [subject.name for subject in quantized if subject.fp8_layers],
    }
    return [
        f"{name} is simulated (Q and DQ are computed in float): {', '.join(names)}"
        for name, names in types.items()
        if names
    ]


def explain_no_metric(scoring: Scoring) -> str:
    """Return why there is no metric, and what is compared instead."""
    if scoring.objects is not None and not scoring.objects.fault:
        return f"no labels: objects are compared with the reference's ({scoring.objects.collectors[0].head.summary})"
    if scoring.regions is not None and not scoring.regions.fault:
        return f"no labels: classes of pixels are compared with the reference's ({scoring.regions.head.summary})"
    if scoring.undecided:
        outputs = scoring.undecided
        return f"no metric: {list_score_outputs(outputs)}; if there are labels, {output_remedy(outputs)}"
    if scoring.labels_ignored:
        return (
            "no metric: no output holds class scores, so labels are not read; output errors only "
            f"(--metric map:HEAD measures a detector, {USER_METRIC} anything else)"
        )
    compared = "output errors" if scoring.scores is None else "agreement with the reference and output errors"
    return f"no labels: {compared} only"


def evaluation_provenance(scoring: Scoring, context: EvaluationContext) -> dict[str, Any]:
    """Return everything that determines the result."""
    labels, classes = scoring.labels, class_labels(scoring)
    return {
        "quantkit": __version__,
        "data": dict(context.data),
        "labels": labels.source if labels else None,
        "labels_sha256": scoring.digest.text if classes is None else sha256_of(classes.astype("<i8").tobytes()),
        "preprocess": context.spec.document,
        "preprocess_from": context.spec.source,
        "runs_on": sorted({speed.where for speed in context.speeds if speed}),
        "skipped": list(context.skipped),
    }

"""Reasons why no conclusion can be drawn from an evaluation, and warnings about the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantkit.data.preprocess_choice import PreprocessChoice
from quantkit.evaluation.outputs.predictions import Predictions
from quantkit.evaluation.plausibility import implausible_accuracy, overconfidence
from quantkit.evaluation.result import ModelKind, ModelScore
from quantkit.evaluation.subjects import Subject
from quantkit.metrics.metric import Metric
from quantkit.preprocess import parse_preprocess
from quantkit.quantization.record import quantization_record
from quantkit.values import Array


def preprocessing_doubts(subjects: Sequence[Subject], spec: PreprocessChoice) -> Iterator[str]:
    """Yield why the samples may not be what the models expect: a guess, or scales of images prepared otherwise."""
    if spec.doubt:
        yield spec.doubt
    for subject in subjects:
        record = quantization_record(subject.model.metadata, subject.path.name) if subject.model else None
        known = None if record is None else record.scales.get("preprocess")
        if known is None or spec.applied is None:
            continue
        counted = parse_preprocess(known, f"the record of {subject.path.name}")
        # A float16 model gets the same images in another type.
        if counted.model_copy(update={"dtype": spec.applied.dtype}) != spec.applied:
            yield (
                f"the scales of {subject.name} are of images prepared by: {counted.describe()}; these were prepared "
                f"by: {spec.applied.describe()}; give the --preprocess of its calibration, or calibrate again"
            )


def origin_warnings(subjects: Sequence[Subject]) -> Iterator[str]:
    """Yield warnings about candidates that were quantized from another model than the reference."""
    reference = subjects[0]
    for subject in subjects[1:]:
        record = quantization_record(subject.model.metadata, subject.path.name) if subject.model else None
        if reference.kind is ModelKind.FLOAT and record and record.model not in ("", reference.sha256):
            yield f"{subject.name} was quantized from another model than {reference.name}, the reference"


def reference_doubt(
    reference: ModelScore, main: Metric | None, labels: Array | None, found: Predictions | None, classes: int | None
) -> str | None:
    """Return why the metric of the reference is not that of a trained network; None if it may be.

    labels: class indices [N]; None if they are something else. found, classes: the reference's predictions.
    """
    if labels is not None and found is not None and classes is not None:
        return implausible_accuracy(reference.name, labels, found, classes)
    if main is not None and main.share and main.higher_is_better and reference.metrics[main.name] == 0.0:
        return (
            f"{main.name} of {reference.name} is 0, so that nothing can be lost: check the preprocessing "
            "(--preprocess) and the labels (--labels)"
        )
    return None


def reference_warnings(reference: ModelScore, labels: Array | None, found: Predictions | None) -> Iterator[str]:
    """Yield warnings about the predictions of the reference."""
    if labels is not None and found is not None and (text := overconfidence(reference.name, labels, found)):
        yield text

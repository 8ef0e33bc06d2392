"""Reasons why no conclusion can be drawn from an evaluation, and warnings about the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantkit.data.preprocess_choice import PreprocessChoice
from quantkit.document import DocumentType
from quantkit.errors import ModelError
from quantkit.evaluation.plausibility import implausible_accuracy, overconfidence
from quantkit.evaluation.predictions import Predictions
from quantkit.evaluation.result import ModelKind, ModelScore
from quantkit.evaluation.subjects import Subject
from quantkit.metrics.metric import Metric
from quantkit.preprocess import parse_preprocess
from quantkit.provenance import parse_record, provenance_path, read_provenance
from quantkit.quantization.quantize import METADATA_KEY
from quantkit.values import Array


@dataclass(frozen=True, slots=True)
class QuantizedRecord:
    """What `quantize` records in a model's metadata about its scales."""

    scales: Mapping[str, Any] = field(default_factory=dict)


QUANTIZED = DocumentType[QuantizedRecord](
    QuantizedRecord, "a record of quantkit quantize", ModelError, "quantize it again"
)


def preprocessing_doubts(subjects: Sequence[Subject], spec: PreprocessChoice) -> Iterator[str]:
    """Yield why the samples may not be what the models expect: a guess, or a table of images prepared otherwise."""
    if spec.doubt:
        yield spec.doubt
    for subject in subjects:
        yield from scale_doubts(subject, spec)


def scale_doubts(subject: Subject, spec: PreprocessChoice) -> Iterator[str]:
    """Yield why scales may not fit the samples, by the record of the table or Q/DQ model. PreprocessError."""
    known = recorded_preprocess(subject)
    if known is None or spec.applied is None:
        return
    counted = parse_preprocess(known, f"the record of {subject.path.name}")
    if counted != spec.applied:
        yield (
            f"{subject.path.name} was made from images prepared by: {counted.describe()}; these were prepared by: "
            f"{spec.applied.describe()}; give the --preprocess of its calibration, or calibrate again"
        )


def recorded_preprocess(subject: Subject) -> Mapping[str, Any] | None:
    """Return how the images were prepared that scales come from, as recorded; None where nothing is.

    TableError or ModelError where a record is damaged.
    """
    if subject.kind is ModelKind.TABLE:
        known = read_provenance(provenance_path(subject.path))
        return None if known is None else known.preprocess
    if subject.model is None or METADATA_KEY not in subject.model.metadata:
        return None
    text = subject.model.metadata[METADATA_KEY]
    where = f"the metadata {METADATA_KEY!r} of {subject.path.name}"
    return parse_record(QUANTIZED, text, where).scales.get("preprocess")


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

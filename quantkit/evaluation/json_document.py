"""Conversion of an evaluation to JSON and back, for `--json`, `--output` and `compare` (docs/evaluate.md)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from pydantic import ValidationError

from quantkit.artifact import nulls_for_nonfinite
from quantkit.document import DocumentType, first_fault, validate_typed
from quantkit.errors import DataError
from quantkit.evaluation.object_document import changes_fields, changes_json
from quantkit.evaluation.result import Device, Evaluation, IntervalMethod, ModelScore, Speed
from quantkit.view import quoted

FORMAT = 1
WRITER = "give a file that quantkit evaluate --output wrote"
EVALUATION = DocumentType[Evaluation](Evaluation, "an evaluation", DataError, WRITER, absent=WRITER)
FIELDS = frozenset(field.name for field in fields(Evaluation))
MODEL_FIELDS = frozenset(field.name for field in fields(ModelScore))
REPLICATES = re.compile(r"(?P<method>.+), (?P<count>[0-9][0-9,]{0,12}) replicates")
CPU = re.compile(r"\([0-9]+ cores\)$")
"""End of `where` on a CPU, which older versions name differently."""
OLDER_METHODS = {
    "every sample differs alike: no interval": IntervalMethod.EQUAL_CHANGES,
    "no draw of samples has a figure: no interval": IntervalMethod.NO_RESAMPLES,
}
"""Methods as older versions wrote them."""


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return JSON values only; null for values that are unknown or infinite (the SQNR of equal outputs, or if the
    reference is all zero)."""
    made = {
        "format": FORMAT,
        "samples": evaluation.samples,
        "metric": evaluation.metric,
        "share": evaluation.share,
        "max_drop": evaluation.max_drop,
        "within_budget": evaluation.within_budget,
        "verdict": list(evaluation.verdict),
        "doubts": list(evaluation.doubts),
        "scores": evaluation.scores,
        "scores_assumed": evaluation.scores_assumed,
        "uncompared": list(evaluation.uncompared),
        "models": [model_json(model, evaluation.metric) for model in evaluation.models],
        "notes": list(evaluation.notes),
        "warnings": list(evaluation.warnings),
        "provenance": dict(evaluation.provenance),
        "seconds": round(evaluation.seconds, 3),
        "files": [str(path) for path in evaluation.files],
    }
    return {key: nulls_for_nonfinite(value) for key, value in made.items()}


def model_json(model: ModelScore, metric: str | None) -> dict[str, Any]:
    """Return one model; the main metric also comes first, under its own name."""
    lost = model.difference
    worst, kl = model.worst_output, next((o.kl for o in model.outputs if o.kl is not None), None)
    return {
        **({metric: model.metrics[metric]} if metric else {}),  # first, so that no metric takes the place of a field
        "name": model.name,
        "kind": model.kind.value,
        "path": str(model.path) if model.path else None,
        "sha256": model.sha256,
        "bytes": model.bytes,
        "metrics": dict(model.metrics),
        "drop": lost.value if lost else None,
        "interval": [lost.low, lost.high] if lost else None,
        "p": lost.p if lost else None,
        "better": lost.better if lost else None,
        "worse": lost.worse if lost else None,
        "method": lost.method_text if lost else None,
        "agreement": model.agreement,
        "worst_output": worst.name if worst else None,
        "sqnr_db": worst.sqnr_db if worst else None,
        "cosine": worst.cosine if worst else None,
        "kl": kl,
        "outputs": [asdict(output) for output in model.outputs],
        "matches": [asdict(match) for match in model.matches],
        "confidence": asdict(model.confidence) if model.confidence else None,
        "classes": [asdict(found) for found in model.classes],
        "confusions": [asdict(found) for found in model.confusions],
        "changed": [{**asdict(found), "path": found.path and str(found.path)} for found in model.changed],
        "changed_samples": model.changed_samples,
        "objects": changes_json(model.objects),
        "regions": changes_json(model.regions),
        "int8_layers": list(model.int8_layers) if model.int8_layers else None,
        "fp8_layers": model.fp8_layers,
        "speed": speed_json(model.speed) if model.speed else None,
    }


def parse_evaluation(content: Any, where: str) -> Evaluation:
    """Return the evaluation in a document. DataError if it is not one, or of another version."""
    if not isinstance(content, Mapping) or "models" not in content or "format" not in content:
        raise DataError(f"{where} is not an evaluation", remedy="quantkit evaluate … --output FILE.json writes one")
    if content["format"] != FORMAT:
        raise DataError(
            f"{where} is an evaluation in format {quoted(content['format'])}, but this quantkit reads {FORMAT}",
            remedy="evaluate again",
        )
    kept = {key: content[key] for key in FIELDS if key in content}
    try:
        document = {**kept, "models": [model_fields(model) for model in content["models"]]}
        made: Evaluation = validate_typed(document, Evaluation)
    except ValidationError as error:
        raise damaged_file_error(where, first_fault(error)) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged_file_error(where, f"{type(error).__name__}: {error}") from None
    if not made.models or not all(made.metric in (None, *model.metrics) for model in made.models):
        raise damaged_file_error(where, f"a model lacks {made.metric}" if made.models else "it has no models")
    return made


def damaged_file_error(where: str, why: str) -> DataError:
    """Return the error for a file with missing or wrong values."""
    return DataError(f"{where} is damaged: {why}", remedy="evaluate again with --output")


def model_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return one model as the fields of `ModelScore`, types not checked yet. KeyError, TypeError, ValueError."""
    kept = {key: entry[key] for key in MODEL_FIELDS if key in entry}
    speed, lost = entry["speed"], entry["drop"] is not None or entry["interval"] is not None
    return {
        **kept,
        "speed": {**speed, "device": device_in(speed["where"]).value} if speed else None,
        "difference": difference_fields(entry) if lost else None,
        "outputs": [output_fields(output) for output in entry["outputs"]],
        "classes": [{**found, "p": null_as_nan(found["p"])} for found in entry["classes"]],
        "changed": [changed_fields(found) for found in entry["changed"]],
        **{key: changes_fields(entry.get(key)) for key in ("objects", "regions")},
    }


def changed_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return one sample as the fields of `ChangedSample`; scores, which are not classes, have no confidence."""
    confidence = ("reference_confidence", "candidate_confidence")
    return {**entry, **{name: null_as_nan(entry[name]) for name in confidence}}


def difference_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the difference of the main metric as the fields of `MetricDifference`."""
    low, high = entry["interval"]
    method, replicates = parse_method(entry["method"])
    return {
        "value": entry["drop"],
        "low": null_as_nan(low),
        "high": null_as_nan(high),
        "p": null_as_nan(entry["p"]),
        "better": entry["better"],
        "worse": entry["worse"],
        "method": method.value,
        "replicates": replicates,
    }


def parse_method(text: str) -> tuple[IntervalMethod, int]:
    """Parse a method and its number of replicates, also as older versions wrote them."""
    match = REPLICATES.fullmatch(text)
    known = {method.value: method for method in IntervalMethod} | OLDER_METHODS
    method = known.get(match["method"] if match else text, IntervalMethod.UNKNOWN)
    return method, int(match["count"].replace(",", "")) if match and method is not IntervalMethod.UNKNOWN else 0


def speed_json(speed: Speed) -> dict[str, Any]:
    """Return a speed; the text in `where` includes the device."""
    entry = asdict(speed)
    del entry["device"]
    return entry


def device_in(where: str) -> Device:
    """Return the device of a speed, which the format names only in the text."""
    return Device.CPU if CPU.search(where) else Device.GPU


def output_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return one output as the fields of `OutputDeviation`; null is an infinite SQNR, of equal outputs or of a
    reference that is all zero."""
    infinite = -math.inf if entry["largest"] else math.inf
    sqnr = infinite if entry["sqnr_db"] is None else entry["sqnr_db"]
    return {**entry, "sqnr_db": sqnr, "cosine": null_as_nan(entry["cosine"])}


def null_as_nan(value: Any) -> Any:
    """Return NaN for null, and any other value as it is."""
    return math.nan if value is None else value

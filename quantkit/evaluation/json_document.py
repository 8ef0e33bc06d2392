"""Conversion of an evaluation to JSON and back, for `--json`, `--output` and `compare` (docs/evaluate.md)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantkit.artifact import nulls_for_nonfinite
from quantkit.errors import DataError
from quantkit.evaluation.result import (
    ChangedSample,
    ClassDrop,
    Confidence,
    Confusion,
    Device,
    Evaluation,
    IntervalMethod,
    MetricDifference,
    ModelKind,
    ModelScore,
    OutputDeviation,
    Speed,
)

FORMAT = 1
REPLICATES = re.compile(r"(?P<method>.+), (?P<count>[\d,]+) replicates")
CPU = re.compile(r"\(\d+ cores\)$")
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
    first = model.outputs[0] if model.outputs else None
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
        "sqnr_db": first.sqnr_db if first else None,
        "cosine": first.cosine if first else None,
        "kl": first.kl if first else None,
        "outputs": [asdict(output) for output in model.outputs],
        "confidence": asdict(model.confidence) if model.confidence else None,
        "classes": [asdict(found) for found in model.classes],
        "confusions": [asdict(found) for found in model.confusions],
        "changed": [{**asdict(found), "path": found.path and str(found.path)} for found in model.changed],
        "changed_samples": model.changed_samples,
        "int8_layers": list(model.int8_layers) if model.int8_layers else None,
        "speed": speed_json(model.speed) if model.speed else None,
    }


def parse_evaluation(content: Any, where: str) -> Evaluation:
    """Return the evaluation in a document. DataError if it is not one, or of another version."""
    if not isinstance(content, Mapping) or "models" not in content or "format" not in content:
        raise DataError(f"{where} is not an evaluation", remedy="quantkit evaluate … --output FILE.json writes one")
    if content["format"] != FORMAT:
        raise DataError(
            f"{where} is an evaluation in format {content['format']}, but this quantkit reads {FORMAT}",
            remedy="evaluate again",
        )
    try:
        made = Evaluation(
            models=tuple(parse_model_score(model) for model in content["models"]),
            samples=int(content["samples"]),
            metric=content["metric"],
            share=bool(content["share"]),
            verdict=tuple(content["verdict"]),
            notes=tuple(content["notes"]),
            provenance=dict(content["provenance"]),
            seconds=float(content["seconds"]),
            max_drop=content["max_drop"],
            files=tuple(Path(path) for path in content["files"]),
            warnings=tuple(content.get("warnings", ())),
        )
        complete = made.models and (made.metric is None or all(made.metric in m.metrics for m in made.models))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged_file_error(where, f"{type(error).__name__}: {error}") from None
    if not complete:
        raise damaged_file_error(where, "it has no models" if not made.models else f"a model lacks {made.metric}")
    return made


def damaged_file_error(where: str, why: str) -> DataError:
    """Return the error for a file with missing or wrong values."""
    return DataError(f"{where} is damaged: {why}", remedy="evaluate again with --output")


def parse_model_score(entry: Mapping[str, Any]) -> ModelScore:
    """Parse one model. KeyError, TypeError, ValueError."""
    kept = {key: entry[key] for key in ("name", "sha256", "bytes", "agreement", "changed_samples")}
    lost = entry["drop"] is not None or entry["interval"] is not None
    return ModelScore(
        **kept,
        kind=ModelKind(entry["kind"]),
        path=path_or_none(entry["path"]),
        metrics={str(name): float(value) for name, value in entry["metrics"].items()},
        speed=parse_speed(entry["speed"]) if entry["speed"] else None,
        int8_layers=(int(entry["int8_layers"][0]), int(entry["int8_layers"][1])) if entry["int8_layers"] else None,
        difference=parse_difference(entry) if lost else None,
        outputs=tuple(parse_output_deviation(output) for output in entry["outputs"]),
        confidence=Confidence(**entry["confidence"]) if entry["confidence"] else None,
        classes=tuple(ClassDrop(**{**found, "p": number_or_nan(found["p"])}) for found in entry["classes"]),
        confusions=tuple(Confusion(**found) for found in entry["confusions"]),
        changed=tuple(parse_changed_sample(found) for found in entry["changed"]),
    )


def parse_changed_sample(entry: Mapping[str, Any]) -> ChangedSample:
    """Parse one sample; scores, which are not classes, have no confidence."""
    confidence = {name: number_or_nan(entry[name]) for name in ("reference_confidence", "candidate_confidence")}
    return ChangedSample(**{**entry, **confidence, "path": path_or_none(entry["path"])})


def parse_difference(entry: Mapping[str, Any]) -> MetricDifference:
    """Parse the difference of the main metric."""
    low, high = entry["interval"]
    return MetricDifference(
        float(entry["drop"]),
        number_or_nan(low),
        number_or_nan(high),
        number_or_nan(entry["p"]),
        int(entry["better"]),
        int(entry["worse"]),
        *parse_method(entry["method"]),
    )


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


def parse_speed(entry: Mapping[str, Any]) -> Speed:
    """Parse a speed. The format names the device only in the text."""
    return Speed(**entry, device=Device.CPU if CPU.search(entry["where"]) else Device.GPU)


def parse_output_deviation(entry: Mapping[str, Any]) -> OutputDeviation:
    """Parse one output; null is an infinite SQNR, of equal outputs or of a reference that is all zero."""
    infinite = -math.inf if entry["largest"] else math.inf
    sqnr = infinite if entry["sqnr_db"] is None else float(entry["sqnr_db"])
    return OutputDeviation(**{**entry, "sqnr_db": sqnr, "cosine": number_or_nan(entry["cosine"])})


def number_or_nan(value: Any) -> float:
    """Return a number, NaN for null."""
    return math.nan if value is None else float(value)


def path_or_none(text: str | None) -> Path | None:
    """Return a path, None for null."""
    return None if text is None else Path(text)

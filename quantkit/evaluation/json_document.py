"""An evaluation as JSON and back: what `--json` prints, `--output` writes and `compare` reads (docs/evaluate.md)."""

from __future__ import annotations

import math
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
    Evaluation,
    MetricDifference,
    ModelKind,
    ModelScore,
    OutputDeviation,
    Speed,
)

FORMAT = 1


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """JSON values only; null where a figure is infinite (the SQNR of equal outputs, and of a reference that is zero
    throughout) or not known."""
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
    """One model; what is about the main metric stands at the top, under the metric's own name too."""
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
        "method": lost.method if lost else None,
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
        "speed": asdict(model.speed) if model.speed else None,
    }


def parse_evaluation(content: Any, where: str) -> Evaluation:
    """The evaluation in a document. DataError where it is none, or of another version."""
    if not isinstance(content, Mapping) or "models" not in content or "format" not in content:
        raise DataError(f"{where} is no evaluation", remedy="quantkit evaluate … --output FILE.json writes one")
    if content["format"] != FORMAT:
        raise DataError(
            f"{where} is an evaluation of format {content['format']}, this quantkit reads {FORMAT}",
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
        raise damaged_file_error(where, "it has no models" if not made.models else f"a model has no {made.metric}")
    return made


def damaged_file_error(where: str, why: str) -> DataError:
    """A file that does not hold what it should."""
    return DataError(f"{where} is damaged: {why}", remedy="evaluate again with --output")


def parse_model_score(entry: Mapping[str, Any]) -> ModelScore:
    """One model. KeyError, TypeError, ValueError."""
    kept = {key: entry[key] for key in ("name", "sha256", "bytes", "agreement", "changed_samples")}
    lost = entry["drop"] is not None or entry["interval"] is not None
    return ModelScore(
        **kept,
        kind=ModelKind(entry["kind"]),
        path=path_or_none(entry["path"]),
        metrics={str(name): float(value) for name, value in entry["metrics"].items()},
        speed=Speed(**entry["speed"]) if entry["speed"] else None,
        int8_layers=(int(entry["int8_layers"][0]), int(entry["int8_layers"][1])) if entry["int8_layers"] else None,
        difference=parse_difference(entry) if lost else None,
        outputs=tuple(parse_output_deviation(output) for output in entry["outputs"]),
        confidence=Confidence(**entry["confidence"]) if entry["confidence"] else None,
        classes=tuple(ClassDrop(**{**found, "p": number_or_nan(found["p"])}) for found in entry["classes"]),
        confusions=tuple(Confusion(**found) for found in entry["confusions"]),
        changed=tuple(parse_changed_sample(found) for found in entry["changed"]),
    )


def parse_changed_sample(entry: Mapping[str, Any]) -> ChangedSample:
    """One sample; scores, which are no classes, have no confidence."""
    sure = {name: number_or_nan(entry[name]) for name in ("reference_confidence", "candidate_confidence")}
    return ChangedSample(**{**entry, **sure, "path": path_or_none(entry["path"])})


def parse_difference(entry: Mapping[str, Any]) -> MetricDifference:
    """The difference of the main metric."""
    low, high = entry["interval"]
    return MetricDifference(
        float(entry["drop"]),
        number_or_nan(low),
        number_or_nan(high),
        number_or_nan(entry["p"]),
        int(entry["better"]),
        int(entry["worse"]),
        entry["method"],
    )


def parse_output_deviation(entry: Mapping[str, Any]) -> OutputDeviation:
    """One output; null stands for an infinite SQNR: of equal outputs, or where all is noise."""
    infinite = -math.inf if entry["largest"] else math.inf
    sqnr = infinite if entry["sqnr_db"] is None else float(entry["sqnr_db"])
    return OutputDeviation(**{**entry, "sqnr_db": sqnr, "cosine": number_or_nan(entry["cosine"])})


def number_or_nan(value: Any) -> float:
    """A number; NaN for null."""
    return math.nan if value is None else float(value)


def path_or_none(text: str | None) -> Path | None:
    """A path; None for null."""
    return None if text is None else Path(text)

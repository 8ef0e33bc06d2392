"""The result of tuning as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from quantkit.artifact import nulls_for_nonfinite
from quantkit.tuning.result import Tuning
from quantkit.tuning.trial import RankingBasis, Trial

FORMAT = 1


def tuning_document(tuning: Tuning, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result as JSON values, with null for figures that are infinite or were not measured.

    report: the JSON document of the evaluation on the held-out part.
    """
    made = {
        "format": FORMAT,
        "model": tuning.model,
        "metric": tuning.metric,
        "max_drop": tuning.max_drop,
        "within_budget": tuning.within_budget and not tuning.report.doubts,
        "held_on_tuning_part": tuning.held,
        "verdict": tuning.verdict,
        "samples": {"tuning": tuning.samples[0], "holdout": tuning.samples[1]},
        "layers": tuning.layers,
        "type": tuning.type.value,
        "types": dict(tuning.types),
        "type_counts": dict(zip(("int8", "fp8", "float"), tuning.type_counts, strict=True)),
        "layer_types": [layer.document for layer in tuning.layer_types],
        "evaluations": tuning.evaluations,
        "reference": tuning.reference,
        "chosen": trial_document(tuning.chosen),
        "untuned": asdict(tuning.untuned),
        "tuned": asdict(tuning.tuned),
        "trials": [trial_document(trial) for trial in tuning.trials],
        "ranking": [asdict(layer) for layer in tuning.ranking],
        "rules": dict(tuning.rules),
        "ranked_on": None if tuning.ranked is None else ranking_basis_document(tuning.ranked),
        "excluded": list(tuning.excluded),
        "machine": tuning.machine,
        "front": [asdict(point) for point in tuning.front],
        "speed": None if tuning.speed is None else tuning.speed.document(),
        "deploy": dict(tuning.deployment),
        "holdout": report,
        "notes": list(tuning.notes),
        "provenance": dict(tuning.provenance),
        "seconds": round(tuning.seconds, 3),
        "files": [path.name for path in tuning.files],
    }
    return {key: nulls_for_nonfinite(value) for key, value in made.items()}


def ranking_basis_document(found: RankingBasis) -> dict[str, Any]:
    """Return the basis of the ranking as JSON values."""
    recipe = found.recipe
    return {
        "rule": recipe.rule,
        "repairs": list(recipe.repairs),
        "proxy_db": found.db,
        "samples": found.samples,
    }


def trial_document(trial: Trial) -> dict[str, Any]:
    """Return a trial as JSON values."""
    return {
        "step": trial.step,
        "why": trial.why,
        "outcome": trial.outcome,
        "rule": trial.recipe.rule,
        "repairs": list(trial.recipe.repairs),
        "kept": list(trial.recipe.kept),
        "fp8": list(trial.recipe.fp8),
        "policy": trial.recipe.policy.value if trial.recipe.policy else None,
        "weights_in_float": trial.floats,
        "proxy_db": trial.proxy_db,
        "metric": trial.figure.metric if trial.figure else None,
        "drop": trial.figure.drop if trial.figure else None,
        "interval": [trial.figure.low, trial.figure.high] if trial.figure else None,
    }

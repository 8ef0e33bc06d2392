"""The recommendation: which precision to use, in one sentence derived from accuracy and speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quantkit.engines.bench_result import BenchResult
from quantkit.engines.choice import SIMPLEST_FIRST, TimedEngine, fastest_within_budget
from quantkit.evaluation.result import Evaluation, ModelKind, ModelScore

DEFAULT_BUDGET = 0.5
"""Loss allowed by default, in percentage points."""


@dataclass(frozen=True, slots=True)
class EngineCandidate:
    """An engine to choose from. lost: its largest possible loss, None if unknown. milliseconds: time of one batch."""

    model: ModelScore
    precision: str
    lost: float | None
    milliseconds: float


def recommendation(evaluation: Evaluation, bench: BenchResult | None) -> str:
    """Return which precision to use, and why."""
    if bench is None or not bench.on_gpu:
        return recommend_by_accuracy(evaluation)
    batch = bench.batches[-1]
    found = engine_candidates(evaluation, bench, batch)
    if not found:
        return "Nothing is recommended: no engine was both evaluated and timed."
    budget = loss_budget(evaluation)
    engines = [TimedEngine(c.model.name, c.precision, c.milliseconds, c.lost) for c in found]
    best = fastest_within_budget(engines, budget)
    if best is None:
        least = min(found, key=lambda choice: choice.lost or 0.0)
        lost = loss_amount(least.model, evaluation)
        return (
            f"Nothing is recommended: {least.model.name} loses least, {lost}, which exceeds {budget_text(evaluation)}."
        )
    chosen = found[engines.index(best)]
    slowest = max(found, key=lambda choice: choice.milliseconds)
    said = (
        f"Use {chosen.precision.upper()} ({chosen.model.name}): {chosen.milliseconds:.3f} ms at batch {batch}, "
        f"{slowest.milliseconds / chosen.milliseconds:.2f}× as fast as {slowest.precision.upper()}; "
        f"{loss_clause(chosen.model, evaluation)}."
    )
    int8 = [choice for choice in found if choice.precision == "int8"]
    return said if chosen in int8 or not int8 else f"{said} {why_not_int8(int8, chosen, evaluation)}"


def loss_budget(evaluation: Evaluation) -> float:
    """Return the loss that is allowed, in percentage points or in the metric's unit; infinite without a budget."""
    if evaluation.max_drop is not None:
        return evaluation.max_drop
    return DEFAULT_BUDGET if evaluation.share else math.inf


def engine_candidates(evaluation: Evaluation, bench: BenchResult, batch: int) -> list[EngineCandidate]:
    """Return the engines that were both evaluated and timed."""
    precisions = {subject.name: subject.precision for subject in bench.subjects}
    found = []
    for model in evaluation.models:
        time = bench.median(model.name, batch)
        if model.name in precisions and time and precisions[model.name] in SIMPLEST_FIRST:
            found.append(EngineCandidate(model, precisions[model.name], lost_at_most(model), time))
    return found


def lost_at_most(model: ModelScore) -> float | None:
    """Return the loss of the metric, or without labels its upper bound: the percentage of predictions that changed.

    None if neither is known.
    """
    if model.difference is not None:
        return model.difference.value
    return None if model.agreement is None else 100.0 * (1.0 - model.agreement)


def budget_text(evaluation: Evaluation) -> str:
    """Return for example `the budget of 0.5 percentage points`, or `the budget of 0.01` for metrics of another unit."""
    budget = loss_budget(evaluation)
    unit = f" percentage point{'' if budget == 1 else 's'}" if evaluation.share else ""
    return f"the budget of {budget:g}{unit}"


def loss_amount(model: ModelScore, evaluation: Evaluation) -> str:
    """Return the amount of a loss.

    For example `0.30 percentage points`, `0.0123 of rmse`, or `up to 1.40 percentage points (1.40 % of the predictions
    changed)`. A gain counts as no loss.
    """
    lost = max(lost_at_most(model) or 0.0, 0.0)
    if model.difference is None and lost > 0:
        return f"up to {lost:.2f} percentage points ({lost:.2f} % of the predictions changed)"
    return f"{lost:.2f} percentage points" if evaluation.share else f"{lost:.3g} of {evaluation.metric}"


def loss_clause(model: ModelScore, evaluation: Evaluation) -> str:
    """Return for example `it loses 0.30 percentage points`."""
    if lost_at_most(model) is not None:
        return f"it loses {loss_amount(model, evaluation)}{uncertainty_clause(model, evaluation)}"
    least = min((output.sqnr_db for output in model.outputs), default=None)
    noise = "" if least is None else f" (SQNR of its outputs: {least:.1f} dB)"
    return f"its loss is unknown without labels{noise}"


def uncertainty_clause(model: ModelScore, evaluation: Evaluation) -> str:
    """Return ` on 200 samples, which is too few to be sure` if the interval of the loss exceeds the budget."""
    found = model.difference
    if found is None or math.isnan(found.high) or found.high <= loss_budget(evaluation):
        return ""
    return f" on {evaluation.samples:,} samples, which is too few to be sure"


def why_not_int8(int8: Sequence[EngineCandidate], chosen: EngineCandidate, evaluation: Evaluation) -> str:
    """Return why INT8 is not recommended: accuracy or speed."""
    fastest = min(int8, key=lambda choice: choice.milliseconds)
    if fastest.lost is not None and fastest.lost > loss_budget(evaluation):
        lost = loss_amount(fastest.model, evaluation)
        return f"INT8 is not worth it here: it loses {lost}, which exceeds {budget_text(evaluation)}."
    return f"INT8 is not worth it here: {fastest.milliseconds:.3f} ms compared with {chosen.milliseconds:.3f} ms."


def recommend_by_accuracy(evaluation: Evaluation) -> str:
    """Return the recommendation from accuracy alone, if no speeds are known."""
    quantized = [model for model in evaluation.candidates if model.kind is not ModelKind.FLOAT]
    if not quantized:
        return "Nothing is recommended: there is no INT8 model to compare."
    known = {model.name: most for model in quantized if (most := lost_at_most(model)) is not None}
    later = "Measure speed on the target GPU; FP16 may be just as fast."
    if not known:
        return f"{quantized[0].name}: {loss_clause(quantized[0], evaluation)}. {later}"
    best = min(quantized, key=lambda model: known.get(model.name, math.inf))
    budget, loses = loss_budget(evaluation), f"{best.name} loses {loss_amount(best, evaluation)}"
    if math.isinf(budget):
        decide = "; set --max-drop to decide whether that is acceptable" if known[best.name] > 0 else ""
        return f"{loses}{decide}. {later}"
    if known[best.name] > budget:
        return f"{loses}, which exceeds {budget_text(evaluation)}; try `quantkit tune`. {later}"
    if doubt := uncertainty_clause(best, evaluation):
        return f"{loses}{doubt}; evaluate more. {later}"
    return f"{loses}, which is within {budget_text(evaluation)}. {later}"

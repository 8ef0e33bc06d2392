"""One sentence out of accuracy and speed: which precision to take. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quantkit.engines.bench_result import BenchResult
from quantkit.engines.choice import SIMPLEST_FIRST, TimedEngine, fastest_within_budget
from quantkit.evaluation.result import Evaluation, ModelKind, ModelScore

DEFAULT_BUDGET = 0.5
"""Points that may be lost where nobody said how many."""


@dataclass(frozen=True, slots=True)
class EngineCandidate:
    """An engine that could be taken: what it is, what it loses at most (None where nobody can tell), how long a batch
    takes."""

    model: ModelScore
    precision: str
    lost: float | None
    milliseconds: float


def recommendation(evaluation: Evaluation, bench: BenchResult | None) -> str:
    """Which precision to take, and why."""
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
        told = loss_amount(least.model, evaluation)
        return f"Nothing is recommended: {least.model.name} loses least, {told}, and {budget:g} are allowed."
    chosen = found[engines.index(best)]
    slowest = max(found, key=lambda choice: choice.milliseconds)
    said = (
        f"Take {chosen.precision.upper()} ({chosen.model.name}): {chosen.milliseconds:.3f} ms at batch {batch}, "
        f"{slowest.milliseconds / chosen.milliseconds:.2f}× as fast as {slowest.precision.upper()}, "
        f"{loss_clause(chosen.model, evaluation)}."
    )
    int8 = [choice for choice in found if choice.precision == "int8"]
    return said if chosen in int8 or not int8 else f"{said} {why_not_int8(int8, chosen, evaluation)}"


def loss_budget(evaluation: Evaluation) -> float:
    """What may be lost, in points or in the metric's unit: all of it where nobody can tell how much that is."""
    if evaluation.max_drop is not None:
        return evaluation.max_drop
    return DEFAULT_BUDGET if evaluation.share else math.inf


def engine_candidates(evaluation: Evaluation, bench: BenchResult, batch: int) -> list[EngineCandidate]:
    """The engines that were evaluated and timed."""
    precisions = {subject.name: subject.precision for subject in bench.subjects}
    found = []
    for model in evaluation.models:
        time = bench.median(model.name, batch)
        if model.name in precisions and time and precisions[model.name] in SIMPLEST_FIRST:
            found.append(EngineCandidate(model, precisions[model.name], lost_at_most(model), time))
    return found


def lost_at_most(model: ModelScore) -> float | None:
    """Of the metric; without labels no more points of top-1 than answers changed; None where neither is known."""
    if model.difference is not None:
        return model.difference.value
    return None if model.agreement is None else 100.0 * (1.0 - model.agreement)


def loss_amount(model: ModelScore, evaluation: Evaluation) -> str:
    """`0.30 points`, `0.0123 of rmse`, `at most 1.40 points (so many answers changed)`, `nothing`."""
    lost = lost_at_most(model) or 0.0
    if lost <= 0:
        return "nothing"
    if model.difference is None:
        return f"at most {lost:.2f} points (so many answers changed)"
    return f"{lost:.2f} points" if evaluation.share else f"{lost:.3g} of {evaluation.metric}"


def loss_clause(model: ModelScore, evaluation: Evaluation) -> str:
    """What is lost, in words."""
    if lost_at_most(model) is not None:
        return f"{loss_amount(model, evaluation)} lost{uncertainty_clause(model, evaluation)}"
    least = min((output.sqnr_db for output in model.outputs), default=None)
    far = "" if least is None else f" (its outputs are at {least:.1f} dB)"
    return f"what it loses is not known without labels{far}"


def uncertainty_clause(model: ModelScore, evaluation: Evaluation) -> str:
    """` in 200 samples, perhaps by chance`: where more than the budget may be lost on other samples."""
    found = model.difference
    if found is None or math.isnan(found.high) or found.high <= loss_budget(evaluation):
        return ""
    return f" in {evaluation.samples:,} samples, perhaps by chance"


def why_not_int8(int8: Sequence[EngineCandidate], chosen: EngineCandidate, evaluation: Evaluation) -> str:
    """Why INT8 is not taken: accuracy, or speed."""
    fast = min(int8, key=lambda choice: choice.milliseconds)
    budget = loss_budget(evaluation)
    if fast.lost is not None and fast.lost > budget:
        return f"INT8 is not worth it here: it loses {loss_amount(fast.model, evaluation)}, and {budget:g} are allowed."
    return f"INT8 is not worth it here: {fast.milliseconds:.3f} ms against {chosen.milliseconds:.3f}."


def recommend_by_accuracy(evaluation: Evaluation) -> str:
    """What accuracy alone says."""
    quantized = [model for model in evaluation.candidates if model.kind is not ModelKind.FLOAT]
    if not quantized:
        return "Nothing is recommended: there is nothing in INT8 to compare."
    known = {model.name: most for model in quantized if (most := lost_at_most(model)) is not None}
    later = "How fast it is shows on the GPU that it is for; FP16 may be as fast."
    if not known:
        return f"{quantized[0].name}: {loss_clause(quantized[0], evaluation)}. {later}"
    best = min(quantized, key=lambda model: known.get(model.name, math.inf))
    budget, lost = loss_budget(evaluation), f"{best.name} loses {loss_amount(best, evaluation)}"
    if math.isinf(budget) and known[best.name] > 0:
        return f"{lost}; whether that is good enough a budget says (--max-drop). {later}"
    good = known[best.name] <= budget
    doubt = uncertainty_clause(best, evaluation)
    if good and doubt:
        return f"{lost}{doubt}: more samples would tell whether that is good enough. {later}"
    judged = "is good enough" if good else f"is over the {budget:g} that are allowed: quantkit tune looks for better"
    return f"{lost}, which {judged}. {later}"

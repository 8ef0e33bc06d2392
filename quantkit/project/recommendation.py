"""One sentence out of accuracy and speed: which precision to take. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quantkit.engines.bench_result import FASTER, ORDER, Bench
from quantkit.evaluation.result import Evaluation, Kind, ModelScore

DEFAULT_BUDGET = 0.5
"""Points that may be lost where nobody said how many."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine that could be taken: what it is, what it loses at most (None where nobody can tell), how long a batch
    takes."""

    model: ModelScore
    precision: str
    lost: float | None
    milliseconds: float


def recommendation(evaluation: Evaluation, bench: Bench | None) -> str:
    """Which precision to take, and why."""
    if bench is None or not bench.on_gpu:
        return without_speed(evaluation)
    batch = bench.batches[-1]
    found = choices(evaluation, bench, batch)
    if not found:
        return "Nothing is recommended: no engine was both evaluated and timed."
    budget = budget_of(evaluation)
    allowed = [choice for choice in found if choice.lost is None or choice.lost <= budget]
    if not allowed:
        least = min(found, key=lambda choice: choice.lost or 0.0)
        told = amount(least.model, evaluation)
        return f"Nothing is recommended: {least.model.name} loses least, {told}, and {budget:g} are allowed."
    best = min(choice.milliseconds for choice in allowed)
    near = [choice for choice in allowed if choice.milliseconds <= best * FASTER]
    chosen = min(near, key=lambda choice: (ORDER.index(choice.precision), choice.milliseconds))
    slowest = max(found, key=lambda choice: choice.milliseconds)
    said = (
        f"Take {chosen.precision.upper()} ({chosen.model.name}): {chosen.milliseconds:.3f} ms at batch {batch}, "
        f"{slowest.milliseconds / chosen.milliseconds:.2f}× as fast as {slowest.precision.upper()}, "
        f"{loss(chosen.model, evaluation)}."
    )
    int8 = [choice for choice in found if choice.precision == "int8"]
    return said if chosen in int8 or not int8 else f"{said} {why_not(int8, chosen, evaluation)}"


def budget_of(evaluation: Evaluation) -> float:
    """What may be lost, in points or in the metric's unit: all of it where nobody can tell how much that is."""
    if evaluation.max_drop is not None:
        return evaluation.max_drop
    return DEFAULT_BUDGET if evaluation.share else math.inf


def choices(evaluation: Evaluation, bench: Bench, batch: int) -> list[Choice]:
    """The engines that were evaluated and timed."""
    precisions = {subject.name: subject.precision for subject in bench.subjects}
    found = []
    for model in evaluation.models:
        time = bench.median(model.name, batch)
        if model.name in precisions and time and precisions[model.name] in ORDER:
            found.append(Choice(model, precisions[model.name], lost_at_most(model), time))
    return found


def lost_at_most(model: ModelScore) -> float | None:
    """Of the metric; without labels no more points of top-1 than answers changed; None where neither is known."""
    if model.difference is not None:
        return model.difference.value
    return None if model.agreement is None else 100.0 * (1.0 - model.agreement)


def amount(model: ModelScore, evaluation: Evaluation) -> str:
    """`0.30 points`, `0.0123 of rmse`, `at most 1.40 points (so many answers changed)`, `nothing`."""
    lost = lost_at_most(model) or 0.0
    if lost <= 0:
        return "nothing"
    if model.difference is None:
        return f"at most {lost:.2f} points (so many answers changed)"
    return f"{lost:.2f} points" if evaluation.share else f"{lost:.3g} of {evaluation.metric}"


def loss(model: ModelScore, evaluation: Evaluation) -> str:
    """What is lost, in words."""
    if lost_at_most(model) is not None:
        return f"{amount(model, evaluation)} lost{chance(model, evaluation)}"
    least = min((output.sqnr_db for output in model.outputs), default=None)
    far = "" if least is None else f" (its outputs are at {least:.1f} dB)"
    return f"what it loses is not known without labels{far}"


def chance(model: ModelScore, evaluation: Evaluation) -> str:
    """` in 200 samples, perhaps by chance`: where more than the budget may be lost on other samples."""
    found = model.difference
    if found is None or math.isnan(found.high) or found.high <= budget_of(evaluation):
        return ""
    return f" in {evaluation.samples:,} samples, perhaps by chance"


def why_not(int8: Sequence[Choice], chosen: Choice, evaluation: Evaluation) -> str:
    """Why INT8 is not taken: accuracy, or speed."""
    fast = min(int8, key=lambda choice: choice.milliseconds)
    budget = budget_of(evaluation)
    if fast.lost is not None and fast.lost > budget:
        return f"INT8 is not worth it here: it loses {amount(fast.model, evaluation)}, and {budget:g} are allowed."
    return f"INT8 is not worth it here: {fast.milliseconds:.3f} ms against {chosen.milliseconds:.3f}."


def without_speed(evaluation: Evaluation) -> str:
    """What accuracy alone says."""
    quantized = [model for model in evaluation.candidates if model.kind is not Kind.FLOAT]
    if not quantized:
        return "Nothing is recommended: there is nothing in INT8 to compare."
    known = {model.name: most for model in quantized if (most := lost_at_most(model)) is not None}
    later = "How fast it is shows on the GPU that it is for; FP16 may be as fast."
    if not known:
        return f"{quantized[0].name}: {loss(quantized[0], evaluation)}. {later}"
    best = min(quantized, key=lambda model: known.get(model.name, math.inf))
    budget, lost = budget_of(evaluation), f"{best.name} loses {amount(best, evaluation)}"
    if math.isinf(budget) and known[best.name] > 0:
        return f"{lost}; whether that is good enough a budget says (--max-drop). {later}"
    good = known[best.name] <= budget
    doubt = chance(best, evaluation)
    if good and doubt:
        return f"{lost}{doubt}: more samples would tell whether that is good enough. {later}"
    judged = "is good enough" if good else f"is over the {budget:g} that are allowed: quantkit tune looks for better"
    return f"{lost}, which {judged}. {later}"

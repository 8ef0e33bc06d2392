"""One sentence out of accuracy and speed: which precision to take. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantkit.evaluation.value import Evaluation, Kind, ModelScore
from quantkit.pipeline.measuring import FASTER, ORDER, Bench

DEFAULT_BUDGET = 0.5
"""Points that may be lost where nobody said how many."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine that could be taken: what it is, what it loses (None where nobody can tell), how long a batch takes."""

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
        return (
            f"Nothing is recommended: {least.model.name} loses least, {least.lost:.2f} points, "
            f"and {budget:g} are allowed."
        )
    best = min(choice.milliseconds for choice in allowed)
    near = [choice for choice in allowed if choice.milliseconds <= best * FASTER]
    chosen = min(near, key=lambda choice: (ORDER.index(choice.precision), choice.milliseconds))
    slowest = max(found, key=lambda choice: choice.milliseconds)
    said = (
        f"Take {chosen.precision.upper()} ({chosen.model.name}): {chosen.milliseconds:.3f} ms at batch {batch}, "
        f"{slowest.milliseconds / chosen.milliseconds:.2f}× as fast as {slowest.precision.upper()}, "
        f"{loss(chosen.model)}."
    )
    int8 = [choice for choice in found if choice.precision == "int8"]
    return said if chosen in int8 or not int8 else f"{said} {why_not(int8, chosen, budget)}"


def budget_of(evaluation: Evaluation) -> float:
    """Points that may be lost."""
    return DEFAULT_BUDGET if evaluation.max_drop is None else evaluation.max_drop


def choices(evaluation: Evaluation, bench: Bench, batch: int) -> list[Choice]:
    """The engines that were evaluated and timed."""
    precisions = {subject.name: subject.precision for subject in bench.subjects}
    found = []
    for model in evaluation.models:
        time = bench.median(model.name, batch)
        if model.name in precisions and time and precisions[model.name] in ORDER:
            found.append(Choice(model, precisions[model.name], points_lost(model), time))
    return found


def points_lost(model: ModelScore) -> float | None:
    """Points of the metric; without labels, of agreement; None where neither is known."""
    if model.difference is not None:
        return model.difference.value
    return None if model.agreement is None else 100.0 * (1.0 - model.agreement)


def loss(model: ModelScore) -> str:
    """What is lost, in words."""
    points = points_lost(model)
    if points is None:
        least = min((output.sqnr_db for output in model.outputs), default=None)
        far = "" if least is None else f" (its outputs are at {least:.1f} dB)"
        return f"what it loses is not known without labels{far}"
    return f"{points:.2f} points lost" if points > 0 else "nothing lost"


def why_not(int8: Sequence[Choice], chosen: Choice, budget: float) -> str:
    """Why INT8 is not taken: accuracy, or speed."""
    fast = min(int8, key=lambda choice: choice.milliseconds)
    if fast.lost is not None and fast.lost > budget:
        return f"INT8 is not worth it here: it loses {fast.lost:.2f} points, and {budget:g} are allowed."
    return f"INT8 is not worth it here: {fast.milliseconds:.3f} ms against {chosen.milliseconds:.3f}."


def without_speed(evaluation: Evaluation) -> str:
    """What accuracy alone says."""
    quantized = [model for model in evaluation.candidates if model.kind is not Kind.FLOAT]
    if not quantized:
        return "Nothing is recommended: there is nothing in INT8 to compare."
    known = {model.name: points for model in quantized if (points := points_lost(model)) is not None}
    later = "How fast it is shows on the GPU that it is for; FP16 may be as fast."
    if not known:
        return f"{quantized[0].name}: {loss(quantized[0])}. {later}"
    best = min(quantized, key=lambda model: known.get(model.name, float("inf")))
    budget = budget_of(evaluation)
    good = known[best.name] <= budget
    judged = "is good enough" if good else f"is over the {budget:g} that are allowed: quantkit tune looks for better"
    lost = known[best.name]
    return f"{best.name} loses {f'{lost:.2f} points' if lost > 0 else 'nothing'}, which {judged}. {later}"

"""One sentence out of accuracy and speed: which precision to take. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from quantkit.evaluation.value import Evaluation, Kind, ModelScore
from quantkit.pipeline.measuring import FASTER, ORDER, Bench

DEFAULT_BUDGET = 0.5
"""Points that may be lost where nobody said how many."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine that could be taken: its precision, what it loses (0 for the reference), and how long a batch takes."""

    name: str
    precision: str
    lost: float
    milliseconds: float


def recommendation(evaluation: Evaluation, bench: Bench | None) -> str:
    """Which precision to take, and why."""
    if bench is None or not bench.on_gpu:
        return without_speed(evaluation)
    batch = bench.batches[-1]
    budget = DEFAULT_BUDGET if evaluation.max_drop is None else evaluation.max_drop
    found = choices(evaluation, bench, batch)
    if not found:
        return "Nothing is recommended: no engine was both evaluated and timed."
    allowed = [choice for choice in found if choice.lost <= budget]
    refused = [choice for choice in found if choice.lost > budget]
    if not allowed:
        least = min(found, key=lambda choice: choice.lost)
        return f"Nothing is recommended: {least.name} loses least, {least.lost:.2f} points, and {budget:g} are allowed."
    best = min(choice.milliseconds for choice in allowed)
    near = [choice for choice in allowed if choice.milliseconds <= best * FASTER]
    chosen = min(near, key=lambda choice: (ORDER.index(choice.precision), choice.milliseconds))
    slowest = max(found, key=lambda choice: choice.milliseconds)
    said = (
        f"Take {chosen.precision.upper()} ({chosen.name}): {chosen.milliseconds:.3f} ms at batch {batch}, "
        f"{slowest.milliseconds / chosen.milliseconds:.2f}× as fast as {slowest.precision.upper()}, "
        f"{lost_text(chosen.lost)}."
    )
    if chosen.precision != "int8" and any(choice.precision == "int8" for choice in found):
        said += " INT8 is not worth it here: " + why_not_int8(found, refused, chosen, budget)
    return said


def choices(evaluation: Evaluation, bench: Bench, batch: int) -> list[Choice]:
    """The engines that were evaluated and timed."""
    precisions = {subject.name: subject.precision for subject in bench.subjects}
    found = []
    for model in evaluation.models:
        time = bench.median(model.name, batch)
        if model.name in precisions and time and precisions[model.name] in ORDER:
            found.append(Choice(model.name, precisions[model.name], points_lost(model), time))
    return found


def points_lost(model: ModelScore) -> float:
    """Points of the metric; without labels, of agreement."""
    if model.difference is not None:
        return model.difference.value
    return 0.0 if model.agreement is None else 100.0 * (1.0 - model.agreement)


def lost_text(points: float) -> str:
    """`0.12 points lost`, or that nothing is."""
    return f"{points:.2f} points lost" if points > 0 else "nothing lost"


def why_not_int8(found: list[Choice], refused: list[Choice], chosen: Choice, budget: float) -> str:
    """Speed, or accuracy."""
    int8 = min((c for c in found if c.precision == "int8"), key=lambda c: c.milliseconds)
    if int8 in refused:
        return f"it loses {int8.lost:.2f} points, and {budget:g} are allowed."
    return f"{int8.milliseconds:.3f} ms against {chosen.milliseconds:.3f}."


def without_speed(evaluation: Evaluation) -> str:
    """What accuracy alone says."""
    quantized = [m for m in evaluation.candidates if m.kind is not Kind.FLOAT]
    if not quantized:
        return "Nothing is recommended: there is nothing in INT8 to compare."
    best = min(quantized, key=points_lost)
    budget = DEFAULT_BUDGET if evaluation.max_drop is None else evaluation.max_drop
    lost = points_lost(best)
    accuracy = f"{best.name} loses {lost:.2f} points" if lost > 0 else f"{best.name} loses nothing"
    ok = (
        "is good enough"
        if lost <= budget
        else f"is over the {budget:g} that are allowed: quantkit tune looks for better"
    )
    return f"{accuracy}, which {ok}. How fast it is shows on the GPU that it is for; FP16 may be as fast."

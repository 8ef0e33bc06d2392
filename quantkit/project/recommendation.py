"""The recommendation: which precision to use, in one sentence derived from accuracy and speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quantkit.engines.bench_result import BenchResult
from quantkit.engines.choice import SIMPLEST_FIRST, TimedEngine, fastest_within_budget
from quantkit.evaluation.paired import bonett_price_interval
from quantkit.evaluation.result import DEFAULT_BUDGET, Evaluation, ModelKind, ModelScore
from quantkit.evaluation.verdict import count_samples, describe_outputs
from quantkit.metrics.registry import metric_title

EXACT = frozenset({"fp32", "tf32"})
"""Precisions that need no proof of their accuracy."""


@dataclass(frozen=True, slots=True)
class EngineCandidate:
    """An engine to choose from. lost: its largest possible loss, None if unknown. milliseconds: time of one batch."""

    model: ModelScore
    precision: str
    lost: float | None
    milliseconds: float


def recommendation(evaluation: Evaluation, bench: BenchResult | None) -> str:
    """Return which precision to use, and why; or why that cannot be decided."""
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
        over = f"{least.model.name} loses least, {lost}, which exceeds {budget_text(evaluation)}"
        doubt = undecided(evaluation, least)
        return f"{doubt} As measured, {over}." if doubt else f"Nothing is recommended: {over}."
    chosen = found[engines.index(best)]
    slowest = max(found, key=lambda choice: choice.milliseconds)
    figures = (
        f"{chosen.precision.upper()} ({chosen.model.name}): {chosen.milliseconds:.3f} ms at batch {batch}, "
        f"{slowest.milliseconds / chosen.milliseconds:.2f}× as fast as {slowest.precision.upper()}; "
        f"{loss_clause(chosen.model, evaluation)}."
    )
    if doubt := undecided(evaluation, chosen):
        return f"{doubt} The fastest, as measured, is {figures}"
    sure = chosen.precision in EXACT or not uncertainty_clause(chosen.model, evaluation)
    said = f"{'Use' if sure else 'Evaluate more samples before using'} {figures}"
    int8 = [choice for choice in found if choice.precision == "int8"]
    return said if chosen in int8 or not int8 else f"{said} {why_not_int8(int8, chosen, evaluation)}"


def undecided(evaluation: Evaluation, chosen: EngineCandidate) -> str:
    """Return `Cannot tell whether INT8 is good enough: …` if there are doubts, or nothing is known about losses."""
    if evaluation.doubts:
        return cannot_tell(evaluation.doubts, evaluation)
    return (
        cannot_tell([unmeasured(evaluation)], evaluation)
        if chosen.lost is None and chosen.precision not in EXACT
        else ""
    )


def unmeasured(evaluation: Evaluation) -> str:
    """Return why nothing is known about losses: without class scores, labels are not read even if there are some."""
    return f"there are no labels{'' if evaluation.scores else ', or no metric for them'}"


def cannot_tell(reasons: Sequence[str], evaluation: Evaluation) -> str:
    """Return the sentence that the figures do not decide the question."""
    return f"Cannot tell whether {types_word(evaluation)} is good enough: {'; '.join(reasons)}."


def types_word(evaluation: Evaluation) -> str:
    """Return what the quantized models are: `INT8`, `FP8`, or `INT8 with FP8`."""
    found = [model for model in evaluation.candidates if model.fp8_layers]
    if not found:
        return "INT8"
    return "INT8 with FP8" if any((model.int8_layers or (0, 0))[0] for model in found) else "FP8"


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
            found.append(EngineCandidate(model, precisions[model.name], lost_at_most(model, evaluation), time))
    return found


def lost_at_most(model: ModelScore, evaluation: Evaluation) -> float | None:
    """Return the loss of the metric, or without labels its upper bound: the percentage of predictions that changed.

    None if neither is known: an output that may not hold class scores, or other outputs beside it, decide nothing.
    """
    if model.difference is not None:
        return model.difference.value
    alone = len(model.outputs) + len(model.matches) + len(evaluation.uncompared) <= 1
    known = model.agreement is not None and alone and not evaluation.scores_assumed
    return 100.0 * (1.0 - model.agreement) if known and model.agreement is not None else None


def largest_loss(model: ModelScore, evaluation: Evaluation) -> float | None:
    """Return the upper end of the 95 % interval of the loss, or without labels of the share of changed predictions.

    None if there is no interval. Equal scores of all samples of a share have the interval of no change among so many.
    """
    samples, found = evaluation.samples, model.difference
    least = 100.0 * bonett_price_interval(0, 0, samples)[1]
    if found is None:
        changed = round((1.0 - (model.agreement or 0.0)) * samples)
        return max(least, 100.0 * bonett_price_interval(changed, 0, samples)[1])
    if math.isnan(found.high):
        return None
    return max(found.high, least) if evaluation.share and found.low == found.high else found.high


def budget_text(evaluation: Evaluation) -> str:
    """Return for example `the budget of 0.5 percentage points`, or `the budget of 0.01` for metrics of another unit."""
    budget = loss_budget(evaluation)
    unit = f" percentage point{'' if budget == 1 else 's'}" if evaluation.share else ""
    return f"the budget of {budget:g}{unit}"


def loss_amount(model: ModelScore, evaluation: Evaluation) -> str:
    """Return the amount of a loss or of a gain.

    For example `0.30 percentage points`, `0.0123 of rmse`, or `up to 1.40 percentage points (1.40 % of the predictions
    changed)`.
    """
    amount = abs(lost_at_most(model, evaluation) or 0.0)
    if model.difference is None and amount > 0:
        return f"up to {amount:.2f} percentage points ({amount:.2f} % of the predictions changed)"
    if evaluation.share or model.difference is None:
        return f"{amount:.2f} percentage points"
    return f"{amount:.3g} of {metric_title(str(evaluation.metric))}"


def loss_text(model: ModelScore, evaluation: Evaluation) -> str:
    """Return for example `loses 0.30 percentage points`, `gains 0.10 percentage points`, `shows no loss`."""
    lost = lost_at_most(model, evaluation) or 0.0
    if float(f"{lost:.2f}" if evaluation.share else lost) == 0.0:
        return "shows no loss"
    return f"{'gains' if lost < 0 else 'loses'} {loss_amount(model, evaluation)}"


def loss_clause(model: ModelScore, evaluation: Evaluation) -> str:
    """Return for example `it loses 0.30 percentage points`."""
    if lost_at_most(model, evaluation) is not None:
        return f"it {loss_text(model, evaluation)}{uncertainty_clause(model, evaluation)}"
    if model is evaluation.reference:
        return "it is the reference"
    return f"it {'; it '.join(describe_outputs(model))}" if describe_outputs(model) else "its outputs were not compared"


def uncertainty_clause(model: ModelScore, evaluation: Evaluation) -> str:
    """Return ` on 200 samples, which is too few to be sure` if the interval of the loss exceeds the budget."""
    most, budget = largest_loss(model, evaluation), loss_budget(evaluation)
    if most is None:
        return " without a known interval" if math.isfinite(budget) else ""
    return "" if most <= budget else f" on {count_samples(evaluation.samples)}, which is too few to be sure"


def unjudged_clause(model: ModelScore, evaluation: Evaluation) -> str:
    """Return a remark on further outputs, which the metric of one output may not judge."""
    if len(model.outputs) + len(model.matches) + len(evaluation.uncompared) < 2:
        return ""
    return f"; of all outputs, it {' and '.join(describe_outputs(model))}" if describe_outputs(model) else ""


def why_not_int8(int8: Sequence[EngineCandidate], chosen: EngineCandidate, evaluation: Evaluation) -> str:
    """Return why INT8 is not recommended: accuracy or speed."""
    fastest, word = min(int8, key=lambda choice: choice.milliseconds), types_word(evaluation)
    if fastest.lost is not None and fastest.lost > loss_budget(evaluation):
        lost = loss_amount(fastest.model, evaluation)
        return f"{word} is not worth it here: it loses {lost}, which exceeds {budget_text(evaluation)}."
    return f"{word} is not worth it here: {fastest.milliseconds:.3f} ms compared with {chosen.milliseconds:.3f} ms."


def recommend_by_accuracy(evaluation: Evaluation) -> str:
    """Return the recommendation from accuracy alone, if no speeds are known."""
    quantized = [model for model in evaluation.candidates if model.kind is not ModelKind.FLOAT]
    if not quantized:
        return "Nothing is recommended: there is no INT8 model to compare."
    known = {model.name: most for model in quantized if (most := lost_at_most(model, evaluation)) is not None}
    later = "Measure speed on the target GPU; FP16 may be just as fast."
    best = min(quantized, key=lambda model: known.get(model.name, math.inf))
    if evaluation.doubts or not known:
        clause = loss_clause(best, evaluation).removeprefix("it ")
        reasons = evaluation.doubts or (unmeasured(evaluation),)
        return f"{cannot_tell(reasons, evaluation)} As measured, {best.name} {clause}. {later}"
    budget, loses = loss_budget(evaluation), f"{best.name} {loss_text(best, evaluation)}"
    if math.isinf(budget):
        decide = "; set --max-drop to decide whether that is acceptable" if known[best.name] > 0 else ""
        return f"{loses}{decide}. {later}"
    if known[best.name] > budget:
        return f"{loses}, which exceeds {budget_text(evaluation)}; try `quantkit tune`. {later}"
    if doubt := uncertainty_clause(best, evaluation):
        return f"{loses}{doubt}; evaluate more. {later}"
    return f"{loses}, which is within {budget_text(evaluation)}{unjudged_clause(best, evaluation)}. {later}"

"""What an evaluation comes to, in plain words: one verdict for each candidate.

    loss        value, interval, whether a loss is shown; beside the budget: for sure, or perhaps by chance
    answers     how many are others, how much surer or less sure it is; where that stands out
    speed       "INT8 is not worth it here" where it is no faster on the same GPU, or where no layer is INT8

A processor's speed decides nothing.
"""

from __future__ import annotations

import math

from quantkit.engines.choice import is_faster
from quantkit.evaluation.result import MetricDifference, ModelKind, ModelScore, Speed, is_cpu_speed
from quantkit.metrics.metric import metric_name

OTHER_ANSWERS = 0.02
"""A share of other answers that stands out."""
SHIFT = 1.0
"""A shift of confidence that stands out, in points."""


def model_verdict(
    reference: ModelScore, candidate: ModelScore, metric: str | None, share: bool, samples: int, max_drop: float | None
) -> str:
    """What a candidate costs and gains. metric, share, samples, max_drop: as in `Evaluation`."""
    if candidate.difference is None or metric is None:
        parts = [describe_unlabelled(candidate, samples)]
    else:
        unit = MetricUnit(metric, share)
        parts = [
            f"{describe_loss(candidate.difference, unit, samples)}{describe_budget(candidate.difference, unit, max_drop)}"
        ]
        parts += describe_changes(candidate)
    sentences = ["; ".join([f"{candidate.name} {parts[0]}", *parts[1:], *describe_confidence(candidate)])]
    sentences += describe_worth(reference, candidate)
    return " ".join(f"{sentence}." for sentence in sentences)


class MetricUnit:
    """How figures of a metric are written."""

    def __init__(self, metric: str, share: bool) -> None:
        self.share = share
        self.metric = metric_name(metric)

    def of(self, value: float) -> str:
        """`0.12` in points, `0.0123` in a unit of its own, with a true minus sign."""
        text = f"{value:.2f}" if self.share else f"{value:.3g}"
        return true_minus(text)

    def amount(self, value: float) -> str:
        """`0.12 points of top-1`, `0.0123 of rmse`."""
        return f"{self.of(value)} {'points ' if self.share else ''}of {self.metric}"

    def limit(self, value: float) -> str:
        """`0.5 points`, `0.01`."""
        points = " point" if value == 1.0 else " points"
        return f"{true_minus(f'{value:g}')}{points if self.share else ''}"


def true_minus(text: str) -> str:
    """A number with a true minus sign, and none before zero."""
    return text.replace("-", "−") if text.strip("-0.") else text.lstrip("-")


def describe_loss(found: MetricDifference, unit: MetricUnit, samples: int) -> str:
    """`loses 0.12 points of top-1 (95 %: −0.05 … 0.29): no loss is shown in 10,000 samples`."""
    gains = found.value < 0
    verb = "gains" if gains else "loses"
    amount = unit.amount(abs(found.value))
    if math.isnan(found.low):
        return f"{verb} {amount} in {samples:,} samples ({found.method})"
    ends = (-found.high, -found.low) if gains else (found.low, found.high)
    shown = "a loss is shown" if found.low > 0 else "a gain is shown" if found.high < 0 else "no loss is shown"
    return f"{verb} {amount} (95 %: {unit.of(ends[0])} … {unit.of(ends[1])}): {shown} in {samples:,} samples"


def describe_budget(found: MetricDifference, unit: MetricUnit, max_drop: float | None) -> str:
    """How the interval lies beside the budget."""
    if max_drop is None:
        return ""
    within = found.value <= max_drop
    limit = f", {'within' if within else 'over'} the budget of {unit.limit(max_drop)}"
    if math.isnan(found.low):
        return f"{limit}, how surely is not known"
    sure = found.high <= max_drop if within else found.low > max_drop
    return f"{limit} {'for sure' if sure else 'but perhaps by chance'}"


def describe_unlabelled(candidate: ModelScore, samples: int) -> str:
    """What can be said where nobody knows the right answers."""
    unknown = "without labels nothing tells which of the two is right"
    if candidate.agreement == 1.0:
        return f"gives the reference's answer for all of {samples:,} samples"
    if candidate.agreement is not None:
        return f"gives the reference's answer for {format_share(candidate.agreement)} of {samples:,} samples; {unknown}"
    worst = min(candidate.outputs, key=lambda output: output.sqnr_db, default=None)
    if worst is None:
        return f"was run on {samples:,} samples, and neither labels nor outputs were compared"
    if worst.sqnr_db == math.inf:
        return f"gives the reference's outputs for all of {samples:,} samples"
    return f"has an SQNR of {true_minus(f'{worst.sqnr_db:.1f}')} dB at {worst.name}, its worst output; {unknown}"


def describe_changes(candidate: ModelScore) -> list[str]:
    """How many answers are others, where that stands out: losses and gains may cancel out."""
    if candidate.agreement is None or 1.0 - candidate.agreement < OTHER_ANSWERS:
        return []
    return [f"{format_share(1.0 - candidate.agreement)} of its answers are others than the reference's"]


def describe_confidence(candidate: ModelScore) -> list[str]:
    """How much surer it is, where that stands out."""
    found = candidate.confidence
    if found is None or abs(found.shift) < SHIFT:
        return []
    return [f"it is {abs(found.shift):.1f} points {'surer' if found.shift > 0 else 'less sure'} of its answers"]


def format_share(share: float) -> str:
    """`98.60 %`; never 100 % or 0 % of a share that is not."""
    return f"{min(max(100 * share, 0.01), 99.99):.2f} %"


def describe_worth(reference: ModelScore, candidate: ModelScore) -> list[str]:
    """Whether INT8 is worth it, as far as layers and speed tell."""
    if candidate.kind is ModelKind.FLOAT:
        return []
    if candidate.int8_layers is not None and candidate.int8_layers[0] == 0:
        count = candidate.int8_layers[1]
        return [f"INT8 is not worth it here: none of its {count} layers is INT8"]
    first, second = reference.speed, candidate.speed
    if first is None or second is None:
        return []
    if is_cpu_speed(first) or is_cpu_speed(second):
        return []
    if first.where != second.where:
        return [f"Speeds on {first.where} and on {second.where} cannot be compared"]
    times, told = compare_speeds(first, second)
    if is_faster(times):
        return [f"It is {times:.2f} times as fast as the reference on {second.where}"]
    if candidate.int8_layers is None:
        return []
    return [f"INT8 is not worth it here: {told} on {second.where}"]


def compare_speeds(reference: Speed, candidate: Speed) -> tuple[float, str]:
    """How many times as fast, by latency where both have it at the same batch size, by throughput where not."""
    first, second = reference.latency_ms, candidate.latency_ms
    if first is not None and second is not None and reference.batch == candidate.batch:
        return first / second, f"{second:.3g} ms a batch of {candidate.batch}, the reference {first:.3g} ms"
    rates = reference.samples_per_second, candidate.samples_per_second
    return rates[1] / rates[0], f"{rates[1]:,.0f} samples a second, the reference {rates[0]:,.0f}"

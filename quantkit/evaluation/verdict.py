"""The conclusion of an evaluation in words: one verdict for each candidate.

    loss           value, interval, significance, and whether it is within the budget, conclusively or not
    predictions    how many changed, and how the confidence changed, if that is remarkable
    speed          "INT8 is not worth it here" if it is no faster on the same GPU, or if no layer is INT8

CPU speed decides nothing.
"""

from __future__ import annotations

import math

from quantkit.engines.choice import is_faster
from quantkit.evaluation.result import Device, MetricDifference, ModelKind, ModelScore, Speed
from quantkit.metrics.registry import metric_title

CHANGED = 0.02
"""A share of changed predictions that is remarkable."""
SHIFT = 1.0
"""A shift of confidence that is remarkable, in percentage points."""


def model_verdict(
    reference: ModelScore, candidate: ModelScore, metric: str | None, share: bool, samples: int, max_drop: float | None
) -> str:
    """Return the cost and gain of a candidate. metric, share, samples, max_drop: as in `Evaluation`."""
    if candidate.difference is None or metric is None:
        parts = [describe_unlabelled(candidate, samples)]
    else:
        unit = MetricUnit(metric, share)
        lost = candidate.difference
        parts = [describe_loss(lost, unit, samples) + describe_budget(lost, unit, max_drop)]
        parts += describe_changes(candidate)
    sentences = ["; ".join([f"{candidate.name} {parts[0]}", *parts[1:], *describe_confidence(candidate)])]
    sentences += describe_worth(reference, candidate)
    return " ".join(f"{sentence}." for sentence in sentences)


class MetricUnit:
    """Formats values and differences of a metric."""

    def __init__(self, metric: str, share: bool) -> None:
        self.share = share
        self.metric = metric_title(metric)

    def of(self, value: float) -> str:
        """Return `0.12` in percentage points, `0.0123` in the metric's own unit, with a true minus sign."""
        text = f"{value:.2f}" if self.share else f"{value:.3g}"
        return true_minus(text)

    def amount(self, value: float) -> str:
        """Return `0.12 percentage points of top-1`, `0.0123 of rmse`."""
        return f"{self.of(value)} {'percentage points ' if self.share else ''}of {self.metric}"

    def budget(self, value: float) -> str:
        """Return `the 0.5-point budget`, `the budget of 0.01`."""
        text = true_minus(f"{value:g}")
        return f"the {text}-point budget" if self.share else f"the budget of {text}"


def true_minus(text: str) -> str:
    """Return a number with a true minus sign, and none before zero."""
    return text.replace("-", "−") if text.strip("-0.") else text.lstrip("-")


def describe_loss(found: MetricDifference, unit: MetricUnit, samples: int) -> str:
    """Return `loses 0.12 percentage points of top-1 (95 % interval: −0.05 … 0.29): no significant loss on 9 …`."""
    gains = found.value < 0
    verb = "gains" if gains else "loses"
    amount = unit.amount(abs(found.value))
    if math.isnan(found.low):
        return f"{verb} {amount} on {samples:,} samples ({found.method_text})"
    ends = (-found.high, -found.low) if gains else (found.low, found.high)
    shown = "a significant loss" if found.low > 0 else "a significant gain" if found.high < 0 else "no significant loss"
    return f"{verb} {amount} (95 % interval: {unit.of(ends[0])} … {unit.of(ends[1])}): {shown} on {samples:,} samples"


def describe_budget(found: MetricDifference, unit: MetricUnit, max_drop: float | None) -> str:
    """Return whether the value is within the budget, and whether the interval confirms that."""
    if max_drop is None:
        return ""
    within = found.value <= max_drop
    place = f"{'within' if within else 'over'} {unit.budget(max_drop)}"
    if math.isnan(found.low):
        return f", {place}, but there is no interval to confirm it"
    confirmed = found.high <= max_drop if within else found.low > max_drop
    return f", conclusively {place}" if confirmed else f", {place}, but not conclusively"


def describe_unlabelled(candidate: ModelScore, samples: int) -> str:
    """Return what is known without labels: agreement, or the worst output error."""
    unknown = "without labels it is unknown which of the two is right"
    if candidate.agreement == 1.0:
        return f"agrees with the reference on all {samples:,} samples"
    if candidate.agreement is not None:
        return f"agrees with the reference on {format_share(candidate.agreement)} of {samples:,} samples; {unknown}"
    worst = min(candidate.outputs, key=lambda output: output.sqnr_db, default=None)
    if worst is None:
        return f"ran on {samples:,} samples, but neither labels nor outputs could be compared"
    if worst.sqnr_db == math.inf:
        return f"has the reference's outputs on all {samples:,} samples"
    return f"has an SQNR of {true_minus(f'{worst.sqnr_db:.1f}')} dB at {worst.name}, its worst output; {unknown}"


def describe_changes(candidate: ModelScore) -> list[str]:
    """Return how many predictions changed, if that is remarkable: losses and gains may cancel out."""
    if candidate.agreement is None or 1.0 - candidate.agreement < CHANGED:
        return []
    return [f"its predictions differ from the reference's on {format_share(1.0 - candidate.agreement)} of the samples"]


def describe_confidence(candidate: ModelScore) -> list[str]:
    """Return how the confidence changed, if that is remarkable."""
    found = candidate.confidence
    if found is None or abs(found.shift) < SHIFT:
        return []
    change = "more" if found.shift > 0 else "less"
    return [f"it is {abs(found.shift):.1f} percentage points {change} confident in its predictions"]


def format_share(share: float) -> str:
    """Return `98.60 %`; never 100 % or 0 % for another share."""
    return f"{min(max(100 * share, 0.01), 99.99):.2f} %"


def describe_worth(reference: ModelScore, candidate: ModelScore) -> list[str]:
    """Return whether INT8 is worth it, judged by layers and speed."""
    if candidate.kind is ModelKind.FLOAT:
        return []
    if candidate.int8_layers is not None and candidate.int8_layers[0] == 0:
        count = candidate.int8_layers[1]
        return [f"INT8 is not worth it here: none of its {count} layers is INT8"]
    first, second = reference.speed, candidate.speed
    if first is None or second is None:
        return []
    if Device.CPU in (first.device, second.device):
        return []
    if first.where != second.where:
        return [f"Speeds on {first.where} and on {second.where} cannot be compared"]
    times, figures = compare_speeds(first, second)
    if is_faster(times):
        return [f"It is {times:.2f} times as fast as the reference on {second.where}"]
    if candidate.int8_layers is None:
        return []
    return [f"INT8 is not worth it here: {figures}, on {second.where}"]


def compare_speeds(reference: Speed, candidate: Speed) -> tuple[float, str]:
    """Return speed ratio and figures, by latency if both have one at the same batch size, else by throughput."""
    first, second = reference.latency_ms, candidate.latency_ms
    if first is not None and second is not None and reference.batch == candidate.batch:
        return first / second, f"{second:.3g} ms per batch of {candidate.batch}, the reference {first:.3g} ms"
    rates = reference.samples_per_second, candidate.samples_per_second
    return rates[1] / rates[0], f"{rates[1]:,.0f} samples per second, the reference {rates[0]:,.0f}"

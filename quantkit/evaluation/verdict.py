"""The conclusion of an evaluation in words: one verdict for each candidate.

    loss           value, interval, significance, and whether it is within the budget, conclusively or not
    outputs        without labels, and of several outputs: the worst one
    predictions    how many changed, and how the confidence changed, if that is remarkable
    speed          "INT8 is not worth it here" if it is no faster on the same GPU, or if no layer is INT8

CPU speed decides nothing.
"""

from __future__ import annotations

import math

from quantkit.engines.choice import is_faster
from quantkit.evaluation.object_changes import ObjectMatches
from quantkit.evaluation.result import (
    DEFAULT_BUDGET,
    Device,
    Evaluation,
    MetricDifference,
    ModelKind,
    ModelScore,
    OutputMatch,
    Speed,
)
from quantkit.metrics.registry import metric_title
from quantkit.view import percent_text, true_minus

CHANGED = 0.02
"""A share of changed predictions that is remarkable."""
SHIFT = 1.0
"""A shift of confidence that is remarkable, in percentage points."""


def model_verdict(evaluation: Evaluation, candidate: ModelScore) -> str:
    """Return the cost and gain of a candidate. evaluation: without its verdicts."""
    lost, metric = candidate.difference, evaluation.metric
    if lost is None or metric is None:
        parts = describe_unlabelled(evaluation, candidate)
    else:
        unit = MetricUnit(metric, evaluation.share)
        parts = [describe_loss(lost, unit, evaluation) + describe_budget(lost, unit, evaluation)]
        parts += describe_changes(candidate) + describe_scenes(candidate)
        parts += describe_outputs(candidate) if len(candidate.outputs) + len(candidate.matches) > 1 else []
    if not evaluation.scores_assumed:
        parts += describe_confidence(candidate)
    rest = [f"it {part}" if part.startswith(("has ", "finds ")) else part for part in parts[1:]]
    sentences = ["; ".join([f"{candidate.name} {parts[0]}", *rest])]
    sentences += describe_worth(evaluation.reference, candidate)
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


def describe_loss(found: MetricDifference, unit: MetricUnit, evaluation: Evaluation) -> str:
    """Return `loses 0.12 percentage points of top-1 (95 % interval of the drop: −0.05 … 0.29): no significant …`."""
    place = f"on {count_samples(evaluation.samples)}"
    changed = f"{'gains' if found.value < 0 else 'loses'} {unit.amount(abs(found.value))}"
    if float(unit.of(abs(found.value))) == 0.0:
        changed = f"keeps the {unit.metric} of the reference"
    if math.isnan(found.low):
        return f"{changed} {place} ({found.method_text})"
    shown = "a significant loss" if found.low > 0 else "a significant gain" if found.high < 0 else "no significant loss"
    said = f"{changed} (95 % interval of the drop: {unit.of(found.low)} … {unit.of(found.high)}): {shown} {place}"
    few = evaluation.max_drop is None and unit.share and found.low <= 0 and found.high > DEFAULT_BUDGET
    return f"{said}, too few to exclude a loss of {unit.of(found.high)} percentage points" if few else said


def describe_budget(found: MetricDifference, unit: MetricUnit, evaluation: Evaluation) -> str:
    """Return whether the value is within the budget, and whether the interval confirms that."""
    max_drop = evaluation.max_drop
    if max_drop is None:
        return ""
    within = found.value <= max_drop
    place = f"{'within' if within else 'over'} {unit.budget(max_drop)}"
    if math.isnan(found.low):
        return f", {place}, but there is no interval to confirm it"
    confirmed = found.high <= max_drop if within else found.low > max_drop
    if evaluation.doubts and within:
        return f", {place}, but the figures are in doubt"
    return f", conclusively {place}" if confirmed else f", {place}, but not conclusively"


def describe_unlabelled(evaluation: Evaluation, candidate: ModelScore) -> list[str]:
    """Return what is known without labels: agreement, the worst output, and what could not be compared."""
    samples, agreed = evaluation.samples, evaluation.samples - candidate.changed_samples
    parts = []
    if candidate.agreement is not None and not evaluation.scores_assumed:
        parts.append(f"predicts the reference's class on {count_of(agreed, samples)}")
    parts += describe_scenes(candidate) + describe_outputs(candidate)
    if candidate.agreement is not None and evaluation.scores_assumed:
        on = count_of(agreed, samples)
        parts.append(f"if {evaluation.scores} holds class scores, it predicts the reference's class on {on}")
    if not parts:
        return [f"ran on {count_samples(samples)}, but neither labels nor outputs could be compared"]
    if " on " not in parts[0]:
        parts[0] += f"{',' if ', ' in parts[0] else ''} on {count_samples(samples)}"
    if evaluation.uncompared:
        parts.append(f"{', '.join(evaluation.uncompared)} could not be compared")
    equal = all(output.sqnr_db == math.inf for output in candidate.outputs)
    scenes = candidate.objects is not None or candidate.regions is not None
    if not equal or scenes or any(match.equal_values < match.values for match in candidate.matches):
        parts.append("without labels it is unknown which of the two is right")
    return parts


def describe_scenes(candidate: ModelScore) -> list[str]:
    """Return how many of the reference's objects are found again, or for how many pixels the class is the same."""
    if candidate.objects is not None:
        return describe_objects(candidate.objects.matches)
    if (regions := candidate.regions) is None:
        return []
    interval = share_interval(regions.low, regions.high)
    same = f"has the reference's class at {percent_text(regions.agreement)} % of the pixels{interval}"
    return [f"{same}, with a mean IoU of {regions.mean_iou:.3f}"]


def describe_objects(found: ObjectMatches) -> list[str]:
    """Return `finds 45 of the reference's 47 objects (95.74 %, …), with a mean IoU of 0.942; 3 objects are new`."""
    if not found.objects:
        return [f"has no objects to find again, because the reference's scores stay below {found.threshold:g}"]
    plural = "" if found.objects == 1 else "s"
    share = f"{percent_text(found.share)} %{share_interval(found.low, found.high, open_=False)}"
    text = f"finds {found.found:,} of the reference's {found.objects:,} object{plural} ({share})"
    if found.found:
        change = "higher" if found.shift > 0 else "lower"
        text += (
            f", with a mean IoU of {found.mean_iou:.3f} and scores {abs(found.shift):.1f} percentage points {change}"
        )
    new = f"{found.new:,} object{'' if found.new == 1 else 's'} {'is' if found.new == 1 else 'are'} new"
    return [text, new] if found.new else [text]


def share_interval(low: float, high: float, *, open_: bool = True) -> str:
    """Return ` (95 % interval: 94.10 … 97.50)`, or the same behind a comma; "" without an interval."""
    if math.isnan(low):
        return ""
    text = f"95 % interval: {percent_text(low)} … {percent_text(high)}"
    return f" ({text})" if open_ else f", {text}"


def describe_outputs(candidate: ModelScore) -> list[str]:
    """Return the SQNR of the worst float output, and for how many samples the worst of the others is equal."""
    output, match, parts = candidate.worst_output, candidate.worst_match, []
    several = len(candidate.outputs) > 1
    if output is not None and output.sqnr_db == math.inf:
        parts.append(f"has exactly the reference's {'float outputs' if several else output.name}")
    elif output is not None:
        worst = ", its worst output" if several else ""
        parts.append(f"has an SQNR of {true_minus(f'{output.sqnr_db:.1f}')} dB at {output.name}{worst}")
    if match is not None:
        parts.append(f"has the reference's {match.name} on {match_text(match)}")
    return parts


def match_text(match: OutputMatch) -> str:
    """Return the number of samples for which an output is equal, and the share of its values if some are not."""
    on = count_of(match.equal_samples, match.samples)
    if match.equal_values in (0, match.values) or match.values == match.samples:
        return on
    return f"{on}, in {percent_text(match.equal_values / match.values)} % of its values"


def count_of(count: int, samples: int) -> str:
    """Return `all 40 samples`, `none of 40 samples`, `39 of 40 samples (97.50 %)`."""
    if samples > 1 and count in (0, samples):
        return f"{'all' if count else 'none of'} {count_samples(samples)}"
    share = f" ({percent_text(count / samples)} %)" if samples > 1 else ""
    return f"{count:,} of {count_samples(samples)}{share}"


def count_samples(samples: int) -> str:
    """Return `1 sample`, `10,000 samples`."""
    return f"{samples:,} sample{'' if samples == 1 else 's'}"


def describe_changes(candidate: ModelScore) -> list[str]:
    """Return how many predictions changed, if that is remarkable: losses and gains may cancel out."""
    if candidate.agreement is None or 1.0 - candidate.agreement < CHANGED:
        return []
    changed = percent_text(1.0 - candidate.agreement)
    return [f"its predictions differ from the reference's on {changed} % of the samples"]


def describe_confidence(candidate: ModelScore) -> list[str]:
    """Return how the confidence changed, if that is remarkable."""
    found = candidate.confidence
    if found is None or abs(found.shift) < SHIFT:
        return []
    change = "more" if found.shift > 0 else "less"
    return [f"it is {abs(found.shift):.1f} percentage points {change} confident in its predictions"]


def describe_worth(reference: ModelScore, candidate: ModelScore) -> list[str]:
    """Return whether INT8 is worth it, judged by layers and speed."""
    if candidate.kind is ModelKind.FLOAT:
        return []
    if candidate.int8_layers is not None and candidate.int8_layers[0] == 0 and not candidate.fp8_layers:
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
    both = candidate.fp8_layers and candidate.int8_layers[0]
    what = "INT8 with FP8" if both else "FP8" if candidate.fp8_layers else "INT8"
    return [f"{what} is not worth it here: {figures}, on {second.where}"]


def compare_speeds(reference: Speed, candidate: Speed) -> tuple[float, str]:
    """Return speed ratio and figures, by latency if both have one at the same batch size, else by throughput."""
    first, second = reference.latency_ms, candidate.latency_ms
    if first is not None and second is not None and reference.batch == candidate.batch:
        return first / second, f"{second:.3g} ms per batch of {candidate.batch}, the reference {first:.3g} ms"
    rates = reference.samples_per_second, candidate.samples_per_second
    return rates[1] / rates[0], f"{rates[1]:,.0f} samples per second, the reference {rates[0]:,.0f}"

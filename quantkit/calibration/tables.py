"""Calibration tables from statistics: by every rule, in seconds, without the data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.errors import StatisticsError, UsageError
from quantkit.graph.channel_gains import channel_gains
from quantkit.graph.model import Model
from quantkit.histogram import Histogram
from quantkit.numerics import scale_of
from quantkit.paths import beside
from quantkit.rules import QuantileRule, Rule, kind_of, rule_kinds
from quantkit.rules.percentile import Percentile
from quantkit.rules.wmse import WeightedMse
from quantkit.statistics import Statistics
from quantkit.table import Algorithm, CalibrationTable, Header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OUTLIER_RATIO = 100.0
BULK = Percentile(99.9)
"""The bulk of a tensor's values, beside which single values may be outliers."""
FEW_SAMPLES = 64
"""Below this a calibration says that its samples are few."""


def header_for(rule: Rule, version: int, algorithm: Algorithm | None = None) -> Header:
    """Return the header of a rule's table for a TensorRT version. UsageError where rule and algorithm contradict.

    Without an `algorithm` it is that of the rule.
    """
    chosen = algorithm or kind_of(rule).header
    if chosen is Algorithm.LEGACY:
        if not isinstance(rule, QuantileRule):
            fitting = next(kind for kind in rule_kinds().values() if Algorithm.LEGACY in kind.calibrators)
            raise UsageError(
                f"a {chosen.value} table holds a {fitting.name}, but the rule is {rule.name}",
                remedy=f"use --rule {fitting.usage} with it",
            )
        return Header(chosen, None, cutoff=1.0, quantile=rule.quantile)
    return Header(chosen, version)


def compute_thresholds(histograms: Mapping[str, Histogram], rule: Rule) -> dict[str, float]:
    """Return the threshold of every tensor by a rule, computed on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(histograms, pool.map(rule.threshold, histograms.values()), strict=True))


def gains_by_place(model: Model) -> dict[tuple[str, int], NDArray[np.float32]]:
    """Return the gains of channels by tensor and axis. ModelError where a weight is damaged."""
    return {(view.tensor, view.axis): gain for view, gain in channel_gains(model).items()}


def weighed(statistics: Statistics, model: Model) -> Statistics:
    """Return the statistics of a network with the gains of its channels, which files of quantkit 0.1 lack."""
    return statistics if statistics.has_gains else statistics.with_gains(gains_by_place(model))


def refuse_without_gains(statistics: Statistics, rules: Iterable[Rule], name: str) -> None:
    """Raise StatisticsError where a rule needs gains, and there are none."""
    for rule in rules:
        if isinstance(rule, WeightedMse) and not statistics.has_gains:
            raise StatisticsError(
                f"{name} is of quantkit 0.1 and lacks the gains of channels, which the rule {rule.name} weighs with",
                remedy="calibrate again, or name another rule, for example --rule mse",
            )


def describe_few(rules: Iterable[Rule], samples: int) -> tuple[str, ...]:
    """Return a note where there are so few samples that the next ones will have larger values."""
    if not 0 < samples < FEW_SAMPLES:
        return ()
    room = any(isinstance(rule, WeightedMse) for rule in rules)
    return (
        f"{samples} samples are few, and the next will have larger values; "
        + ("the scales leave room for them; " if room else "")
        + "--learning-curve shows whether scales still move",
    )


def make_tables(statistics: Statistics, headers: Mapping[Rule, Header]) -> dict[str, CalibrationTable]:
    """Return a table for every rule, by its name; pool outputs take their input's scale where TensorRT does that."""
    histograms = statistics.histograms
    searches = [(rule, name) for rule, header in headers.items() for name in tensors_with_own_scale(statistics, header)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda pair: pair[0].threshold(histograms[pair[1]]), searches)
        scales = {pair: scale_of(threshold) for pair, threshold in zip(searches, found, strict=True)}
    tables = {}
    for rule, header in headers.items():
        shared = statistics.shared if header.algorithm.shares_pools else {}
        tables[rule.name] = CalibrationTable(
            header, {name: scales[rule, shared.get(name, name)] for name in histograms}
        )
    return tables


def tensors_with_own_scale(statistics: Statistics, header: Header) -> list[str]:
    """Return the tensors that have a scale of their own under a header."""
    shared = statistics.shared if header.algorithm.shares_pools else {}
    return [name for name in statistics.histograms if name not in shared]


@dataclass(frozen=True, slots=True)
class RangeFinding:
    """Something about a tensor's range that the user should look at."""

    tensor: str
    text: str


def find_suspicious_ranges(statistics: Statistics) -> tuple[RangeFinding, ...]:
    """Return ranges that look wrong: always zero, or with a few values far beyond the rest."""
    findings = []
    for name, histogram in statistics.histograms.items():
        if histogram.amax == 0.0:
            findings.append(RangeFinding(name, "is always zero; TensorRT cannot run it in INT8"))
            continue
        bulk = BULK.threshold(histogram)
        if bulk == 0.0:  # an edge below the least float32
            text = f"max|x| is {histogram.amax:.3g}, and nearly all values are 0 or too small for a scale in float32"
            findings.append(RangeFinding(name, text))
        elif histogram.amax > OUTLIER_RATIO * bulk:
            ratio = histogram.amax / bulk
            findings.append(RangeFinding(name, f"max|x| is {ratio:,.0f} times its {BULK.keep:g}th percentile"))
    return tuple(findings)


def table_paths(output: Path, rules: Sequence[Rule]) -> dict[Path, Rule]:
    """Return where each rule's table goes: the first to `output`, the others beside it with the rule in the name."""
    paths = {output: rules[0]}
    for rule in rules[1:]:
        paths[beside(output, f"{output.stem}.{rule.name.replace(':', '-')}{output.suffix}")] = rule
    return paths


def statistics_path(output: Path) -> Path:
    """Return the path of the statistics beside a table: `x.calib` → `x.stats.safetensors`."""
    return beside(output, f"{output.stem}.stats.safetensors")


def checkpoint_path(output: Path) -> Path:
    """Return the path of the checkpoint beside a table: `x.calib` → `x.stats.partial`."""
    return beside(output, f"{output.stem}.stats.partial")

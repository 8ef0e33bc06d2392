"""From statistics to calibration tables: every rule, in seconds, without the data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from quantkit.errors import UsageError
from quantkit.histogram import Histogram
from quantkit.numerics import scale_of
from quantkit.rules import MinMax, Percentile, Rule
from quantkit.statistics import Statistics
from quantkit.table import Algorithm, CalibrationTable, Header

OUTLIER_RATIO = 100.0


def default_algorithm(rule: Rule) -> Algorithm:
    """The header under which a rule's table is written by default: Entropy2 carries percentiles and MSE too."""
    return Algorithm.MIN_MAX if isinstance(rule, MinMax) else Algorithm.ENTROPY_2


def header_for(rule: Rule, version: int, algorithm: Algorithm | None = None) -> Header:
    """The header of a rule's table for a TensorRT version. UsageError where rule and algorithm contradict."""
    chosen = algorithm or default_algorithm(rule)
    if chosen is Algorithm.LEGACY:
        if not isinstance(rule, Percentile):
            raise UsageError(
                f"a LegacyCalibration table holds percentiles, the rule is {rule.name}",
                remedy="use --rule percentile:99.99 with it",
            )
        return Header(chosen, None, cutoff=1.0, quantile=rule.quantile)
    return Header(chosen, version)


def compute_thresholds(histograms: Mapping[str, Histogram], rule: Rule) -> dict[str, float]:
    """Tensor → threshold, on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(histograms, pool.map(rule.threshold, histograms.values()), strict=True))


def make_tables(statistics: Statistics, headers: Mapping[Rule, Header]) -> dict[str, CalibrationTable]:
    """A table for every rule, by its name; pool outputs take their input's scale where TensorRT does that."""
    histograms = statistics.histograms
    asked = [(rule, name) for rule, header in headers.items() for name in tensors_with_own_scale(statistics, header)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda pair: pair[0].threshold(histograms[pair[1]]), asked)
        scales = {pair: scale_of(threshold) for pair, threshold in zip(asked, found, strict=True)}
    tables = {}
    for rule, header in headers.items():
        shared = statistics.shared if header.algorithm.shares_pools else {}
        tables[rule.name] = CalibrationTable(
            header, {name: scales[rule, shared.get(name, name)] for name in histograms}
        )
    return tables


def tensors_with_own_scale(statistics: Statistics, header: Header) -> list[str]:
    """The tensors that have a scale of their own under a header."""
    shared = statistics.shared if header.algorithm.shares_pools else {}
    return [name for name in statistics.histograms if name not in shared]


@dataclass(frozen=True, slots=True)
class RangeFinding:
    """Something about a tensor's range that the user should look at."""

    tensor: str
    text: str


def find_suspicious_ranges(statistics: Statistics) -> tuple[RangeFinding, ...]:
    """Ranges that look wrong: zero throughout, or a few values far beyond the rest."""
    findings = []
    bulk = Percentile(99.9)
    for name, histogram in statistics.histograms.items():
        if histogram.amax == 0.0:
            findings.append(RangeFinding(name, "is zero throughout; TensorRT cannot run it in INT8"))
        elif histogram.amax > OUTLIER_RATIO * bulk.threshold(histogram):
            ratio = histogram.amax / bulk.threshold(histogram)
            findings.append(RangeFinding(name, f"max|x| is {ratio:,.0f} times its 99.9th percentile"))
    return tuple(findings)


def table_paths(output: Path, rules: Sequence[Rule]) -> dict[Path, Rule]:
    """Where each rule's table goes: the first to `output`, the others beside it with the rule in the name."""
    paths = {output: rules[0]}
    for rule in rules[1:]:
        paths[output.with_name(f"{output.stem}.{rule.name.replace(':', '-')}{output.suffix}")] = rule
    return paths


def statistics_path(output: Path) -> Path:
    """`x.calib` → `x.stats.safetensors`."""
    return output.with_name(f"{output.stem}.stats.safetensors")


def checkpoint_path(output: Path) -> Path:
    """`x.calib` → `x.stats.partial`."""
    return output.with_name(f"{output.stem}.stats.partial")

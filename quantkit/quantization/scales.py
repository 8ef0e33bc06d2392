"""Scales for a Q/DQ model: from statistics by a rule, or from a calibration table verbatim."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from quantkit.calibration.recorded_table import read_unchanged_table
from quantkit.calibration.tables import weighed
from quantkit.data.preprocess_choice import AnyPreprocess, choose_spec, feeds_images
from quantkit.errors import StaleError, TableError, UsageError
from quantkit.graph import Model, watched_tensors
from quantkit.numerics import scale_of
from quantkit.preprocess import PRESETS, parse_preprocess, resolve_spec
from quantkit.qdq.patterns.int8_kernels import FLOAT_OUTPUT_FROM
from quantkit.qdq.shared_scales import TypedScales
from quantkit.rules import Rule, SelectingRule, as_rules, rule_in_type
from quantkit.statistics import Statistics, given_statistics
from quantkit.table import Coverage, coverage
from quantkit.tensorrt_version import number_text, parse_version
from quantkit.values import QuantizedType


@dataclass(frozen=True, slots=True)
class QuantizationScales:
    """Scales by tensor, and their source.

    typed: type → tensor → scale. source: in words. record: the source for the provenance record. rules: type → tensor →
    rule that chose its scale, if each has its own. coverage: fraction of the network's float tensors that a table
    covers.
    """

    typed: TypedScales
    source: str
    record: Mapping[str, Any]
    rules: Mapping[QuantizedType, Mapping[str, str]] = field(default_factory=dict)
    coverage: Coverage | None = None
    statistics: Statistics | None = None
    table_version: int | None = None
    """The number of the TensorRT that the table is for; None for statistics, and tables that name none."""

    @property
    def scales(self) -> Mapping[str, float]:
        """The scales of the type that most operators have."""
        return next(iter(self.typed.by_type.values()))

    def times(self, factor: float) -> QuantizationScales:
        """Return these scales times a factor; those of FP8, whose steps grow with the values, stay."""
        if factor == 1.0 or QuantizedType.INT8 not in self.typed.by_type:
            return self
        scaled = {
            name: float(np.float32(scale * factor)) for name, scale in self.typed.by_type[QuantizedType.INT8].items()
        }
        typed = TypedScales({**self.typed.by_type, QuantizedType.INT8: scaled})
        record = {**self.record, "factor": factor}
        return replace(self, typed=typed, source=f"{self.source}, times {factor:g}", record=record)

    def rules_of(self, pairs: Mapping[QuantizedType, Collection[str]]) -> dict[str, str]:
        """Return tensor → rule that chose its scale, if each has its own. pairs: type → tensors with a pair of it."""
        found = [(kind, name) for kind in reversed(QuantizedType) for name in pairs[kind] if kind in self.rules]
        return {name: self.rules[kind][name] for kind, name in found}


OTHER, COARSE = 1.001, 2.0
"""Report a shared scale if it differs from the tensor's own by more than this factor: from a table; from statistics."""


def shared_scale_notes(
    scales: QuantizationScales, typed: Mapping[QuantizedType, Mapping[str, float]]
) -> tuple[str, ...]:
    """Report tensors whose scale is that of another tensor, within a type. typed: type → tensor → scale in use."""
    return tuple(
        note for kind, own in scales.typed.by_type.items() for note in far_scale_notes(scales, own, typed[kind])
    )


def far_scale_notes(
    scales: QuantizationScales, given: Mapping[str, float], used: Mapping[str, float]
) -> tuple[str, ...]:
    """Report tensors whose scale in use is far from their own. given: tensor → its own scale, in the same type."""
    least = OTHER if scales.statistics is None else COARSE
    own = {name: given[name] for name in used if given.get(name)}
    factors = {name: max(used[name] / scale, scale / used[name]) for name, scale in own.items()}
    far = sorted((name for name, factor in factors.items() if factor > least), key=lambda name: (-factors[name], name))
    if not far:
        return ()
    worst = far[0]
    return (
        f"{len(far)} tensors share the scale of a Concat, or of the tensor before a pool or Reshape, not their own: "
        f"{worst} has {used[worst]:.4g}, its own is {own[worst]:.4g} (the largest factor, {factors[worst]:.3g})",
    )


def load_statistics_for(model: Model, statistics: str | os.PathLike[str] | Statistics) -> tuple[Statistics, str]:
    """Return statistics that belong to a network, and their name. StaleError, StatisticsError."""
    known = given_statistics(statistics)
    name = "statistics" if isinstance(statistics, Statistics) else Path(str(statistics)).name
    if known.origin.model != model.sha256:
        raise StaleError(
            f"{name} belongs to another network than {model.path}",
            remedy=f"calibrate this model: quantkit calibrate --data … {model.path}",
        )
    return weighed(known, model), name


def refuse_other_preprocess(known: tuple[Statistics, str], model: Model, asked: AnyPreprocess, *sources: Any) -> None:
    """Raise StaleError if statistics are of images with another preprocessing than those of `sources`.

    known: the statistics, and their name. asked: as `choose_spec` takes it. Nothing is known about the preprocessing of
    arrays, so they are accepted. PreprocessError if the spec does not fit the model's input.
    """
    statistics, name = known
    if statistics.origin.preprocess is None or len(model.inputs) != 1:
        return
    counted = parse_preprocess(statistics.origin.preprocess, name)
    for source in sources:
        spec = choose_spec(asked, model, source)
        if spec.spec == PRESETS["raw"] and not feeds_images(source):
            continue
        applied = resolve_spec(spec.spec, model.inputs[0])
        if applied != counted:
            raise StaleError(
                f"{name} is from images preprocessed by: {counted.describe()}; the data would be preprocessed by: "
                f"{applied.describe()} ({spec.source})",
                remedy="give the --preprocess of the statistics, or calibrate again",
            )


def scales_by_rule(
    statistics: Statistics, rule: str | Rule, name: str, types: Sequence[QuantizedType] = (QuantizedType.INT8,)
) -> QuantizationScales:
    """Return the scales that a rule chooses from statistics for each type. UsageError."""
    rules = as_rules(rule)
    if len(rules) != 1:
        raise UsageError(
            "a Q/DQ model needs exactly one rule", remedy="name one, or best, which chooses for every tensor"
        )
    by_type = {kind: rule_in_type(rules[0], kind) for kind in types}
    chosen = by_type[types[0]]
    thresholds = {kind: rule_thresholds(known, statistics) for kind, known in by_type.items()}
    origin = statistics.origin
    record = {
        "rule": chosen.name,
        "data": origin.data,
        "samples": origin.samples,
        "histogram": origin.histogram.value,
        "backend": origin.backend,
        "preprocess": origin.preprocess,
    }
    selects = isinstance(chosen, SelectingRule)
    each = {kind: {name: who for name, (_, who) in own.items()} for kind, own in thresholds.items() if selects}
    scales = {
        kind: {tensor: scale_of(threshold, kind.largest) for tensor, (threshold, _) in own.items()}
        for kind, own in thresholds.items()
    }
    return QuantizationScales(TypedScales(scales), f"{name} by {chosen.name}", record, each, None, statistics)


def rule_thresholds(rule: Rule, statistics: Statistics) -> dict[str, tuple[float, str]]:
    """Return tensor → threshold, and the name of the rule that chose it."""
    histograms = statistics.histograms
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(histograms, pool.map(lambda h: rule_threshold(rule, h), histograms.values()), strict=True))


def rule_threshold(rule: Rule, histogram: Any) -> tuple[float, str]:
    """Return a threshold, and the name of the rule that chose it."""
    if isinstance(rule, SelectingRule):
        best, threshold = rule.choice(histogram)
        return threshold, best.name
    return rule.threshold(histogram), rule.name


def refuse_rule_of_int8(rule: str | Rule, types: Collection[QuantizedType]) -> None:
    """Raise UsageError for a rule that one of the types does not know, before anything is computed."""
    for chosen in as_rules(rule):
        for kind in types:
            rule_in_type(chosen, kind)


def refuse_table_of_another_type(types: Collection[QuantizedType]) -> None:
    """Raise UsageError for types whose scales no calibration table holds."""
    if QuantizedType.FP8 in types:
        raise UsageError(
            "a calibration table holds scales of INT8, whose ranges are cut for equal steps; FP8 gains nothing by that",
            remedy="give --stats or --data for FP8, or --type int8",
        )


def scales_from_table(model: Model, path: Path, min_coverage: float) -> QuantizationScales:
    """Return the scales of a table as they are.

    StaleError if its provenance is of another table or model, TableError if it covers too few of the network's tensors.
    """
    found = read_unchanged_table(path)
    table, known = found.table, found.record
    if known is not None and known.model.sha256 != model.sha256:
        raise StaleError(
            f"{path} belongs to another network ({known.model.file or known.model.sha256[:12]}) than {model.path}",
            remedy="give the table of this network, or assign it to this one: "
            f"quantkit table adopt --force {path} {model.path}",
        )
    without = (known and known.table.without_scale) or ()
    covered = coverage(table, [name for name in watched_tensors(model).tensors if name not in without])
    if known is not None and known.origin == "qdq":
        min_coverage = 0.0  # a Q/DQ model has scales only for what it quantizes
    if covered.share < min_coverage or not covered.matched:
        missing = ", ".join(covered.missing[:5]) + (" …" if len(covered.missing) > 5 else "")
        raise TableError(
            f"{path} covers {covered.share:.0%} of the float tensors of {model.path}; missing: {missing}",
            remedy="give the table of this network"
            + (", or accept it with a lower --min-coverage" if covered.matched else ""),
        )
    record = {"table": found.sha256, "header": table.header.text, "preprocess": known and known.preprocess}
    typed = TypedScales.of(table.scales, QuantizedType.INT8)
    return QuantizationScales(typed, f"{path.name} verbatim", record, {}, covered, table_version=table.header.version)


def other_version_notes(table_version: int | None, target: str | None) -> list[str]:
    """Return the note that pairs are placed for another TensorRT than a table is for, where placements differ.

    target: the version that they are placed for; None if the user named it.
    """
    if table_version is None or target is None:
        return []
    asked = number_text(table_version)
    if len({parse_version(version)[0] < FLOAT_OUTPUT_FROM for version in (asked, target)}) == 1:
        return []
    placed = f"pairs are placed for {target}: --tensorrt-version {asked} places them for the table's"
    return [f"the table is for TensorRT {asked}, and {placed}"]

"""The network under analysis: the float network as given, and its quantized version, which can be quantized in part."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit._version import __version__
from quantkit.data.preprocess_choice import AnyPreprocess
from quantkit.errors import ModelError, UsageError
from quantkit.graph import AnyModel, Model, load_model
from quantkit.graph.node_selection import select_nodes
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.partial import PartialQuantization
from quantkit.qdq.placement import Choices
from quantkit.qdq.reader import has_qdq
from quantkit.quantization.scales import (
    QuantizationScales,
    load_statistics_for,
    refuse_other_preprocess,
    refuse_table_of_another_type,
    scales_by_rule,
    scales_from_table,
)
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.sensitivity.existing_qdq import read_existing_qdq, refuse_float
from quantkit.sensitivity.options import LayersOptions
from quantkit.sensitivity.result import TensorError
from quantkit.sensitivity.tensor_errors import QuantizedActivation, weight_error
from quantkit.values import NetworkType, QuantizedType

if TYPE_CHECKING:
    from quantkit.statistics import Statistics

FROM_FILE = "from the file"
PER_CHANNEL, PER_TENSOR = "max|w| per channel", "max|w|"


@dataclass(frozen=True, slots=True)
class QuantizationSources:
    """The source of a network's quantization, one of these: statistics, a table, or a Q/DQ model."""

    statistics: str | os.PathLike[str] | Statistics | None = None
    table: str | os.PathLike[str] | None = None
    against: AnyModel | None = None


@dataclass(frozen=True, slots=True)
class SensitivitySubject:
    """The network under analysis.

    reference: the float network as given. variants: its quantized version, which can be quantized in part. scales: None
    if they were not chosen here. left: node → why it stays float. rule: the rule behind the scales of activations.
    quantized: the Q/DQ network.
    """

    reference: Model
    quantized: Model
    variants: PartialQuantization
    source: str
    left: Mapping[str, str]
    scales: QuantizationScales | None = None
    rule: str = FROM_FILE
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


def open_subject(
    model: AnyModel,
    sources: QuantizationSources,
    preprocess: AnyPreprocess,
    data: Any,
    options: LayersOptions,
) -> SensitivitySubject:
    """Return the network under analysis. Errors are those of `layers`."""
    source = load_float_network(model)
    refuse_unmeasurable(sources, data, options)
    if sources.against is not None:
        return subject_from_qdq(source, sources.against)
    known = sources.statistics
    found = None if known is None else load_matching_statistics(source, known, preprocess, data)
    return subject_from_scales(source, found, sources.table, options)


def load_float_network(model: AnyModel) -> Model:
    """Return the network to analyse. ModelError if it is not float."""
    source = load_model(model)
    if has_qdq(source):
        raise ModelError(
            f"{source.path} already has Q/DQ pairs",
            remedy=f"give the float model that it was derived from: quantkit layers FLOAT.onnx --against {source.path}",
        )
    return source


def refuse_unmeasurable(sources: QuantizationSources, data: Any, options: LayersOptions) -> None:
    """Raise UsageError if an argument is missing or two arguments contradict each other; ModelError if `against` is
    float and could not be measured on data either."""
    statistics, table, against = sources.statistics, sources.table, sources.against
    given = [field.name for field in fields(sources) if getattr(sources, field.name) is not None]
    if len(given) != 1:
        raise UsageError(
            f"exactly one source of the quantization is needed, not {' and '.join(given) if given else 'none'}",
            remedy="give statistics (--stats), a table (--table), or a Q/DQ model (--against)",
        )
    if against is not None and (options.exclude or options.include or options.types.named):
        raise UsageError(
            "a Q/DQ model already defines what is quantized", remedy="omit --exclude, --include, --int8 and --fp8"
        )
    if data is None and statistics is None:
        if against is not None:  # data would not help then
            refuse_float(load_model(against))
        raise UsageError(
            f"with a {'table' if table is not None else 'Q/DQ model'}, errors can only be measured on data",
            remedy="give --data, or statistics (--stats) for estimates without data",
        )
    if data is None and (options.merge is not None or options.placement.divides):
        raise UsageError("without data there is nothing to divide", remedy="give --data")
    if data is None and (options.keep is not None or options.keep_db is not None):
        raise UsageError("layers cannot be ranked without data, so none can be kept", remedy="give --data")


def load_matching_statistics(
    source: Model,
    statistics: str | os.PathLike[str] | Statistics,
    preprocess: AnyPreprocess,
    data: Any,
) -> tuple[Statistics, str]:
    """Return the statistics and their description.

    StaleError if they come from another network, or from images preprocessed differently from the data.
    """
    known = load_statistics_for(source, statistics)
    if data is not None:
        refuse_other_preprocess(known, source, preprocess, data)
    return known


def subject_from_scales(
    source: Model,
    statistics: tuple[Statistics, str] | None,
    table: str | os.PathLike[str] | None,
    options: LayersOptions,
) -> SensitivitySubject:
    """Quantize the network as `quantize` does, without repairs. statistics: with their description."""
    network = replace(source, proto=fold_batch_norms(source).proto)
    excluded = select_nodes(options.exclude, network, "--exclude")
    included = select_nodes(options.include, network, "--include")
    choices = options.types.applied_to(network, Choices(options.policy, excluded, included, tensorrt=options.major))
    if statistics is not None:
        scales = scales_by_rule(statistics[0], options.rule, statistics[1], choices.types)
    else:
        assert table is not None
        refuse_table_of_another_type(choices.types)
        scales = scales_from_table(source, Path(table), options.min_coverage)
    made = insert_qdq(network, scales.typed, choices)
    reasons = {node: str(reason) for node, reason in made.left.items()}
    rule = str(scales.record.get("rule", "the table"))
    record = {
        "quantkit": __version__,
        "model": source.sha256,
        "scales": dict(scales.record),
        "tensorrt": options.major,
        "type": NetworkType.of(made.types.values()).value,
    }
    quantized = replace(network, proto=made.proto, sha256="")
    variants = PartialQuantization(quantized)
    notes = options.types.describe_kept(network, choices, made.left)
    return SensitivitySubject(source, quantized, variants, scales.source, reasons, scales, rule, notes, record)


def subject_from_qdq(source: Model, against: AnyModel) -> SensitivitySubject:
    """Return a Q/DQ model together with the float network that it was derived from."""
    quantized = load_model(against)
    beside = read_existing_qdq(source, quantized)
    record = {"quantkit": __version__, "model": source.sha256, "against": quantized.sha256}
    name = quantized.path.name
    return SensitivitySubject(source, quantized, beside.variants, name, {}, None, FROM_FILE, beside.notes, record)


def quantized_activations(subject: SensitivitySubject) -> list[QuantizedActivation]:
    """Return the quantized activations."""
    makers = subject.variants.makers()
    rules = subject.scales.rules if subject.scales else {}
    by_type = {kind.stored: rules.get(kind, {}) for kind in QuantizedType}
    return [
        QuantizedActivation(name, makers.get(name, ""), grid, by_type.get(grid.type, {}).get(name, subject.rule))
        for name, grid in subject.variants.scales.items()
    ]


def describe_both_types(variants: PartialQuantization) -> tuple[str, ...]:
    """Return notes on activations that operators of both types read: each has a pair of each, and one error."""
    shown: dict[str, list[str]] = {}
    for name in variants.in_both_types:
        shown.setdefault("FP8" if variants.scales[name].is_fp8 else "INT8", []).append(name)
    return tuple(
        f"activations with a pair of INT8 and one of FP8, whose error is that in {kind}: {', '.join(names)}"
        for kind, names in shown.items()
    )


def weight_errors(subject: SensitivitySubject) -> list[TensorError]:
    """Return the exact errors of the weights. A stack of matrices has one scale, as `quantize` gives it."""
    return [
        weight_error(weight, FROM_FILE if not subject.scales else PER_TENSOR if weight.per_tensor else PER_CHANNEL)
        for weight in subject.variants.weights()
    ]

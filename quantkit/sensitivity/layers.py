"""layers: where a quantized network loses accuracy, tensor by tensor and layer by layer.

A layer is an operator that reads from Q/DQ pairs, and its quantization is that of its inputs: activations, weights and
bias. Each layer is quantized alone in the float network, and left out of the quantized one; the effect on the network's
outputs ranks them. A layer whose scales do not fit comes before all others, because it can be fixed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit._version import __version__
from quantkit.data import DataOptions, Feed, open_data
from quantkit.data.feed import describe_left_out
from quantkit.data.image_list import given_data
from quantkit.data.opening import DataFields, whole_batches
from quantkit.data.preprocess_choice import AnyPreprocess, choose_spec
from quantkit.errors import ModelError, UsageError
from quantkit.graph import AnyModel, Model, load_model, refuse_changed_weights
from quantkit.graph.node_selection import select_nodes
from quantkit.keywords.option_fields import takes_fields
from quantkit.output_noise import NoiseMeter
from quantkit.progress import Phases, as_phases
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.partial import PartialQuantization
from quantkit.qdq.placement import Choices, Policy
from quantkit.qdq.reader import has_qdq
from quantkit.quantization.scales import (
    QuantizationScales,
    load_statistics_for,
    refuse_other_preprocess,
    scales_by_rule,
    scales_from_table,
)
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.rules import DEFAULT_RULE
from quantkit.sensitivity.existing_qdq import read_existing_qdq, refuse_float
from quantkit.sensitivity.layer_ranking import LayerRanking, choose_kept_layers, rank_layers
from quantkit.sensitivity.result import Sensitivity, TensorError
from quantkit.sensitivity.tensor_errors import (
    QuantizedActivation,
    estimate_activation_error,
    measure_activation_errors,
    weight_error,
)
from quantkit.values import check_number, checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from quantkit.rules import Rule
    from quantkit.statistics import Statistics

SAMPLES = 128
"""Default number of samples: enough to order the layers reliably."""
MOST_DB = 1000.0
"""More than doubles can hold, in dB."""
CLEAR = 10.0
"""dB by which the outputs with no layer quantized exceed those with all, if quantization is the only difference."""
FROM_FILE = "from the file"
PER_CHANNEL, PER_TENSOR = "max|w| per channel", "max|w|"


@dataclass(frozen=True, slots=True)
class LayersOptions:
    """Options of `layers`. rule, policy, exclude, include, min_coverage: as for `quantize`, if scales are chosen here.

    keep: number of worst layers to report as those to keep float. keep_db: report as many as are needed to lift the
    outputs to this SQNR.
    """

    rule: str | Rule = DEFAULT_RULE
    policy: Policy = Policy.TENSORRT
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    min_coverage: float = 0.9
    keep: int | None = None
    keep_db: float | None = None
    data: DataOptions = field(default_factory=lambda: DataOptions(limit=SAMPLES))

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", Policy.named(self.policy))
        if self.keep is not None and self.keep_db is not None:
            raise UsageError("keep and keep_db both set how many layers stay float", remedy="give only one of them")
        check_number("keep", self.keep, 1)
        check_number("keep_db", self.keep_db, -MOST_DB, MOST_DB, whole=False)
        check_number("min_coverage", self.min_coverage, 0.0, 1.0, whole=False)


class LayersFields(DataFields, total=False):
    """The keywords of `layers` that are fields of `LayersOptions`."""

    rule: str | Rule
    policy: Policy | str
    exclude: str | Sequence[str]
    include: str | Sequence[str]
    min_coverage: float
    keep: int | None
    keep_db: float | None


@dataclass(frozen=True, slots=True)
class SensitivitySubject:
    """The network under analysis.

    reference: the float network as given. variants: its quantized version, which can be quantized in part. scales: None
    if they were not chosen here. left: node → why it stays float. rule: the rule behind the scales of activations.
    """

    reference: Model
    variants: PartialQuantization
    source: str
    left: Mapping[str, str]
    scales: QuantizationScales | None = None
    rule: str = FROM_FILE
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


@takes_fields(LayersOptions, DataOptions)
def layers(
    model: AnyModel,
    *,
    statistics: str | os.PathLike[str] | Statistics | None = None,
    table: str | os.PathLike[str] | None = None,
    against: AnyModel | None = None,
    data: Any = None,
    preprocess: AnyPreprocess = None,
    options: LayersOptions | None = None,
    phase: Callable[[str], None] = lambda _: None,
    **_: Unpack[LayersFields],
) -> Sensitivity:
    """Find where a network loses accuracy by quantization, worst first.

    model: the float network. Its quantization is given by one of these: statistics, with a rule; table, verbatim;
    against, a Q/DQ model derived from it by any tool. data, preprocess: as for `calibrate`; without data the errors of
    tensors are estimated from statistics, and layers are not measured. phase: called with a description of each phase.

    Raises ModelError (a Q/DQ model of another network, outputs that are not float), StaleError, TableError, DataError,
    UsageError.
    """
    started = time.monotonic()
    options, data = checked_options(options, LayersOptions), given_data(data)
    source = load_float_network(model)
    refuse_unmeasurable(statistics, table, against, data, options)
    known = None if statistics is None else load_matching_statistics(source, statistics, preprocess, data)
    subject = (
        subject_from_qdq(source, against) if against is not None else subject_from_scales(source, known, table, options)
    )
    if data is None:
        return estimate_sensitivity(subject, started)
    spec = choose_spec(preprocess, source, data)
    feed, applied = open_data(data, source.inputs, spec.spec, limit_to_whole_batches(options.data, source))
    spec = spec.with_applied(applied)
    phases = as_phases(phase)
    tensors = measure_tensor_errors(subject, feed, options, phases)
    measuring = NoiseMeter(subject.reference, feed, options.data.threads)
    found = rank_layers(measuring, subject.variants, tensors, subject.left, phases)
    kept, kept_db = kept_layers(measuring, subject.variants, found, options, phases)
    identity = feed.identity()
    refuse_changed_weights(source)
    warnings = (*([spec.warning] if spec.warning else []), *describe_left_out(feed.unreadable))
    notes = (*subject.notes, *measuring.notes, *ranking_notes(found), *warnings, *feed.notes)
    content = identity.content if identity else ""
    record = {**subject.record, "data": content, "preprocess": spec.document, "samples": measuring.samples}
    return Sensitivity(
        model=str(source.path),
        source=subject.source,
        all_db=found.all_db,
        layers=found.layers,
        tensors=sort_tensor_errors(tensors.values()),
        samples=measuring.samples,
        notes=notes,
        provenance=record,
        seconds=time.monotonic() - started,
        kept=kept,
        kept_db=kept_db,
        warnings=warnings,
        doubts=(spec.doubt,) if spec.doubt else (),
    )


def load_float_network(model: AnyModel) -> Model:
    """Return the network to analyse. ModelError if it is not float."""
    source = load_model(model)
    if has_qdq(source):
        raise ModelError(
            f"{source.path} already has Q/DQ pairs",
            remedy=f"give the float model that it was derived from: quantkit layers FLOAT.onnx --against {source.path}",
        )
    return source


def limit_to_whole_batches(options: DataOptions, source: Model) -> DataOptions:
    """Return the options with their limit rounded to whole batches if the network has a fixed batch size."""
    limit = options.limit
    return options if limit is None else replace(options, limit=whole_batches(limit, source.inputs))


def refuse_unmeasurable(statistics: Any, table: Any, against: Any, data: Any, options: LayersOptions) -> None:
    """Raise UsageError if an argument is missing or two arguments contradict each other; ModelError if `against` is
    float and could not be measured on data either."""
    given = [
        name for name, it in (("statistics", statistics), ("table", table), ("against", against)) if it is not None
    ]
    if len(given) != 1:
        raise UsageError(
            f"exactly one source of the quantization is needed, not {' and '.join(given) if given else 'none'}",
            remedy="give statistics (--stats), a table (--table), or a Q/DQ model (--against)",
        )
    if against is not None and (options.exclude or options.include):
        raise UsageError("a Q/DQ model already defines what is quantized", remedy="omit --exclude and --include")
    if data is None and statistics is None:
        if against is not None:  # data would not help then
            refuse_float(load_model(against))
        raise UsageError(
            f"with a {'table' if table is not None else 'Q/DQ model'}, errors can only be measured on data",
            remedy="give --data, or statistics (--stats) for estimates without data",
        )
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
    if statistics is not None:
        scales = scales_by_rule(statistics[0], options.rule, statistics[1])
    else:
        assert table is not None
        scales = scales_from_table(source, Path(table), options.min_coverage)
    network = replace(source, proto=fold_batch_norms(source).proto)
    choices = Choices(
        options.policy,
        select_nodes(options.exclude, network, "--exclude"),
        select_nodes(options.include, network, "--include"),
    )
    made = insert_qdq(network, scales.scales, choices)
    reasons = {node: str(reason) for node, reason in made.left.items()}
    rule = str(scales.record.get("rule", "the table"))
    record = {"quantkit": __version__, "model": source.sha256, "scales": dict(scales.record)}
    variants = PartialQuantization(replace(network, proto=made.proto, sha256=""))
    return SensitivitySubject(source, variants, scales.source, reasons, scales, rule, (), record)


def subject_from_qdq(source: Model, against: AnyModel) -> SensitivitySubject:
    """Return a Q/DQ model together with the float network that it was derived from."""
    quantized = load_model(against)
    beside = read_existing_qdq(source, quantized)
    record = {"quantkit": __version__, "model": source.sha256, "against": quantized.sha256}
    return SensitivitySubject(source, beside.variants, quantized.path.name, {}, None, FROM_FILE, beside.notes, record)


def estimate_sensitivity(subject: SensitivitySubject, started: float) -> Sensitivity:
    """Return the errors of tensors as estimated from statistics alone."""
    scales = subject.scales
    assert scales is not None
    assert scales.statistics is not None
    histograms = scales.statistics.histograms
    found = [
        estimate_activation_error(tensor, histograms[tensor.name])
        for tensor in quantized_activations(subject)
        if tensor.name in histograms
    ]
    found += weight_errors(subject)
    note = "no data: errors of activations are estimated from histograms, and layers are not measured"
    return Sensitivity(
        model=str(subject.reference.path),
        source=subject.source,
        all_db=float("nan"),
        layers=(),
        tensors=sort_tensor_errors(found),
        samples=0,
        notes=(*subject.notes, note),
        provenance=subject.record,
        seconds=time.monotonic() - started,
    )


def quantized_activations(subject: SensitivitySubject) -> list[QuantizedActivation]:
    """Return the quantized activations."""
    makers = subject.variants.makers()
    rules = subject.scales.rules if subject.scales else {}
    return [
        QuantizedActivation(name, makers.get(name, ""), grid, rules.get(name, subject.rule))
        for name, grid in subject.variants.scales.items()
    ]


def measure_tensor_errors(
    subject: SensitivitySubject, feed: Feed, options: LayersOptions, phases: Phases
) -> dict[tuple[str, str], TensorError]:
    """Return (tensor, node) → error, for activations on the data and for weights."""
    phases("tensors")
    activations = quantized_activations(subject)
    found = measure_activation_errors(subject.variants, activations, feed, options.data.threads, phases.count)
    return {(e.name, e.node): e for e in (*found.values(), *weight_errors(subject))}


def weight_errors(subject: SensitivitySubject) -> list[TensorError]:
    """Return the exact errors of the weights. A stack of matrices has one scale, as `quantize` gives it."""
    return [
        weight_error(weight, FROM_FILE if not subject.scales else PER_TENSOR if weight.per_tensor else PER_CHANNEL)
        for weight in subject.variants.weights()
    ]


def sort_tensor_errors(tensors: Iterable[TensorError]) -> tuple[TensorError, ...]:
    """Sort worst first: tensors whose scale does not fit, then the others by SQNR."""
    return tuple(sorted(tensors, key=lambda error: (not error.misfit, error.sqnr_db)))


def ranking_notes(found: LayerRanking) -> Iterable[str]:
    """Yield notes on the limits of the figures."""
    if found.none_db < found.all_db + CLEAR:
        yield (
            f"with no layer quantized the SQNR of the outputs is {found.none_db:.1f} dB: the file differs from the "
            "float network in other ways too, and layers with less noise than that cannot be distinguished"
        )


def kept_layers(
    measuring: NoiseMeter,
    variants: PartialQuantization,
    found: LayerRanking,
    options: LayersOptions,
    phase: Callable[[str], None],
) -> tuple[tuple[str, ...], float]:
    """Return the layers to keep float and the SQNR of the outputs with them in float."""
    if options.keep is None and options.keep_db is None:
        return (), float("nan")
    phase("choosing layers to keep")
    return choose_kept_layers(measuring, variants, found, options.keep, options.keep_db)

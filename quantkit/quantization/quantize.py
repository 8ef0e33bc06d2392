"""quantize: a float network and its scales → a Q/DQ network, for every TensorRT and for onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit._version import __version__
from quantkit.artifact import canonical_json, check_destinations
from quantkit.backends.trial_run import Trial
from quantkit.calibration.unscalable import describe_unscalable
from quantkit.data import DataOptions
from quantkit.data.feed import describe_left_out
from quantkit.data.image_list import given_data
from quantkit.data.preprocess_choice import AnyPreprocess
from quantkit.errors import ModelError, UsageError
from quantkit.gpu_profile.profile import load_profile
from quantkit.graph import AnyModel, Model, load_model, refuse_changed_weights, saved_files
from quantkit.graph.model import default_opset
from quantkit.graph.node_selection import select_nodes
from quantkit.graph.save import stage_model
from quantkit.graph.weight_store import WeightStore, take_stored_weights
from quantkit.keywords.option_fields import takes_fields
from quantkit.linting.rules.parsing.clip_apart import without_misread_clips
from quantkit.paths import given_path
from quantkit.progress import Phases, as_phases
from quantkit.provenance import with_digest
from quantkit.qdq.insert import insert_qdq, is_half
from quantkit.qdq.insertion import QuantizedNetwork, WeightForm
from quantkit.qdq.layer_counts import count_fp8_layers, count_int8_layers
from quantkit.qdq.placement import Choices
from quantkit.qdq.reader import has_qdq
from quantkit.qdq.removal import describe_way_back
from quantkit.quantization.choice import ChoiceRequest, FittedStatistics, choose_network, fit_statistics
from quantkit.quantization.choice_record import HeldOutChoice
from quantkit.quantization.for_gpu import choose_for_gpu, largest_scales
from quantkit.quantization.network_statistics import NetworkSamples, collect_network_statistics
from quantkit.quantization.options import QuantizeFields, QuantizeOptions
from quantkit.quantization.output_trial import try_quantized
from quantkit.quantization.record import METADATA_KEY
from quantkit.quantization.repair_run import apply_repairs
from quantkit.quantization.result import Quantization
from quantkit.quantization.reuse import (
    QuantizationInputs,
    quantization_inputs,
    record_quantization,
    refuse_changed_samples,
    reuse_quantized,
)
from quantkit.quantization.scales import (
    QuantizationScales,
    load_statistics_for,
    other_version_notes,
    refuse_other_preprocess,
    refuse_rule_of_int8,
    refuse_table_of_another_type,
    scales_by_rule,
    scales_from_table,
    shared_scale_notes,
)
from quantkit.repairs.registry import resolve_repairs
from quantkit.repairs.repair import RepairReport
from quantkit.rewrites.divided_products import divide_products
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.rewrites.fp16 import convert_to_fp16
from quantkit.rules import DEFAULT_RULE, Rule
from quantkit.staging import claimed_outputs, staged_files
from quantkit.values import NetworkType, QuantizedType, checked_options

if TYPE_CHECKING:
    import onnx
    from typing_extensions import Unpack

    from quantkit.statistics import Statistics


NOT_ASKED = "nothing is to be chosen"


@takes_fields(QuantizeOptions, DataOptions)
def quantize(
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    statistics: str | os.PathLike[str] | Statistics | None = None,
    table: str | os.PathLike[str] | None = None,
    data: Any = None,
    preprocess: AnyPreprocess = None,
    options: QuantizeOptions | None = None,
    phase: Callable[[str], None] = lambda _: None,
    **_: Unpack[QuantizeFields],
) -> Quantization:
    """Quantize a network with scales from statistics by a rule, or from a calibration table verbatim.

    data, preprocess: as for `calibrate`. They allow repairs that run the network again, and statistics are collected
    from them if none are given. phase: called with the name of each phase; `Phases` gets counts too. The model is
    written to `output` if one is given, completely or not at all.

    A model that an earlier call wrote there from the same inputs is reused; of other inputs it is a StaleError.

    ModelError (already quantized, nothing to quantize, an opset that cannot be raised), StaleError (statistics or a
    table of another network), TableError (too few tensors of the network in the table), DataError, OutputError,
    UsageError.
    """
    options, data = checked_options(options, QuantizeOptions), given_data(data)
    target = None if output is None else given_path(output, "output")
    if target is not None:
        check_destinations([target], read=(model, statistics, table, data, preprocess), force=True)
    source = load_model(model)
    refuse_quantized(source)
    samples = open_samples(source, data, preprocess, options.data)
    scale_source = ScaleSource(statistics, table, samples, preprocess)
    inputs: QuantizationInputs | None = None
    if target is not None:
        check_destinations(saved_files(source.proto, target), read=source.files, force=True)
        inputs = quantization_inputs(source, statistics, table, samples, options)
        if not options.force and (found := reuse_quantized(target, inputs)) is not None:
            return found
        check_destinations(saved_files(source.proto, target), force=options.force)
    with claimed_outputs([] if target is None else [target]), WeightStore() as store:
        source = store.put(source)
        made = quantize_in_memory(source, scale_source, target, options, as_phases(phase))
        return made if target is None else write_quantized(made, source, scale_source.data, target, inputs, options)


def quantize_in_memory(
    source: Model,
    scale_source: ScaleSource,
    target: Path | None,
    options: QuantizeOptions,
    phase: Phases,
) -> Quantization:
    """Quantize a network that has no Q/DQ. target: where it will be written, after it was tried. Raises what `quantize`
    raises."""
    original, plain = source, fold_batch_norms(source)
    network = replace(source, proto=plain.proto)
    choices = placement_choices(options, network)
    asked, options = options.types, options.of_nodes(choices.type, choices.fp8)
    prepared = prepare_model(source, network, scale_source, options, choices, phase)
    folded = tuple(plain.folded)
    del plain, network  # repaired weights are a second copy, and the first is not needed any more
    source = prepared.network
    phase("inserting Q/DQ")
    scales = prepared.scales
    made = insert_qdq(prepared.network, scales.typed, prepared.choices, options.form)
    kind = NetworkType.of(made.types.values())
    form = options.form if options.form is WeightForm.FLOAT else WeightForm(kind.value)
    source = replace(source, proto=made.proto).with_weights_stored()
    made = replace(made, proto=source.proto)
    proto, notes = finish_model(source, made, scales, options, prepared)
    notes += asked.describe_kept(prepared.network, choices, made.left)
    notes += describe_left_out(scale_source.data.unreadable) if scale_source.data else ()
    notes += describe_unscalable(scales.statistics) if scales.statistics else ()
    trial: Trial | None = None
    if target is not None:
        phase("running it once")
        trial = try_quantized(proto, original, target, scale_source.data, scales)
        notes += trial.notes
    refuse_changed_weights(source)
    phase("writing")
    int8_layers = count_int8_layers(replace(source, proto=proto, sha256=""))
    fp8_layers = count_fp8_layers(replace(source, proto=proto, sha256=""))
    take_stored_weights(proto, source)
    return Quantization(
        proto=proto,
        pairs=made.pairs,
        also_fp8=made.also_fp8,
        types=made.types,
        weights=tuple(made.weights),
        left=made.left,
        source=scales.source,
        rules=scales.rules_of(made.typed_pairs),
        coverage=scales.coverage,
        folded=folded,
        form=form,
        type=kind,
        repairs=prepared.repairs,
        opset=default_opset(proto),
        notes=notes,
        files=(),
        int8_layers=int8_layers,
        fp8_layers=fp8_layers,
        trial=trial,
        held_out=prepared.held_out,
    )


def placement_choices(options: QuantizeOptions, network: Model) -> Choices:
    """Return the choices about what is quantized, and to which type, with nodes by name. UsageError."""
    excluded = select_nodes(options.exclude, network, "--exclude")
    included = select_nodes(options.include, network, "--include")
    return options.types.applied_to(network, Choices(options.policy, excluded, included, tensorrt=options.major))


@dataclass(frozen=True, slots=True)
class ScaleSource:
    """The inputs that scales come from, as the caller gave them."""

    statistics: str | os.PathLike[str] | Statistics | None
    table: str | os.PathLike[str] | None
    data: NetworkSamples | None
    preprocess: AnyPreprocess = None
    """As the caller gave it, before it is resolved."""


def open_samples(source: Model, data: Any, preprocess: AnyPreprocess, options: DataOptions) -> NetworkSamples | None:
    """Return the samples that a network may be run on; None without data."""
    return None if data is None else NetworkSamples(data, preprocess, options).of(source)


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """The network after its repairs, and its scales."""

    network: Model
    scales: QuantizationScales
    repairs: Mapping[str, RepairReport]
    choices: Choices
    notes: tuple[str, ...] = ()
    held_out: HeldOutChoice | None = None


def prepare_model(
    source: Model,
    network: Model,
    given: ScaleSource,
    options: QuantizeOptions,
    choices: Choices,
    phase: Phases,
) -> PreparedModel:
    """Apply repairs, and choose scales. StaleError, TableError, UsageError."""
    if given.table is not None:
        refuse_table_of_another_type(choices.types)
        if given.statistics is not None or given.data is not None:
            raise UsageError(
                "the scales of a table are used verbatim, without statistics and data", remedy="give one of the two"
            )
        resolve_repairs(options.repairs, statistics=False, data=False)
        scales = scales_from_table(source, given_path(given.table, "the table"), options.min_coverage)
        on_gpu = choose_for_gpu(network, scales.scales, choices, options)
        return PreparedModel(network, scales, {}, on_gpu.choices, on_gpu.notes)
    refuse_rule_of_int8(options.rule or DEFAULT_RULE, choices.types)
    names = resolve_repairs(options.repairs, statistics=True, data=given.data is not None, quantized_type=options.type)
    chooses = options.type is QuantizedType.INT8 and (options.rule is None or options.repairs is None)
    fitted = find_statistics(source, given, network, choices, phase, hold_out=chooses)
    on_gpu = choose_for_gpu(network, largest_scales(fitted.statistics, options.type), choices, options)
    choices, notes = on_gpu.choices, (*on_gpu.notes, *fitted.notes)
    rule: str | Rule = options.rule or DEFAULT_RULE
    name, held_out = fitted.source, None
    if given.data is not None and chooses:
        request = ChoiceRequest(network, given.data, fitted, choices, options.rule, options.repairs)
        chosen = choose_network(request, phase)
        made, rule, name, held_out = chosen.made, chosen.rule, chosen.source, chosen.held_out
        notes += chosen.notes
    else:
        made = apply_repairs(network, fitted.statistics, names, given.data, choices, phase)
    if made.collected_again and given.statistics is not None:
        name = "the data, collected again after its repairs,"
    phase("choosing scales")
    factor = 1.0 if held_out is None else held_out.factor
    chosen_scales = scales_by_rule(made.statistics, rule, name, choices.types).times(factor)
    return PreparedModel(made.network, chosen_scales, made.done, choices, notes, held_out)


def find_statistics(
    source: Model, given: ScaleSource, network: Model, choices: Choices, phase: Phases, *, hold_out: bool
) -> FittedStatistics:
    """Return the statistics that were given, or those collected from the data; hold_out: from a part of it."""
    known = None
    if given.statistics is not None:
        known = load_statistics_for(source, given.statistics)
        if given.data is not None:
            refuse_other_preprocess(known, source, given.preprocess, given.data.source)
    if given.data is not None and hold_out:
        return fit_statistics(network, known, given.data, choices.exclude, phase)
    if known is not None:
        return FittedStatistics(NOT_ASKED, *known)
    if given.data is None:
        raise UsageError(
            "scales come from statistics, a table, or data, and none is given",
            remedy="quantkit calibrate --backend onnxruntime --data … MODEL writes statistics and a table",
        )
    phase("collecting statistics")
    found = collect_network_statistics(network, given.data, choices.exclude, phase)
    return FittedStatistics(NOT_ASKED, found, "the data")


def write_quantized(
    made: Quantization,
    source: Model,
    samples: NetworkSamples | None,
    target: Path,
    inputs: QuantizationInputs | None,
    options: QuantizeOptions,
) -> Quantization:
    """Write the network, and a file of weights beside it if it needs one. StaleError, OutputError, DataError."""
    refuse_changed_samples(source, samples, inputs)
    if inputs is not None:
        record_quantization(made, source, inputs)
    with staged_files(may_replace=lambda _: options.force) as new:
        files = stage_model(made.proto, source.folder, target, new)
        refuse_changed_weights(source)  # also while they were copied
    return replace(made, files=files)


def refuse_quantized(model: Model) -> None:
    """Raise ModelError if a network already has Q/DQ."""
    if has_qdq(model):
        raise ModelError(
            f"{model.path} already has Q/DQ",
            remedy=f"quantkit lint checks this one; else quantize the float model; {describe_way_back(model)}",
        )


def nodes_of(made: QuantizedNetwork, quantized_type: QuantizedType) -> list[str]:
    """Return the names of the nodes of a type, sorted."""
    return sorted(node for node, kind in made.types.items() if kind is quantized_type)


def divided_notes(divided: Sequence[str]) -> list[str]:
    """Return the note about products that were divided."""
    if not divided:
        return []
    which = f"product {divided[0]} is" if len(divided) == 1 else f"{len(divided)} products ({divided[0]} …) are"
    return [f"{which} divided into parts, which compute the same: TensorRT-RTX runs the undivided form in float"]


def finish_model(
    source: Model,
    made: QuantizedNetwork,
    scales: QuantizationScales,
    options: QuantizeOptions,
    prepared: PreparedModel,
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the network in the form that TensorRT computes best, in FP16 if asked for, with provenance; and notes."""
    placed_for = options.target if options.tensorrt_version is None else None
    proto, notes = made.proto, other_version_notes(scales.table_version, placed_for)
    clips: tuple[str, ...] = ()
    if options.type is QuantizedType.INT8:
        proto, clips = without_misread_clips(replace(source, proto=proto, sha256=""))
    if clips:
        which = f"Clip {clips[0]} is" if len(clips) == 1 else f"{len(clips)} Clips ({clips[0]} …) are"
        notes.append(
            f"{which} split into two nodes: TensorRT 8.6 would otherwise apply the bounds to quantized integers"
        )
    if options.form is not WeightForm.FLOAT:
        proto, divided = divide_products(replace(source, proto=proto, sha256=""))
        notes += divided_notes(divided)
    if is_half(source):
        notes.append("scales were rounded to float16, the type of the tensors, by at most 0.05 %")
    if options.fp16:
        statistics = scales.statistics
        ranges = {name: h.amax for name, h in statistics.histograms.items()} if statistics else None
        half = convert_to_fp16(replace(source, proto=proto, sha256=""), ranges=ranges)
        proto = half.proto
        notes.append("scales of tensors that became float16 were rounded to it, by at most 0.05 %")
        if half.raised:
            notes.append(
                f"{half.raised} channels of weights are so small that float16 lacks their scale; "
                "they got the least that it has, 6.1e-05"
            )
        notes += [f"{name} stays float32: {reason}" for name, reason in half.kept.items()]
        notes += [
            f"weight {name} has values up to {most:g}, but FP16 ends at 65504" for name, most in half.saturated.items()
        ]
    kind = NetworkType.of(made.types.values())
    record: dict[str, Any] = {
        "quantkit": __version__,
        "model": source.sha256,
        "type": kind.value,
        **({"fp8": nodes_of(made, QuantizedType.FP8)} if kind is NetworkType.MIXED else {}),
        "scales": dict(scales.record),
        "policy": options.policy.value,
        "exclude": list(options.exclude),
        "include": list(options.include),
        "weights": (WeightForm.FLOAT if options.form is WeightForm.FLOAT else kind).value,
        "fp16": options.fp16,
        "repairs": list(prepared.repairs),
        **({} if prepared.held_out is None else {"held_out": prepared.held_out.document}),
        **({} if options.gpu_profile is None else {"gpu": load_profile(options.gpu_profile).where}),
    }
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, canonical_json(with_digest(record))
    return proto, (*notes, *prepared.notes, *shared_scale_notes(scales, made.typed_pairs))

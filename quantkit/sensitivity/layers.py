"""layers: where a quantized network loses accuracy, tensor by tensor and layer by layer.

A layer is an operator that reads from Q/DQ pairs, and its quantization is that of its inputs: activations, weights and
bias. Each layer is quantized alone in the float network, and left out of the quantized one; the effect on the network's
outputs ranks them. A layer whose scales do not fit comes before all others, because it can be fixed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from quantkit.data import DataOptions
from quantkit.data.feed import describe_left_out
from quantkit.data.image_list import given_data
from quantkit.data.preprocess_choice import AnyPreprocess
from quantkit.graph import AnyModel, refuse_changed_weights
from quantkit.keywords.option_fields import takes_fields
from quantkit.output_noise import NoiseMeter
from quantkit.progress import PhaseProgress, Phases, Progress, as_phases
from quantkit.qdq.partial import PartialQuantization
from quantkit.sensitivity.layer_ranking import LayerRanking, choose_kept_layers, rank_layers
from quantkit.sensitivity.options import LayersFields, LayersOptions
from quantkit.sensitivity.result import Sensitivity, TensorError
from quantkit.sensitivity.shards.maker import SENSITIVITY, MeasuredTotals, SensitivityShards, add_up
from quantkit.sensitivity.shards.task import LayersTask
from quantkit.sensitivity.subject import (
    QuantizationSources,
    SensitivitySubject,
    describe_both_types,
    open_subject,
    quantized_activations,
    weight_errors,
)
from quantkit.sensitivity.tensor_errors import estimate_activation_error
from quantkit.totals import Division, run_by_workers, shards_at
from quantkit.values import checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from quantkit.statistics import Statistics

CLEAR = 10.0
"""dB by which the outputs with no layer quantized exceed those with all, if quantization is the only difference."""

SHARD_SAMPLES = 32
"""Samples of a worker's shard at least: each opens every variant again, which costs about as much as to run so many."""


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
    progress: Progress | None = None,
    **_: Unpack[LayersFields],
) -> Sensitivity:
    """Find where a network loses accuracy by quantization, worst first.

    model: the float network. Its quantization is given by one of these: statistics, with a rule; table, verbatim;
    against, a Q/DQ model derived from it by any tool. data, preprocess: as for `calibrate`; without data the errors of
    tensors are estimated from statistics, and layers are not measured. phase: called with a description of each phase.
    progress: of the samples that workers have measured.

    Raises ModelError (a Q/DQ model of another network, outputs that are not float), StaleError, TableError, DataError,
    UsageError.
    """
    started = time.monotonic()
    options, data = checked_options(options, LayersOptions), given_data(data)
    sources = QuantizationSources(statistics, table, against)
    subject = open_subject(model, sources, preprocess, data, options)
    if data is None:
        return estimate_sensitivity(subject, started)
    phases = as_phases(phase)
    maker = SensitivityShards(subject, data, preprocess, options)
    if options.merge is not None:
        found = add_up(maker, shards_at(SENSITIVITY, options.merge))
    elif options.placement.divides:
        task = LayersTask.of(model, sources, data, maker.spec, options)
        division = Division(options.placement, options.data, options.parts, options.force, SHARD_SAMPLES)
        with run_by_workers(maker, SENSITIVITY, task, division, progress or PhaseProgress(phases)) as parts:
            found = add_up(maker, parts)
    else:
        found = maker.measure(phases)
    return summarize_sensitivity(maker, found, phases, started)


def summarize_sensitivity(
    maker: SensitivityShards, found: MeasuredTotals, phases: Phases, started: float
) -> Sensitivity:
    """Return the figures that follow from the totals over all samples. UsageError where `keep_db` is not reached."""
    pass_, subject, spec = maker.pass_, maker.pass_.subject, maker.spec
    noise = pass_.noise.figures(pass_.candidates, found.totals.noise)
    samples, notes = pass_.noise.samples, pass_.noise.notes
    tensors = pass_.tensor_errors(found.totals)
    ranking = rank_layers(noise, subject.variants, tensors, subject.left)
    kept, kept_db = kept_layers(pass_.noise, subject.variants, ranking, maker.options, phases)
    refuse_changed_weights(subject.reference)
    warnings = (*([spec.warning] if spec.warning else []), *describe_left_out(found.skipped))
    return Sensitivity(
        model=str(subject.reference.path),
        source=subject.source,
        all_db=ranking.all_db,
        layers=ranking.layers,
        tensors=sort_tensor_errors(tensors.values()),
        samples=samples,
        notes=(
            *subject.notes,
            *describe_both_types(subject.variants),
            *notes,
            *ranking_notes(ranking),
            *warnings,
            *maker.feed.notes,
        ),
        provenance={**subject.record, "data": found.content, "preprocess": spec.document, "samples": samples},
        seconds=time.monotonic() - started,
        kept=kept,
        kept_db=kept_db,
        warnings=warnings,
        doubts=(spec.doubt,) if spec.doubt else (),
    )


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
        notes=(*subject.notes, *describe_both_types(subject.variants), note),
        provenance=subject.record,
        seconds=time.monotonic() - started,
    )


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

"""tune: the cheapest configuration of a quantized network within an accuracy budget, from one pass over the data.

The evaluation data is split into two parts. The search sees only the first; the reported figures come from the second,
which was never used to choose.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from quantkit._version import __version__
from quantkit.calibration.calibrate import calibrate
from quantkit.calibration.options import CalibrateOptions
from quantkit.data import DataOptions
from quantkit.data.image_list import given_data
from quantkit.data.pictures.find import is_divided
from quantkit.data.preprocess_choice import AnyPreprocess, choose_spec
from quantkit.evaluation.options import MOST_DROP, EvaluateOptions
from quantkit.evaluation.result import Evaluation
from quantkit.graph import AnyModel, Model, load_model
from quantkit.graph.load import changed_model
from quantkit.graph.node_selection import node_names, select_nodes
from quantkit.keywords.option_fields import takes_fields
from quantkit.quantization.quantize import refuse_quantized
from quantkit.quantization.result import Quantization
from quantkit.quantization.scales import load_statistics_for, refuse_other_preprocess
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.rules import as_rules
from quantkit.staging import claimed_outputs
from quantkit.statistics import Statistics
from quantkit.tuning.candidates import CandidateFactory, TuningSource
from quantkit.tuning.files import TuningFiles, claim_in, usable_folder, write_tuning
from quantkit.tuning.latency import (
    BudgetChoice,
    chosen_float,
    evaluate_engines_held_out,
    open_lab,
    search_latency,
    speed_provenance,
    with_speed,
    with_trial,
)
from quantkit.tuning.metric_trials import MetricTrials, TrialRequest, holdout_parts, loss_of, trial_metric
from quantkit.tuning.options import TuneFields, TuneOptions
from quantkit.tuning.pareto_front import measure_front, operator_types_of
from quantkit.tuning.result import Tuning
from quantkit.tuning.search import Search, SearchLimits, SearchResult
from quantkit.tuning.speed.engine_choice import Objective
from quantkit.tuning.speed.tune import batches_for, refuse_without_gpu
from quantkit.values import NetworkType, check_number, checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

REPORT_EVALUATIONS = 3
"""Evaluations reserved for the held-out part: the float network, the untuned and the tuned one; by time FP16's too."""
UNTUNED = "INT8 untuned"
"""The name of the first trial in reports, where the network is INT8."""


@dataclass(frozen=True, slots=True)
class CalibrationSource:
    """The statistics and data that networks are quantized from. text: their description in notes."""

    statistics: Statistics
    data: Any
    options: DataOptions
    text: str


@takes_fields(TuneOptions, DataOptions)
def tune(
    model: AnyModel,
    data: Any,
    *,
    max_drop: float,
    output: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | Iterable[Any] | None = None,
    calibration: Any = None,
    statistics: str | os.PathLike[str] | Statistics | None = None,
    preprocess: AnyPreprocess = None,
    options: TuneOptions | None = None,
    phase: Callable[[str], None] = lambda _: None,
    **_: Unpack[TuneFields],
) -> Tuning:
    """Find the cheapest configuration of a quantized network that loses no more than a budget.

    data, labels, preprocess: as for `evaluate`; without labels, agreement with the float network replaces the metric.
    max_drop: the budget, in percentage points if the metric is a fraction. calibration: data for statistics and
    repairs; None takes the training images of a divided data set, else the tuning part of `data`. statistics: a file
    or a value that replaces the pass which collects them. output: a folder for the model, the table, the exclusion file
    and `tune.json`; None writes nothing.

    Raises ModelError, DataError, PreprocessError, StaleError, OutputError, UsageError, Interrupted.
    """
    options = checked_options(options, TuneOptions)
    data, calibration = given_data(data, labels), given_data(calibration)
    refuse_budget(max_drop)
    source = load_model(model)
    refuse_quantized(source)
    if options.objective is not Objective.ACCURACY:
        refuse_without_gpu(options.device)
        options = replace(options, batches=batches_for(source, options.batches))
    folder = None if output is None else usable_folder(Path(output), source, force=options.force)
    evaluating = EvaluateOptions(data=options.data, classes=options.classes, provider=options.provider)
    file = Path(labels) if isinstance(labels, (str, os.PathLike)) else None
    request = TrialRequest(data, file, preprocess, options.metrics, evaluating)
    with claimed_outputs([] if folder is None else [claim_in(folder)]):
        return tune_and_write(source, request, (calibration, statistics), max_drop, folder, options, phase)


def tune_and_write(
    source: Model,
    request: TrialRequest,
    given: tuple[Any, str | os.PathLike[str] | Statistics | None],
    max_drop: float,
    folder: Path | None,
    options: TuneOptions,
    phase: Callable[[str], None],
) -> Tuning:
    """Tune a float network and write the files into `folder` if there is one. Raises what `tune` raises.

    given: calibration data and statistics, as for `tune`.
    """
    started = time.monotonic()
    known = calibrate_for_tuning(source, request, given, options, phase)
    spec = choose_spec(request.preprocess, source, known.data).spec
    part = holdout_parts(options.holdout, options.data)[0]
    own = TuningSource(source, known.statistics, known.data, spec, known.options, options.quantize)
    factory = CandidateFactory(
        replace(own, trial_data=request.data, trial_options=replace(options.data, limit=None, part=part)), phase
    )
    made = search_and_report(factory, request, max_drop, options, phase)
    half = made.speed is not None and made.speed.half
    quantized = factory.quantization(made.chosen.recipe, half=half)
    made = replace(made, excluded=excluded_nodes(source, options), **types_in(quantized))
    if made.speed is None:
        front = measure_front(source, made, front_networks(factory, made), request, options, phase)
        made = replace(made, front=front.points, machine=front.machine, notes=(*made.notes, *front.notes))
    made = replace(
        made,
        rules=dict(quantized.rules),
        notes=(*made.notes, f"quantized from {known.text}"),
        provenance=tuning_provenance(source, made.report, known, options),
        seconds=time.monotonic() - started,
    )
    if folder is None:
        return made
    phase("writing")
    plain = chosen_float(source, made)
    return write_tuning(TuningFiles(made, source, quantized.proto, known.statistics, plain), folder, options)


def excluded_nodes(source: Model, options: TuneOptions) -> tuple[str, ...]:
    """Return the names of the nodes that the caller excluded, in graph order."""
    network = replace(source, proto=fold_batch_norms(source).proto)
    excluded = select_nodes(options.exclude, network, "--exclude")
    return tuple(name for name in node_names(network) if name in excluded)


def front_networks(factory: CandidateFactory, made: Tuning) -> Mapping[str, Quantization]:
    """Return the Q/DQ networks of the Pareto front: that of the first trial and that of the chosen one."""
    recipes = {"untuned": made.trials[0].recipe, "tuned": made.chosen.recipe}
    if recipes["untuned"] == recipes["tuned"]:
        del recipes["untuned"]
    return {name: factory.quantization(recipe) for name, recipe in recipes.items()}


def types_in(made: Quantization) -> dict[str, Any]:
    """Return the types of a network's operators, and the numbers of those with weights, as fields of the result."""
    (int8, weighted), fp8 = made.int8_layers, made.fp8_layers
    return {"types": operator_types_of(made), "type_counts": (int8, fp8, weighted - int8 - fp8)}


def search_and_report(
    factory: CandidateFactory,
    request: TrialRequest,
    max_drop: float,
    options: TuneOptions,
    phase: Callable[[str], None],
) -> Tuning:
    """Search on the tuning part and report on the held-out part, without Pareto front and files."""
    source = factory.source.model
    tuning, held_out = (MetricTrials(source, request, p) for p in holdout_parts(options.holdout, options.data))
    rules = tuple(rule.name for rule in as_rules(options.rules))
    reserved = REPORT_EVALUATIONS + (options.objective is not Objective.ACCURACY)
    mixes = options.type is NetworkType.MIXED
    limits = SearchLimits(rules, options.repairs, max_drop, options.most, options.evaluations - reserved, mixes)
    found = Search(factory, tuning, limits, phase).run()
    if options.objective is Objective.ACCURACY:
        phase("evaluating the held-out part")
        report = evaluate_held_out(factory, held_out, found, max_drop, options.type)
        return replace(assemble_tuning(source, (tuning, held_out), found, report, max_drop), type=options.type)
    with ExitStack() as held:
        folder = Path(held.enter_context(TemporaryDirectory(prefix="quantkit-")))
        lab = open_lab(source, folder, options, phase, held)
        choice = BudgetChoice(tuning, options.objective, max_drop, limits.evaluations, phase)
        timed = search_latency(factory, found.chosen, choice, options, (folder, lab))
        found = with_trial(found, timed.trial)
        phase("evaluating the held-out part")
        report = evaluate_engines_held_out(factory, held_out, found, timed.tuning, max_drop, UNTUNED)
        return with_speed(assemble_tuning(source, (tuning, held_out), found, report, max_drop), timed.tuning)


def refuse_budget(max_drop: float) -> None:
    """Raise UsageError if the budget is negative or not a number."""
    check_number("max_drop", max_drop, 0.0, MOST_DROP, whole=False)


def calibrate_for_tuning(
    source: Model,
    request: TrialRequest,
    given: tuple[Any, str | os.PathLike[str] | Statistics | None],
    options: TuneOptions,
    phase: Callable[[str], None],
) -> CalibrationSource:
    """Return the statistics, and the data for them and for repairs. Raises the errors of `calibrate`, StaleError.

    given: calibration data and statistics, as for `tune`.
    """
    data, statistics = given
    own, text = options.calibration, "the calibration data"
    if data is None:
        divided = is_divided(request.data)
        part = None if divided else holdout_parts(options.holdout, options.data)[0]
        data, text = request.data, "the training images" if divided else "the tuning part"
        own = replace(options.data, limit=own.limit, whole=False, part=part)
    if statistics is not None:
        known, name = load_statistics_for(source, statistics)
        refuse_other_preprocess((known, name), source, request.preprocess, request.data, data)
        return CalibrationSource(known, data, own, f"{name}, with {text} for the repairs that run the network")
    phase(f"collecting statistics from {text}")
    made = calibrate(
        source.path if source.files else source,
        data,
        rule="minmax",
        preprocess=request.preprocess,
        options=CalibrateOptions(data=own, backend="onnxruntime"),
    )
    assert made.statistics is not None, "bug in quantkit: onnxruntime returned no statistics"
    if made.statistics.origin.model != source.sha256:
        raise changed_model(source.path)
    return CalibrationSource(made.statistics, data, own, f"{text}, {made.samples} samples")


def evaluate_held_out(
    factory: CandidateFactory, metric_trials: MetricTrials, found: SearchResult, max_drop: float, kind: NetworkType
) -> Evaluation:
    """Evaluate the float network, the first trial and the chosen one on the held-out part. kind: what was searched."""
    first, last = found.trials[0].recipe, found.chosen.recipe
    plain = "FP8" if kind is NetworkType.FP8 else "INT8"
    untuned = {} if last == first else {f"{plain} untuned": factory.model(first)}
    return metric_trials.evaluation(
        {**untuned, f"{'mixed' if last.fp8 else plain} tuned": factory.model(last)}, max_drop
    )


def assemble_tuning(
    source: Model, both: tuple[MetricTrials, MetricTrials], found: SearchResult, report: Evaluation, max_drop: float
) -> Tuning:
    """Return the result, still without Pareto front and files."""
    tuning, reporter = both
    untuned, tuned = (loss_of(report, report.models[at]) for at in (1, -1))
    metric = trial_metric(report)
    return Tuning(
        model=source.path.name,
        metric=metric,
        share=report.share,
        max_drop=max_drop,
        layers=found.layers,
        reference=1.0 if report.metric is None else report.reference.metrics[report.metric],
        trials=found.trials,
        chosen=found.chosen,
        held=found.held,
        report=report,
        untuned=untuned,
        tuned=tuned,
        samples=(tuning.samples, reporter.samples),
        evaluations=tuning.evaluations + reporter.evaluations,
        ranking=found.ranking,
        ranked=found.ranked,
        layer_types=found.layer_types,
        rules={},
        front=(),
        notes=tuple(dict.fromkeys((*split_note(tuning, reporter), *found.notes, *report.notes))),
        provenance={},
        seconds=0.0,
    )


def split_note(tuning: MetricTrials, reporter: MetricTrials) -> tuple[str, ...]:
    """Return a note on how the samples were split."""
    return (
        f"tuned on {tuning.samples:,} samples; the reported figures come from {reporter.samples:,} held-out samples",
    )


def tuning_provenance(
    source: Model, report: Evaluation, known: CalibrationSource, options: TuneOptions
) -> Mapping[str, Any]:
    """Return everything that determines the figures, as JSON values."""
    origin = known.statistics.origin
    return {
        "quantkit": __version__,
        "model": source.sha256,
        "statistics": {"data": origin.data, "samples": origin.samples, "backend": origin.backend},
        "holdout": options.holdout,
        "type": options.type.value,
        "rules": [rule.name for rule in as_rules(options.rules)],
        "repairs": list(options.repairs),
        "policy": options.policy.value,
        "include": list(options.include),
        "exclude": list(options.exclude),
        "max_float": options.most,
        "max_evaluations": options.evaluations,
        "metrics": list(options.metrics),
        **speed_provenance(options),
        "report": dict(report.provenance),
    }

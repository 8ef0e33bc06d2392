"""The search by time inside the accuracy budget, from the configuration that the search by accuracy chose.

Its rule, repairs and float layers are kept; what changes is which of the other nodes are INT8, so that the engine is
fast. Each engine that beats FP16 is evaluated on the tuning part, the fastest first, as it will run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit.artifact import write_whole
from quantkit.calibration.tables import header_for, make_tables
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.rewrites.fp16 import convert_to_fp16
from quantkit.rules import parse_rule
from quantkit.table import table_bytes
from quantkit.tensorrt_version import target_version
from quantkit.tuning.candidates import CandidateFactory
from quantkit.tuning.figure import Figure
from quantkit.tuning.metric_trials import MetricTrials, loss_of
from quantkit.tuning.options import TuneOptions
from quantkit.tuning.result import FrontPoint, Tuning
from quantkit.tuning.search import SearchResult
from quantkit.tuning.speed.candidate import EngineKind, SpeedCandidate, SpeedPlacement
from quantkit.tuning.speed.engine_choice import Objective, choose_candidate, gaining_candidates, is_inside
from quantkit.tuning.speed.lab import EngineLab, TensorrtLab
from quantkit.tuning.speed.result import SpeedTuning
from quantkit.tuning.speed.tune import search_speed
from quantkit.tuning.trial import Recipe, Trial, TrialStatus

if TYPE_CHECKING:
    import onnx

    from quantkit.evaluation.result import Evaluation
    from quantkit.graph import Model

FP16_ENGINE, CHOSEN_ENGINE = "FP16 engine", "tuned engine"


def open_lab(
    source: Model, folder: Path, options: TuneOptions, phase: Callable[[str], None], held: ExitStack
) -> EngineLab:
    """Return TensorRT on the GPU of this machine, with its kernels loaded as long as `held` is open. BackendError."""
    return held.enter_context(TensorrtLab(source, folder, options.speed.lab, phase).ready())


class RecipeNetworks:
    """The networks of candidates, quantized as a recipe says; the table lies in `folder`."""

    def __init__(self, factory: CandidateFactory, base: Recipe, folder: Path) -> None:
        self._factory, self._base, self._folder = factory, base, folder
        self._plain: onnx.ModelProto | None = None

    def plain(self, *, half: bool) -> onnx.ModelProto:
        """Return the cleaned float network; half: converted to FP16."""
        source = self._factory.source.model
        if self._plain is None:
            self._plain = fold_batch_norms(source).proto
        return convert_to_fp16(replace(source, proto=self._plain)).proto if half else self._plain

    def original(self) -> onnx.ModelProto:
        """Return the float network as it was given."""
        return self._factory.source.model.proto

    def table(self) -> Path:
        """Write the calibration table, and return its path."""
        source, rule = self._factory.source, parse_rule(self._base.rule)
        path = self._folder / f"{source.model.path.stem}.tuned.calib"
        header = header_for(rule, target_version(None).number, None)
        write_whole(path, table_bytes(make_tables(source.statistics, {rule: header})[rule.name]))
        return path

    def excluded(self) -> tuple[str, ...]:
        """Return the nodes that are float in every candidate, or their patterns."""
        return (*self._factory.source.options.exclude, *self._base.kept)

    def quantized(self, placement: SpeedPlacement, *, half: bool) -> onnx.ModelProto:
        """Return the Q/DQ network of a placement."""
        return self._factory.quantization(self.recipe(placement), half=half).proto

    def recipe(self, placement: SpeedPlacement) -> Recipe:
        """Return the recipe of a placement: that of the base, with more nodes in float."""
        more = tuple(node for node in placement.kept if node not in self._base.kept)
        own = self._factory.source.options.policy
        return replace(
            self._base,
            kept=(*self._base.kept, *more),
            policy=None if placement.policy is own else placement.policy,
        )


@dataclass(slots=True)
class BudgetChoice:
    """Chooses among timed engines inside the budget, and evaluates no more of them than needed.

    most: evaluations that are allowed.
    """

    trials: MetricTrials
    objective: Objective
    max_drop: float
    most: int
    phase: Callable[[str], None]

    def choose(self, candidates: Sequence[SpeedCandidate]) -> tuple[Sequence[SpeedCandidate], SpeedCandidate | None]:
        """Return the candidates with what they lose, as far as that was measured, and the chosen one."""
        found = {c.name: self._loss(c) for c in candidates if c.kind is EngineKind.FP16 and c.engine is not None}
        for item in gaining_candidates(candidates):
            candidate = item.candidate
            figure = self._loss(candidate)
            if figure is None:
                break
            found[candidate.name] = figure
            inside = is_inside(replace(candidate, figure=figure), self.max_drop)
            if inside and candidate.kind is EngineKind.QDQ and self.objective is Objective.LATENCY:
                break
        known = [replace(c, figure=found.get(c.name)) for c in candidates]
        measured = [c for c in known if c.kind is EngineKind.FP16 or c.figure is not None]
        return known, choose_candidate(measured, self.objective, self.max_drop)

    def _loss(self, candidate: SpeedCandidate) -> Figure | None:
        """Return what an engine loses on the tuning part; None if no evaluation is left."""
        if self.trials.evaluations >= self.most or candidate.engine is None:
            return None
        self.phase(f"evaluating the engine {candidate.name}")
        evaluation = self.trials.evaluation({candidate.name: candidate.engine})
        return loss_of(evaluation, evaluation.models[1])


@dataclass(frozen=True, slots=True)
class TimedSearch:
    """The result of a search by time. trial: the chosen Q/DQ configuration; None where no pairs are chosen."""

    tuning: SpeedTuning
    trial: Trial | None


def search_latency(
    factory: CandidateFactory,
    base: Trial,
    choice: BudgetChoice,
    options: TuneOptions,
    place: tuple[Path, EngineLab],
) -> TimedSearch:
    """Search by time from the configuration `base`. place: the folder of models and engines, and the GPU.

    Raises the errors of `build`, BackendError where the FP16 engine cannot be built or timed.
    """
    folder, lab = place
    networks = RecipeNetworks(factory, base.recipe, folder)
    source = factory.source.model
    found = search_speed(
        source, networks, lab, options.speed, choose=choice.choose, objective=options.objective, phase=choice.phase
    )
    chosen = found.chosen
    if chosen.kind is not EngineKind.QDQ:
        return TimedSearch(found, None)
    recipe = networks.recipe(chosen.placement)
    if recipe == base.recipe:
        return TimedSearch(found, base)
    trial = Trial(recipe, "time", chosen.why, TrialStatus.MET, figure=chosen.figure,
                  floats=factory.weights_in_float(recipe))  # fmt: skip
    return TimedSearch(found, trial)


def speed_front(found: SpeedTuning, drops: dict[str, float]) -> tuple[FrontPoint, ...]:
    """Return the timed engines by their latency at the largest batch. drops: candidate → loss on the held-out part."""
    batch = max(found.batches)
    timed = [c for c in found.candidates if batch in c.times]
    points = [
        FrontPoint(
            name=candidate.name,
            precision="fp16" if candidate.kind is EngineKind.FP16 else "int8",
            drop=drops.get(candidate.name),
            milliseconds=candidate.times[batch].median,
            chosen=candidate is found.chosen,
        )
        for candidate in timed
    ]
    return tuple(sorted(points, key=lambda point: point.milliseconds))


def with_trial(found: SearchResult, trial: Trial | None) -> SearchResult:
    """Return a search with the trial of a search by time as the chosen one, if there is one."""
    if trial is None or trial in found.trials:
        return found
    return replace(found, trials=(*found.trials, trial), chosen=trial, held=True)


def evaluate_engines_held_out(
    factory: CandidateFactory,
    metric_trials: MetricTrials,
    found: SearchResult,
    timed: SpeedTuning,
    max_drop: float,
    untuned: str,
) -> Evaluation:
    """Evaluate the float network, the first trial, the FP16 engine and the chosen engine on the held-out part.

    untuned: the name of the first trial there.
    """
    chosen, reference = timed.chosen.engine, timed.reference.engine
    assert chosen is not None, "bug in quantkit: an engine was chosen that was not built"
    floats = {} if chosen == reference or reference is None else {FP16_ENGINE: reference}
    first = {untuned: factory.model(found.trials[0].recipe)}
    return metric_trials.evaluation({**first, **floats, CHOSEN_ENGINE: chosen}, max_drop)


def with_speed(made: Tuning, timed: SpeedTuning) -> Tuning:
    """Return the result with that of the search by time, whose engines are the Pareto front."""
    scores = {score.name: loss_of(made.report, score).drop for score in made.report.candidates}
    labels = {timed.reference.name: FP16_ENGINE, timed.chosen.name: CHOSEN_ENGINE}
    drops = {name: scores[label] for name, label in labels.items() if label in scores}
    return replace(
        made,
        speed=timed,
        front=speed_front(timed, drops),
        machine=timed.machine,
        notes=(*made.notes, *timed.notes),
    )


def speed_provenance(options: TuneOptions) -> Mapping[str, Any]:
    """Return the options of the search by time; empty for the objective accuracy."""
    if options.objective is Objective.ACCURACY:
        return {}
    chosen = options.speed
    return {
        "objective": options.objective.value,
        "batches": list(chosen.batches),
        "tune_time": chosen.minutes,
        "level": chosen.level,
    }


def chosen_float(source: Model, made: Tuning) -> onnx.ModelProto | None:
    """Return the cleaned float network if FP16 was chosen, with FP16 in the graph for TensorRT 11."""
    if made.speed is None or made.speed.chosen.kind is not EngineKind.FP16:
        return None
    plain = fold_batch_norms(source).proto
    return convert_to_fp16(replace(source, proto=plain)).proto if made.speed.half else plain

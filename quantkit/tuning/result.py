"""The result of tuning: all trials, the chosen one, and its accuracy on samples that were never used to choose.

Tuning                 a network, its trials, the chosen one, the figures on the held-out part
└── Trial              one configuration: rule, repairs, layers kept float; the reason for it; what it loses
    └── Figure         the metric and its loss with a 95 % interval
FrontPoint             a precision with its loss and latency, if engines were built
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from quantkit.evaluation.result import Evaluation
from quantkit.metrics.registry import metric_title
from quantkit.numerics import format_db
from quantkit.qdq.placement import Policy
from quantkit.repairs.registry import REPAIR_NAMES
from quantkit.sensitivity.result import LayerError
from quantkit.tuning.figure import Figure
from quantkit.tuning.speed.candidate import EngineKind
from quantkit.tuning.speed.result import SpeedTuning
from quantkit.tuning.type_mix import LayerTypes
from quantkit.values import NetworkType
from quantkit.view import Block, Remarks, SavableDisplay, ViewTable, true_minus

FORMAT = 1
AGREEMENT = "agreement"
"""The metric used without labels: the fraction of samples on which a candidate predicts what the float network does."""


class TrialStatus(Enum):
    """How a trial ended."""

    MET = "within the budget"
    TOO_CLOSE = "too close to the budget"
    """Within the budget, but not with a standard error to spare."""
    OVER = "over the budget"
    SKIPPED = "not evaluated"
    """The proxy gave no reason to evaluate it."""
    NO_EVALUATION_LEFT = "not evaluated: no evaluations left"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One configuration of quantization.

    kept: nodes that stay float in addition to those that the caller excluded, worst first. policy: None for the
    caller's. fp8: nodes that are FP8 while the others are INT8, those that save most first.
    """

    rule: str
    repairs: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    policy: Policy | None = None
    fp8: tuple[str, ...] = ()

    def keeping(self, nodes: Sequence[str]) -> Recipe:
        """Return the recipe with these nodes in float, and no others; they are not FP8 then."""
        return replace(self, kept=tuple(nodes), fp8=tuple(node for node in self.fp8 if node not in nodes))

    def text(self) -> str:
        """Return for example `mse, bias, 2 FP8, 3 float`."""
        fp8 = f"{len(self.fp8)} FP8" if self.fp8 else ""
        kept = f"{len(self.kept)} float" if self.kept else ""
        parts = [self.rule, self.repairs_text(), fp8, kept, f"policy {self.policy.value}" if self.policy else ""]
        return ", ".join(part for part in parts if part)

    def repairs_text(self) -> str:
        """Return for example `round+bias`, `all repairs`, or an empty text."""
        return "all repairs" if set(self.repairs) == set(REPAIR_NAMES) else "+".join(self.repairs)


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration that was considered.

    step: the step of the search that proposed it. why: the reason for trying it. status: how it ended. proxy_db: SQNR
    of the outputs on a few calibration samples; nan if it was not measured. figure: on the tuning part; None if it was
    not evaluated. floats: fraction of the weights that stay float because of `kept`. detail: more about the status.
    """

    recipe: Recipe
    step: str
    why: str
    status: TrialStatus
    proxy_db: float = math.nan
    figure: Figure | None = None
    floats: float = 0.0
    detail: str = ""

    @property
    def outcome(self) -> str:
        """How the trial ended, in words."""
        return f"{self.status.value}: {self.detail}" if self.detail else self.status.value


@dataclass(frozen=True, slots=True)
class RankingBasis:
    """The basis of a layer ranking: the recipe, the SQNR of its outputs in dB, and the number of samples for both."""

    recipe: Recipe
    db: float
    samples: int


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A precision on a GPU, as one point of the Pareto front.

    drop: loss of its engine on the held-out part; None if it was not evaluated. chosen: it is the recommended one: the
    simplest of those that are as fast as the fastest within the budget. types: layer → its type, of a Q/DQ network.
    """

    name: str
    precision: str
    drop: float | None
    milliseconds: float
    chosen: bool = False
    types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tuning(SavableDisplay):
    """The result of tuning.

    layers: number of layers quantized if none is kept float. chosen: the selected trial. held: the selected trial met
    the budget on the tuning part with a standard error to spare. report: the float network, the untuned and the tuned
    one on the held-out part. reference: the float network's metric there. untuned, tuned: the losses there of the first
    trial and of the selected one. evaluations: number of evaluations of one network on one part.
    """

    model: str
    metric: str
    share: bool
    max_drop: float
    layers: int
    reference: float
    trials: tuple[Trial, ...]
    chosen: Trial
    held: bool
    report: Evaluation
    untuned: Figure
    tuned: Figure
    samples: tuple[int, int]
    """Samples in the tuning part and in the held-out part."""
    evaluations: int
    ranking: tuple[LayerError, ...]
    """Layers in the order of the ranking, worst first; empty if no layer had to be kept float."""
    rules: Mapping[str, str]
    """Quantized activation → the rule behind its scale, if `best` chose one for each."""
    front: tuple[FrontPoint, ...]
    """Engines in the order of their latency, measured on the GPU `machine`."""
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]
    seconds: float
    files: tuple[Path, ...] = field(default=())
    ranked: RankingBasis | None = None
    """The basis of `ranking`; None if no layer had to be kept float."""
    excluded: tuple[str, ...] = ()
    """Nodes that stay float because the caller excluded them."""
    machine: str = ""
    speed: SpeedTuning | None = None
    """The search by time; None for the objective accuracy."""
    type: NetworkType = NetworkType.INT8
    """What layers may be quantized to."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Operator → int8, fp8, or float where it has weights, in the chosen network."""
    type_counts: tuple[int, int, int] = (0, 0, 0)
    """Operators with weights in INT8, in FP8 and in float."""
    layer_types: tuple[LayerTypes, ...] = ()
    """Layers in both types; empty unless both may be used and INT8 alone missed the budget."""

    @property
    def types_text(self) -> str:
        """Return for example `11 INT8, 2 FP8, 1 float`."""
        return ", ".join(
            f"{count} {kind}" for count, kind in zip(self.type_counts, ("INT8", "FP8", "float"), strict=True)
        )

    @property
    def network_type(self) -> NetworkType:
        """The type of the chosen network: by what it holds, where layers could have either type."""
        if self.type is not NetworkType.MIXED:
            return self.type
        if not self.chosen.recipe.fp8:
            return NetworkType.INT8
        return NetworkType.MIXED if "int8" in self.types.values() else NetworkType.FP8

    @property
    def within_budget(self) -> bool:
        """True if the loss on the held-out part is within the budget."""
        return self.tuned.drop <= self.max_drop

    @property
    def unit(self) -> str:
        """` percentage points` if the metric is a fraction, else empty."""
        return " percentage points" if self.share else ""

    @property
    def budget(self) -> str:
        """The budget as text: `0.5 percentage points`, `1 percentage point`, `0.01`."""
        return f"{self.max_drop:g}{' percentage point' if self.share and self.max_drop == 1 else self.unit}"

    @property
    def verdict(self) -> str:
        """Sentences: what was chosen, what it loses on the held-out part, and whether that is within the budget."""
        if self.speed is not None:
            return f"{self.speed.verdict} {self.loss_sentence()}"
        recipe, tuned = self.chosen.recipe, self.tuned
        stays = self.layers_text
        untuned = "" if recipe == self.trials[0].recipe else f"; without tuning it {loss_text(self.untuned.drop)}"
        title, place = metric_title(self.metric), f"on {self.samples[1]:,} held-out samples"
        kept = two_decimals(abs(tuned.drop)) == two_decimals(0.0)
        lost = f"keeps the {title} of the float network" if kept else f"{loss_text(tuned.drop)}{self.unit} of {title}"
        how = f"{recipe.rule}, {recipe.repairs_text() or 'no repairs'}, {stays}"
        found = f"{how}: {lost} {place}{self.interval(tuned)}{untuned}"
        inside = f"This is {'within' if self.within_budget else 'over'} the budget of {self.budget}"
        return f"{found}. {inside}{self.doubt}."

    @property
    def layers_text(self) -> str:
        """Return what layers are: `all layers quantized`, `2 of 18 layers in float`, `all layers in FP8`."""
        recipe, word = self.chosen.recipe, self.network_type.value.upper()
        kept = f"{len(recipe.kept)} of {self.layers} layers in float" if recipe.kept else ""
        if recipe.fp8:
            return "; ".join(filter(None, (f"operators with weights: {self.types_text}", kept)))
        except_for = " except the excluded ones" if self.excluded else ""
        if self.type is NetworkType.INT8:
            return kept or f"all layers quantized{except_for}"
        return f"{kept}, the others in {word}" if kept else f"all layers in {word}{except_for}"

    def loss_sentence(self) -> str:
        """Return what the chosen engine loses on the held-out part, and whether that is within the budget."""
        title, place = metric_title(self.metric), f"on {self.samples[1]:,} held-out samples"
        kept = two_decimals(abs(self.tuned.drop)) == two_decimals(0.0)
        what = f"keeps the {title}" if kept else f"{loss_text(self.tuned.drop)}{self.unit} of {title}"
        inside = "within" if self.within_budget else "over"
        lost = f"It {what} of the float network" if kept else f"It {what}"
        return f"{lost} {place}{self.interval(self.tuned)}, {inside} the budget of {self.budget}{self.doubt}."

    @property
    def deployment(self) -> Mapping[str, Any]:
        """How to build the engine: its precision, and the names of the files; the model is None for the float network
        that was tuned, which a table belongs to. exclude: the nodes that a table's engine keeps float."""
        stem = Path(self.model).stem
        if self.speed is None or self.speed.chosen.kind is EngineKind.QDQ:
            return {"precision": "int8", "model": f"{stem}.{self.network_type.value}.onnx", "table": None}
        if self.speed.chosen.kind is EngineKind.TABLE:
            kept = [*self.excluded, *self.chosen.recipe.kept]
            return {"precision": "int8", "model": None, "table": f"{stem}.calib", "exclude": kept}
        return {"precision": "fp16", "model": f"{stem}.fp16.onnx", "table": None}

    @property
    def doubt(self) -> str:
        """The end of the verdict: how far the held-out figure can be relied on, or why the budget is missed."""
        if self.within_budget:
            if self.report.doubts:
                return f", but the figures are in doubt: {'; '.join(self.report.doubts)}"
            if not self.held:
                return ", but on the tuning part it was over the budget or too close to it: do not rely on it"
            return ", but not conclusively: evaluate more samples" if self.tuned.high > self.max_drop else ""
        if self.held:
            return ", although it was within the budget on the tuning part: evaluate more samples"
        if any(trial.status is TrialStatus.NO_EVALUATION_LEFT for trial in self.trials):
            return ": the evaluations ran out before everything allowed had been tried (--max-evaluations)"
        return ": none of the allowed configurations meets it"

    def interval(self, figure: Figure) -> str:
        """Return ` (95 % interval of the drop: −0.10 … 0.30)`."""
        ends = f"{two_decimals(figure.low)} … {two_decimals(figure.high)}"
        return "" if math.isnan(figure.low) else f" (95 % interval of the drop: {ends})"

    def _view_(self) -> Sequence[Block]:
        head = ("step", "rule, repairs, layers", "SQNR dB", "drop", "95 % interval", "outcome")
        recipe = self.chosen.recipe
        kept = [f"in FP8: {', '.join(recipe.fp8)}"] if recipe.fp8 else []
        kept += [f"kept in float: {', '.join(recipe.kept)}"] if recipe.kept else []
        budget = f"a loss of at most {self.budget} of {metric_title(self.metric)}"
        return (
            f"{self.model}, tuned on {self.samples[0]:,} samples: {budget}",
            ViewTable(head, [trial_cells(trial) for trial in self.trials], frozenset({0, 1, 5})),
            *([] if self.speed is None else [self.speed.table()]),
            Remarks([self.verdict, *kept, *self.notes]),
        )


def loss_text(drop: float) -> str:
    """Return for example `loses 0.12` or `gains 0.30`."""
    return f"{'gains' if round(drop, 2) < 0 else 'loses'} {two_decimals(abs(drop))}"


def two_decimals(value: float) -> str:
    """Format with two decimals and a true minus sign, but none before zero."""
    return true_minus(f"{value:.2f}")


def trial_cells(trial: Trial) -> tuple[str, ...]:
    """Return step, recipe, proxy, drop, interval and outcome of a trial as text."""
    figure = trial.figure
    return (
        trial.step,
        trial.recipe.text(),
        "" if math.isnan(trial.proxy_db) else format_db(trial.proxy_db).removesuffix(" dB"),
        "" if figure is None else two_decimals(figure.drop),
        "" if figure is None or math.isnan(figure.low) else f"{two_decimals(figure.low)} … {two_decimals(figure.high)}",
        trial.outcome,
    )


def tuning_document(tuning: Tuning, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result as JSON values, with null for figures that are infinite or were not measured.

    report: the JSON document of the evaluation on the held-out part.
    """
    made = {
        "format": FORMAT,
        "model": tuning.model,
        "metric": tuning.metric,
        "max_drop": tuning.max_drop,
        "within_budget": tuning.within_budget and not tuning.report.doubts,
        "held_on_tuning_part": tuning.held,
        "verdict": tuning.verdict,
        "samples": {"tuning": tuning.samples[0], "holdout": tuning.samples[1]},
        "layers": tuning.layers,
        "type": tuning.type.value,
        "types": dict(tuning.types),
        "type_counts": dict(zip(("int8", "fp8", "float"), tuning.type_counts, strict=True)),
        "layer_types": [layer.document for layer in tuning.layer_types],
        "evaluations": tuning.evaluations,
        "reference": tuning.reference,
        "chosen": trial_document(tuning.chosen),
        "untuned": asdict(tuning.untuned),
        "tuned": asdict(tuning.tuned),
        "trials": [trial_document(trial) for trial in tuning.trials],
        "ranking": [asdict(layer) for layer in tuning.ranking],
        "rules": dict(tuning.rules),
        "ranked_on": None if tuning.ranked is None else ranking_basis_document(tuning.ranked),
        "excluded": list(tuning.excluded),
        "machine": tuning.machine,
        "front": [asdict(point) for point in tuning.front],
        "speed": None if tuning.speed is None else tuning.speed.document(),
        "deploy": dict(tuning.deployment),
        "holdout": report,
        "notes": list(tuning.notes),
        "provenance": dict(tuning.provenance),
        "seconds": round(tuning.seconds, 3),
        "files": [path.name for path in tuning.files],
    }
    return {key: without_infinities(value) for key, value in made.items()}


def ranking_basis_document(found: RankingBasis) -> dict[str, Any]:
    """Return the basis of the ranking as JSON values."""
    recipe = found.recipe
    return {
        "rule": recipe.rule,
        "repairs": list(recipe.repairs),
        "proxy_db": found.db,
        "samples": found.samples,
    }


def trial_document(trial: Trial) -> dict[str, Any]:
    """Return a trial as JSON values."""
    return {
        "step": trial.step,
        "why": trial.why,
        "outcome": trial.outcome,
        "rule": trial.recipe.rule,
        "repairs": list(trial.recipe.repairs),
        "kept": list(trial.recipe.kept),
        "fp8": list(trial.recipe.fp8),
        "policy": trial.recipe.policy.value if trial.recipe.policy else None,
        "weights_in_float": trial.floats,
        "proxy_db": trial.proxy_db,
        "metric": trial.figure.metric if trial.figure else None,
        "drop": trial.figure.drop if trial.figure else None,
        "interval": [trial.figure.low, trial.figure.high] if trial.figure else None,
    }


def without_infinities(value: Any) -> Any:
    """Return the JSON value with null in place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: without_infinities(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [without_infinities(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

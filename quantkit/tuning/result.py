"""The result of tuning: all trials, the chosen one, and its accuracy on samples that were never used to choose.

Tuning                 a network, its trials, the chosen one, the figures on the held-out part
└── Trial              one configuration: rule, repairs, layers kept float; the reason for it; what it loses
    └── Figure         the metric and its loss with a 95 % interval
FrontPoint             a precision with its loss and latency, if engines were built
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantkit.evaluation.result import Evaluation
from quantkit.metrics.registry import metric_title
from quantkit.numerics import format_db
from quantkit.sensitivity.result import LayerError
from quantkit.tuning.figure import Figure
from quantkit.tuning.speed.candidate import EngineKind
from quantkit.tuning.speed.result import SpeedTuning
from quantkit.tuning.trial import RankingBasis, Trial, TrialStatus
from quantkit.tuning.type_mix import LayerTypes
from quantkit.values import NetworkType
from quantkit.view import Block, Remarks, SavableDisplay, ViewTable, true_minus

AGREEMENT = "agreement"
"""The metric used without labels: the fraction of samples on which a candidate predicts what the float network does."""


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

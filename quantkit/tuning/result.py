"""What tuning finds: every trial in the order in which it was made, the one that was chosen, and what it is worth on
samples that had no part in the choice.

    Tuning                 a network, its trials, the chosen one, the figures on the held-out part
    └── Trial              one way to quantize: rule, repairs, layers kept float; why; what it loses
        └── Figure         the metric, its loss with a 95 % interval
    Point                  a precision: loss and latency, where engines were built
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quantkit.evaluation.result import Evaluation
from quantkit.numerics import format_db
from quantkit.repairs.registry import REPAIR_NAMES
from quantkit.sensitivity.result import LayerError
from quantkit.view import Block, Remarks, RichDisplay, ViewTable

FORMAT = 1
NONE_LEFT = "no evaluation is left"
"""What followed for a trial that was worth an evaluation, where all were used up."""
AGREEMENT = "agreement"
"""The metric where there are no labels: the share of samples with the float network's answer."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The metric of a trial, and what it loses: in points where the metric is a share, 95 % from low to high.

    error: standard error of the loss, 0 where nothing tells.
    """

    metric: float
    drop: float
    low: float
    high: float
    error: float

    @property
    def careful(self) -> float:
        """The loss and one standard error more: other samples show less than this five times out of six."""
        return self.drop + self.error


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to quantize. kept: nodes that stay float besides those that the caller excluded, worst first."""

    rule: str
    repairs: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def text(self) -> str:
        """`mse, bias, 3 float`."""
        parts = [self.rule, self.repairs_text(), f"{len(self.kept)} float" if self.kept else ""]
        return ", ".join(part for part in parts if part)

    def repairs_text(self) -> str:
        """`round+bias`, `all repairs`, or nothing."""
        return "all repairs" if set(self.repairs) == set(REPAIR_NAMES) else "+".join(self.repairs)


@dataclass(frozen=True, slots=True)
class Trial:
    """One way that was tried. step: what it was tried as. why: the reason; outcome: what followed from it.

    proxy_db: SQNR of the outputs on a few calibration samples; nan where it was not measured. figure: on the tuning
    part; None where the proxy was enough to leave it. floats: share of the weights that stay float because of `kept`.
    """

    recipe: Recipe
    step: str
    why: str
    outcome: str
    proxy_db: float = math.nan
    figure: Figure | None = None
    floats: float = 0.0


@dataclass(frozen=True, slots=True)
class RankingBasis:
    """What the layers were ranked on: the recipe, the SQNR of its outputs in dB, and the samples of both."""

    recipe: Recipe
    db: float
    samples: int


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A precision on a GPU. drop: of its engine on the held-out part; None where it was not evaluated.

    chosen: whether it is the one to take: the simplest of those as fast as the fastest that holds the budget.
    """

    name: str
    precision: str
    drop: float | None
    milliseconds: float
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Tuning(RichDisplay):
    """What tuning found.

    layers: how many are quantized where nothing is kept. chosen: the trial that was taken. held: whether it holds the
    budget on the tuning part, with a standard error to spare. report: float network, untuned and tuned, on the held-out
    part. reference: the float network's metric there; untuned, tuned: the first trial and the chosen one. evaluations:
    of a network on a part, all of them counted.
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
    """Of the tuning part and of the held-out part."""
    evaluations: int
    ranking: tuple[LayerError, ...]
    """Layers as they were ranked, worst first; empty where no layer had to be kept."""
    rules: Mapping[str, str]
    """Quantized activation → the rule of its scale, where `best` chose one for each."""
    front: tuple[FrontPoint, ...]
    """Engines by latency; machine: the GPU that they were timed on."""
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]
    seconds: float
    files: tuple[Path, ...] = field(default=())
    ranked: RankingBasis | None = None
    """What `ranking` is on; None where no layer had to be kept."""
    excluded: tuple[str, ...] = ()
    """Nodes that stay float because the caller excluded them."""
    machine: str = ""

    @property
    def within_budget(self) -> bool:
        """Whether the loss on the held-out part is within the budget."""
        return self.tuned.drop <= self.max_drop

    @property
    def unit(self) -> str:
        """` points` where the metric is a share."""
        return " points" if self.share else ""

    @property
    def budget(self) -> str:
        """`0.5 points`, `1 point`, `0.01`."""
        return f"{self.max_drop:g}{' point' if self.share and self.max_drop == 1 else self.unit}"

    @property
    def verdict(self) -> str:
        """What was chosen, what it loses on the held-out part, and whether that is in the budget."""
        recipe, tuned = self.chosen.recipe, self.tuned
        whole = "everything quantized" + (" but what is excluded" if self.excluded else "")
        stays = f"{len(recipe.kept)} of {self.layers} layers in float" if recipe.kept else whole
        untuned = "" if recipe == self.trials[0].recipe else f"; untuned it {loss_text(self.untuned.drop)}"
        lost = f"{loss_text(tuned.drop)}{self.unit} of {self.metric} on {self.samples[1]:,} held-out samples"
        found = (
            f"{recipe.rule}, {recipe.repairs_text() or 'no repairs'}, {stays}: {lost}{self.interval(tuned)}{untuned}"
        )
        inside = f"That is {'within' if self.within_budget else 'over'} the budget of {self.budget}"
        return f"{found}. {inside}{self.doubt}."

    @property
    def doubt(self) -> str:
        """How far the held-out figure can be relied on, and why the budget is missed."""
        if self.within_budget:
            if not self.held:
                return ", but on the tuning part it was over it or too near: do not rely on it"
            return "" if not self.tuned.high > self.max_drop else ", but perhaps by chance: more samples would tell"
        if self.held:
            return ", although the tuning part held it: measure on more samples"
        if any(trial.outcome.endswith(NONE_LEFT) for trial in self.trials):
            return ": the evaluations ran out before all that is allowed was tried (--max-evaluations)"
        return ": nothing that was allowed holds it"

    def interval(self, figure: Figure) -> str:
        """` (95 %: −0.1 … 0.3)`, of what is gained where that is a gain."""
        low, high = (-figure.high, -figure.low) if round(figure.drop, 2) < 0 else (figure.low, figure.high)
        return "" if math.isnan(figure.low) else f" (95 %: {two_decimals(low)} … {two_decimals(high)})"

    def _view_(self) -> Sequence[Block]:
        head = ("step", "rule, repairs, layers", "SQNR dB", "drop", "95 % interval", "outcome")
        kept = [f"in float: {', '.join(self.chosen.recipe.kept)}"] if self.chosen.recipe.kept else []
        budget = f"at most {self.budget} of {self.metric} lost"
        return (
            f"{self.model}, tuned on {self.samples[0]:,} samples: {budget}",
            ViewTable(head, [trial_cells(trial) for trial in self.trials], frozenset({0, 1, 5})),
            Remarks([self.verdict, *kept, *self.notes]),
        )


def loss_text(drop: float) -> str:
    """`loses 0.12`, `gains 0.30`."""
    return f"{'gains' if round(drop, 2) < 0 else 'loses'} {two_decimals(abs(drop))}"


def two_decimals(value: float) -> str:
    """Two decimals, a true minus sign, none before zero."""
    text = f"{value:.2f}"
    return text.replace("-", "−") if text.strip("-0.") else text.lstrip("-")


def trial_cells(trial: Trial) -> tuple[str, ...]:
    """step, recipe, proxy, drop, interval, outcome as text."""
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
    """JSON values; null where a figure is infinite or was not measured. report: the evaluation's own document."""
    made = {
        "format": FORMAT,
        "model": tuning.model,
        "metric": tuning.metric,
        "max_drop": tuning.max_drop,
        "within_budget": tuning.within_budget,
        "held_on_tuning_part": tuning.held,
        "verdict": tuning.verdict,
        "samples": {"tuning": tuning.samples[0], "holdout": tuning.samples[1]},
        "layers": tuning.layers,
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
        "holdout": report,
        "notes": list(tuning.notes),
        "provenance": dict(tuning.provenance),
        "seconds": round(tuning.seconds, 3),
        "files": [path.name for path in tuning.files],
    }
    return {key: without_infinities(value) for key, value in made.items()}


def ranking_basis_document(found: RankingBasis) -> dict[str, Any]:
    """What layers were ranked on."""
    recipe = found.recipe
    return {
        "rule": recipe.rule,
        "repairs": list(recipe.repairs),
        "proxy_db": found.db,
        "samples": found.samples,
    }


def trial_document(trial: Trial) -> dict[str, Any]:
    """One trial."""
    return {
        "step": trial.step,
        "why": trial.why,
        "outcome": trial.outcome,
        "rule": trial.recipe.rule,
        "repairs": list(trial.recipe.repairs),
        "kept": list(trial.recipe.kept),
        "weights_in_float": trial.floats,
        "proxy_db": trial.proxy_db,
        "metric": trial.figure.metric if trial.figure else None,
        "drop": trial.figure.drop if trial.figure else None,
        "interval": [trial.figure.low, trial.figure.high] if trial.figure else None,
    }


def without_infinities(value: Any) -> Any:
    """The value with null where JSON has no number."""
    if isinstance(value, Mapping):
        return {key: without_infinities(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [without_infinities(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

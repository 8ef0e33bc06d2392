"""The search of `tune`: the cheapest way first, and the metric only where the proxy promises something.

    1  the first rule, everything quantized
    2  other rules, the best by the proxy first
    3  repairs, on the best rule: from statistics alone, then all
    4  layers kept float, worst first: as few as hold the budget, by bisection; then those that bring nothing go back

Everything but the last costs nothing at run time. The search ends at the first trial that holds the budget with one
standard error to spare: a loss that is chosen for being small is smaller than it will be on other samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from quantkit.errors import ModelError
from quantkit.numerics import format_db
from quantkit.repairs.registry import from_statistics_alone, without_rescaling
from quantkit.sensitivity.result import LayerError
from quantkit.tuning.candidates import CandidateFactory
from quantkit.tuning.metric_trials import MetricTrials, loss_of
from quantkit.tuning.result import NONE_LEFT, Figure, RankingBasis, Recipe, Trial

BETTER = 0.2
"""dB by which the proxy has to be better than that of what failed already: less is chance."""
RULES_TRIED = 2
"""Other rules that are evaluated at most: the best by the proxy."""
TAKEN_BACK = 3
"""Evaluations for layers that may bring nothing."""
IDLE = 0.3
"""dB that a kept layer has to bring."""


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """What may be tried. rules: the first is the default; repairs: in order; most: share of the layers that may stay
    float; evaluations: on the tuning part."""

    rules: tuple[str, ...]
    repairs: tuple[str, ...]
    max_drop: float
    most: float
    evaluations: int


@dataclass(frozen=True, slots=True)
class SearchResult:
    """How the search ended."""

    trials: tuple[Trial, ...]
    chosen: Trial
    held: bool
    layers: int
    ranking: tuple[LayerError, ...]
    ranked: RankingBasis | None
    notes: tuple[str, ...]


class Search:
    """One search. `run` may be called once."""

    def __init__(
        self, maker: CandidateFactory, judge: MetricTrials, limits: SearchLimits, phase: Callable[[str], None]
    ) -> None:
        self._maker, self._judge, self._limits, self._phase = maker, judge, limits, phase
        self._trials: list[Trial] = []
        self._notes: list[str] = []
        self._ranking: tuple[LayerError, ...] = ()
        self._ranked: RankingBasis | None = None

    def run(self) -> SearchResult:
        """Try, until something holds. Errors of `quantize` and `evaluate`."""
        self._held() or self._by_rules() or self._by_repairs() or self._by_layers()
        held = [trial for trial in self._trials if trial.figure is not None and self._holds(trial.figure)]
        judged = [trial for trial in self._trials if trial.figure is not None]
        chosen = min(held, key=trial_cost) if held else min(judged, key=lambda t: t.figure.careful if t.figure else 0.0)
        layers = len(self._maker.layers(Recipe(self._limits.rules[0])))
        return SearchResult(
            tuple(self._trials), chosen, bool(held), layers, self._ranking, self._ranked, tuple(self._notes)
        )

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _held(self) -> bool:
        """Everything quantized by the first rule."""
        first = Recipe(self._limits.rules[0])
        self._maker.measured([first])
        return self._try(first, "rule", "everything quantized by the first rule, no repairs")

    def _by_rules(self) -> bool:
        """Other rules, best by the proxy first."""
        first = Recipe(self._limits.rules[0])
        others = [Recipe(rule) for rule in self._limits.rules[1:]]
        noise = self._maker.measured([first, *others])
        tried, least = 0, noise[first] + BETTER
        for recipe in sorted(others, key=lambda r: -noise[r]):
            if noise[recipe] < least:
                self._pass_over(
                    recipe, "rule", f"{format_db(noise[recipe])}, {first.rule} has {format_db(noise[first])}"
                )
            elif tried >= RULES_TRIED:
                self._pass_over(recipe, "rule", f"{RULES_TRIED} better ones missed the budget")
            else:
                tried += 1
                if self._try(recipe, "rule", "less noise at the outputs than the first rule"):
                    return True
        return False

    def _by_repairs(self) -> bool:
        """Repairs on the rule with the least noise: cheap ones, then all, or all but those that scale channels."""
        base = self._least_noise()
        cheap = from_statistics_alone(self._limits.repairs)
        for repairs in dict.fromkeys(names for names in (cheap, self._most(base)) if names):
            recipe = replace(base, repairs=repairs)
            noise = self._maker.measured([recipe])[recipe]
            before = max(self._maker.proxies[t.recipe] for t in self._trials if t.figure is not None)
            if noise < before + BETTER:
                self._pass_over(recipe, "repair", f"{format_db(noise)}, {format_db(before)} without")
            elif self._try(recipe, "repair", f"{format_db(noise)} at the outputs, {format_db(before)} before"):
                return True
        return False

    def _most(self, base: Recipe) -> tuple[str, ...]:
        """All repairs, or those that scale no channels where that leaves less noise."""
        every = self._limits.repairs
        unscaled = without_rescaling(every)
        if not unscaled or unscaled == every:
            return every
        noise = self._maker.measured([replace(base, repairs=names) for names in (every, unscaled)])
        return max(noise, key=lambda recipe: noise[recipe]).repairs

    def _by_layers(self) -> bool:
        """Layers in float: the fewest of the ranking that hold the budget."""
        base = self._least_noise()
        layers = len(self._maker.layers(base))
        most = int(self._limits.most * layers)
        if most < 1:
            self._notes.append(f"{self._limits.most:.0%} of {layers} layers are none: no layer is kept in float")
            return False
        self._ranking, by, self._ranked = self._maker.ranking(base, most)
        self._notes.append(f"layers are ranked by {by}, on top of {base.text()}")
        nodes = [layer.node for layer in self._ranking]
        high = self._allowed(base, nodes, most, layers)
        if not high or not self._keep(base, nodes[:high], f"as many as are allowed: {high} of {layers} layers"):
            return False
        low = 0
        while high - low > 1 and self._left():
            middle = (low + high) // 2
            why = f"{low} are not enough, {high} are" if low else f"{high} are enough"
            low, high = (low, middle) if self._keep(base, nodes[:middle], why) else (middle, high)
        self._take_back(replace(base, kept=tuple(nodes[:high])))
        return True

    def _take_back(self, recipe: Recipe) -> None:
        """Quantize kept layers again, those first that bring least."""
        for _ in range(TAKEN_BACK):
            if len(recipe.kept) < 2 or not self._left():
                return
            self._phase("layers that bring nothing")
            bare = replace(recipe, repairs=())
            less = [replace(bare, kept=tuple(n for n in bare.kept if n != node)) for node in bare.kept]
            noise = self._maker.measured([bare, *less])
            best = max(less, key=lambda r: noise[r])
            gone = next(node for node in recipe.kept if node not in best.kept)
            if noise[best] < noise[bare] - IDLE:
                return
            shorter = replace(recipe, kept=best.kept)
            self._maker.measured([shorter])
            if not self._try(shorter, "take back", f"{gone} brings {noise[bare] - noise[best]:.1f} dB"):
                return
            recipe = shorter

    # ── what they share ─────────────────────────────────────────────────────────────────────────────────────────────

    def _allowed(self, base: Recipe, nodes: Sequence[str], most: int, layers: int) -> int:
        """How many of the ranking may be kept: operators around them may follow them into float."""
        for count in range(min(most, len(nodes)), 0, -1):
            try:
                left = len(self._maker.layers(replace(base, kept=tuple(nodes[:count]))))
            except ModelError:  # nothing is left to quantize
                continue
            if layers - left <= most:
                return count
        self._notes.append(f"keeping {nodes[0]} in float takes more than {most} layers along")
        return 0

    def _keep(self, base: Recipe, nodes: Sequence[str], why: str) -> bool:
        recipe = replace(base, kept=tuple(nodes))
        self._maker.measured([recipe])
        return self._try(recipe, "layers", why)

    def _try(self, recipe: Recipe, step: str, why: str) -> bool:
        """Evaluate a recipe on the tuning part."""
        if not self._left():
            self._pass_over(recipe, step, NONE_LEFT)
            return False
        self._phase(f"evaluating {recipe.text()}")
        evaluation = self._judge.evaluation({"INT8": self._maker.model(recipe)})
        found = loss_of(evaluation, evaluation.models[1])
        holds = self._holds(found)
        self._trials.append(
            Trial(
                recipe,
                step,
                why,
                self._outcome(found, holds),
                self._maker.proxies[recipe],
                found,
                self._maker.weights_in_float(recipe),
            )
        )
        return holds

    def _pass_over(self, recipe: Recipe, step: str, outcome: str) -> None:
        """A recipe that is left by its proxy."""
        self._trials.append(
            Trial(recipe, step, "", f"not evaluated: {outcome}", self._maker.proxies.get(recipe, float("nan")))
        )

    def _outcome(self, found: Figure, holds: bool) -> str:
        if holds:
            return "holds"
        return "too near the budget" if found.drop <= self._limits.max_drop else "over the budget"

    def _holds(self, found: Figure) -> bool:
        return found.careful <= self._limits.max_drop

    def _left(self) -> bool:
        return self._judge.evaluations < self._limits.evaluations

    def _least_noise(self) -> Recipe:
        """The recipe so far, nothing kept, that leaves the least noise."""
        return max(
            (t.recipe for t in self._trials if t.recipe in self._maker.proxies), key=self._maker.proxies.__getitem__
        )


def trial_cost(trial: Trial) -> tuple[int, float, float]:
    """Fewer layers in float, fewer weights in float, less loss."""
    return len(trial.recipe.kept), trial.floats, trial.figure.careful if trial.figure else 0.0

"""The search of `tune`: the cheapest configurations first; the metric is evaluated only if the proxy is promising.

    1  the first rule, all layers quantized
    2  other rules, the best by the proxy first
    3  repairs, on the best rule: first those that need statistics alone, then all
    4  with both types: FP8 for the layers that leave less noise in it (`type_mix`), in one evaluation
    5  layers kept float, worst first: by bisection as few as meet the budget; then the useless ones are quantized again

Only the last step costs float layers at run time. The search ends at the first trial that meets the budget with one
standard error to spare, because a loss that was selected for being small underestimates the loss on other samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from quantkit.errors import ModelError
from quantkit.numerics import format_db
from quantkit.quantization.rule_choice import CLEAR
from quantkit.repairs.registry import from_statistics_alone, without_rescaling
from quantkit.rules import kind_of, parse_rule
from quantkit.sensitivity.result import LayerError
from quantkit.tuning.candidates import CandidateFactory
from quantkit.tuning.figure import Figure
from quantkit.tuning.metric_trials import MetricTrials, loss_of
from quantkit.tuning.trial import RankingBasis, Recipe, Trial, TrialStatus
from quantkit.tuning.type_mix import LayerTypes, mixes_of

BETTER = 0.2
"""dB by which the proxy has to exceed that of the trials that failed: a smaller difference may be chance."""
RULES_TRIED = 2
"""Maximum number of other rules that are evaluated, the best by the proxy."""
REQUANTIZED = 3
"""Maximum number of evaluations spent on quantizing kept layers again."""
IDLE = 0.3
"""dB that a layer has to gain to stay float."""


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """Limits of the search.

    rules: the first is the default. mixes: layers may be FP8 in a network of INT8. repairs: in order. most: fraction of
    the layers that may stay float. evaluations: maximum number of evaluations on the tuning part.
    """

    rules: tuple[str, ...]
    repairs: tuple[str, ...]
    max_drop: float
    most: float
    evaluations: int
    mixes: bool = False


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search: all trials, the chosen one, and how the layers were ranked, if they were."""

    trials: tuple[Trial, ...]
    chosen: Trial
    held: bool
    layers: int
    ranking: tuple[LayerError, ...]
    ranked: RankingBasis | None
    notes: tuple[str, ...]
    layer_types: tuple[LayerTypes, ...] = ()


class Search:
    """A single search; `run` may be called once."""

    def __init__(
        self, factory: CandidateFactory, metric_trials: MetricTrials, limits: SearchLimits, phase: Callable[[str], None]
    ) -> None:
        self._factory, self._metric_trials, self._limits, self._phase = factory, metric_trials, limits, phase
        self._trials: list[Trial] = []
        self._notes: list[str] = []
        self._ranking: tuple[LayerError, ...] = ()
        self._ranked: RankingBasis | None = None
        self._layer_types: tuple[LayerTypes, ...] = ()
        self._types_asked = False
        self._mix: Recipe | None = None

    def run(self) -> SearchResult:
        """Try configurations until one meets the budget. Raises the errors of `quantize` and `evaluate`."""
        steps = (self._try_first_rule, self._try_rules, self._try_repairs, self._try_types, self._try_layers)
        any(step() for step in steps)
        held = [trial for trial in self._trials if trial.figure is not None and self._meets_budget(trial.figure)]
        judged = [trial for trial in self._trials if trial.figure is not None]
        chosen = min(held, key=trial_cost) if held else least_loss(judged)
        if self._limits.mixes and not self._types_asked:
            self._notes.append("INT8 is chosen: all layers in INT8 keep the budget, and FP8 was not tried")
        layers = len(self._factory.layers(Recipe(self._limits.rules[0])))
        return SearchResult(
            tuple(self._trials),
            chosen,
            bool(held),
            layers,
            self._ranking,
            self._ranked,
            tuple(self._notes),
            self._layer_types,
        )

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _try_first_rule(self) -> bool:
        """Quantize all layers with the first rule."""
        first = Recipe(self._limits.rules[0])
        self._factory.measure([first])
        return self._try(first, "rule", "all layers quantized with the first rule, no repairs")

    def _try_rules(self) -> bool:
        """Try the other rules, the best by the proxy first."""
        first = Recipe(self._limits.rules[0])
        others = [Recipe(rule) for rule in self._limits.rules[1:]]
        noise = self._factory.measure([first, *others])
        tried, least = 0, noise[first] + BETTER
        for recipe in sorted(others, key=lambda r: -noise[r]):
            if noise[recipe] < least:
                self._skip(
                    recipe, "rule", f"{format_db(noise[recipe])}, and {first.rule} has {format_db(noise[first])}"
                )
            elif tried >= RULES_TRIED:
                self._skip(recipe, "rule", f"{RULES_TRIED} better ones missed the budget")
            else:
                tried += 1
                if self._try(recipe, "rule", "less noise at the outputs than the first rule"):
                    return True
        return False

    def _try_repairs(self) -> bool:
        """Try repairs on the rule with the least noise: first those that need statistics alone, then all."""
        base = self._least_noise()
        cheap = from_statistics_alone(self._limits.repairs)
        for repairs in dict.fromkeys(names for names in (cheap, self._all_repairs(base)) if names):
            recipe = replace(base, repairs=repairs)
            noise = self._factory.measure([recipe])[recipe]
            before = max(self._factory.proxies[t.recipe] for t in self._trials if t.figure is not None)
            if noise < before + BETTER:
                self._skip(recipe, "repair", f"{format_db(noise)}, and {format_db(before)} without")
            elif self._try(recipe, "repair", f"{format_db(noise)} at the outputs, up from {format_db(before)}"):
                return True
        return False

    def _all_repairs(self, base: Recipe) -> tuple[str, ...]:
        """Return all repairs, or only those that do not rescale channels if that leaves less noise."""
        every = self._limits.repairs
        unscaled = without_rescaling(every)
        if not unscaled or unscaled == every:
            return every
        noise = self._factory.measure([replace(base, repairs=names) for names in (every, unscaled)])
        return max(noise, key=lambda recipe: noise[recipe]).repairs

    def _try_types(self) -> bool:
        """Quantize to FP8 the layers that leave less noise in it, if the network clearly does on unseen samples."""
        if not self._limits.mixes:
            return False
        self._types_asked = True
        least = self._least_noise()
        base = self._least_noise_in_both()
        if base is None:
            self._notes.append(f"FP8 was not tried: it has no rule of {', '.join(self._limits.rules)}")
            return False
        try:
            self._layer_types = self._factory.layer_types(base)
        except ModelError as error:  # no operator has an FP8 kernel
            self._notes.append(f"INT8 is chosen: {error.summary}")
            return False
        mixes = [replace(base, fp8=nodes) for nodes in mixes_of(self._layer_types)]
        both = f"{len(self._layer_types)} layers with kernels of both types"
        if not mixes:
            self._notes.append(f"INT8 is chosen: none of {both} leaves less noise in FP8")
            return False
        gains = self._factory.mix_gains(mixes, least)
        most = max(gain.db for gain in gains.values())
        mix = next(mix for mix in mixes if gains[mix].db > most - BETTER)
        why = f"FP8 for {len(mix.fp8)} of {both}: {gains[mix].text} at the outputs"
        if not gains[mix].clear(CLEAR):
            self._skip(mix, "types", f"{why}, no clear gain")
            self._notes.append(f"INT8 is chosen: {why}, which is no clear gain")
            return False
        self._factory.measure([mix])
        self._mix = mix
        return self._try(mix, "types", why)

    def _try_layers(self) -> bool:
        """Keep layers float: the smallest number from the top of the ranking that meets the budget."""
        base = self._least_noise()
        layers = len(self._factory.layers(base))
        most = int(self._limits.most * layers)
        if most < 1:
            self._notes.append(
                f"{self._limits.most:.0%} of {layers} layers is less than one layer: none is kept in float"
            )
            return False
        self._ranking, by, self._ranked = self._factory.ranking(base, most)
        self._notes.append(f"layers are ranked by {by}, on top of {base.text()}")
        nodes = [layer.node for layer in self._ranking]
        high = self._allowed_count(base, nodes, most, layers)
        if not high or not self._keep(base, nodes[:high], f"as many as allowed: {high} of {layers} layers"):
            return False
        low = 0
        while high - low > 1 and self._has_evaluations():
            middle = (low + high) // 2
            why = f"{low} are not enough, {high} are" if low else f"{high} are enough"
            low, high = (low, middle) if self._keep(base, nodes[:middle], why) else (middle, high)
        self._requantize(base, tuple(nodes[:high]))
        return True

    def _requantize(self, base: Recipe, kept: tuple[str, ...]) -> None:
        """Quantize kept layers again, as in the recipe that none is kept in, the least useful first."""
        for _ in range(REQUANTIZED):
            if len(kept) < 2 or not self._has_evaluations():
                return
            self._phase("looking for kept layers that do not help")
            bare = replace(base, repairs=())
            every = bare.keeping(kept)
            less = [bare.keeping([n for n in kept if n != node]) for node in kept]
            noise = self._factory.measure([every, *less])
            best = max(less, key=lambda r: noise[r])
            gone = next(node for node in kept if node not in best.kept)
            if noise[best] < noise[every] - IDLE:
                return
            shorter = base.keeping(best.kept)
            self._factory.measure([shorter])
            if not self._try(shorter, "requantize", f"{gone} gains only {noise[every] - noise[best]:.1f} dB"):
                return
            kept = best.kept

    # ── shared by the steps ───────────────────────────────────────────────────────────────────────────────────────────

    def _allowed_count(self, base: Recipe, nodes: Sequence[str], most: int, layers: int) -> int:
        """Return how many layers of the ranking may be kept; operators around them may have to stay float with them."""
        for count in range(min(most, len(nodes)), 0, -1):
            try:
                left = len(self._factory.layers(base.keeping(nodes[:count])))
            except ModelError:  # nothing is left to quantize
                continue
            if layers - left <= most:
                return count
        self._notes.append(f"keeping {nodes[0]} in float would keep more than {most} layers in float")
        return 0

    def _keep(self, base: Recipe, nodes: Sequence[str], why: str) -> bool:
        recipe = base.keeping(nodes)
        self._factory.measure([recipe])
        return self._try(recipe, "layers", why)

    def _try(self, recipe: Recipe, step: str, why: str) -> bool:
        """Evaluate a recipe on the tuning part; True if it meets the budget."""
        if not self._has_evaluations():
            self._skip(recipe, step, "", TrialStatus.NO_EVALUATION_LEFT)
            return False
        self._phase(f"evaluating {recipe.text()}")
        evaluation = self._metric_trials.evaluation({"INT8": self._factory.model(recipe)})
        found = loss_of(evaluation, evaluation.models[1])
        self._trials.append(
            Trial(
                recipe,
                step,
                why,
                self._status(found),
                self._factory.proxies[recipe],
                found,
                self._factory.weights_in_float(recipe),
            )
        )
        return self._meets_budget(found)

    def _skip(self, recipe: Recipe, step: str, detail: str, status: TrialStatus = TrialStatus.SKIPPED) -> None:
        """Record a recipe that is not evaluated."""
        proxy = self._factory.proxies.get(recipe, float("nan"))
        self._trials.append(Trial(recipe, step, "", status, proxy, detail=detail))

    def _status(self, found: Figure) -> TrialStatus:
        if self._meets_budget(found):
            return TrialStatus.MET
        return TrialStatus.TOO_CLOSE if found.drop <= self._limits.max_drop else TrialStatus.OVER

    def _meets_budget(self, found: Figure) -> bool:
        return found.cautious_drop <= self._limits.max_drop

    def _has_evaluations(self) -> bool:
        return self._metric_trials.evaluations < self._limits.evaluations

    def _least_noise(self) -> Recipe:
        """Return the recipe so far that leaves the least noise; none of them keeps layers float yet.

        A mix of types that was clearly better on unseen samples, whatever noise it leaves on those of the calibration.
        """
        known = [t.recipe for t in self._trials if t.recipe in self._factory.proxies]
        return self._mix or max(known, key=self._factory.proxies.__getitem__)

    def _least_noise_in_both(self) -> Recipe | None:
        """Return the recipe with the least noise of those whose rule FP8 has too; None if there is none."""
        known = [t.recipe for t in self._trials if t.recipe in self._factory.proxies and is_in_fp8(t.recipe.rule)]
        return max(known, key=self._factory.proxies.__getitem__, default=None)


def is_in_fp8(rule: str) -> bool:
    """Return whether a rule chooses scales for FP8 too."""
    return kind_of(parse_rule(rule)).in_fp8 is not None


def least_loss(judged: Sequence[Trial]) -> Trial:
    """Return the trial that loses least; one without FP8 where a mix is not better by more than its standard error."""
    best = min(judged, key=lambda t: t.figure.cautious_drop if t.figure else 0.0)
    if not best.recipe.fp8 or best.figure is None:
        return best
    plain = [
        t for t in judged if not t.recipe.fp8 and t.figure and t.figure.drop <= best.figure.drop + best.figure.error
    ]
    return min(plain, key=trial_cost, default=best)


def trial_cost(trial: Trial) -> tuple[int, float, float]:
    """Return the sorting key of a trial: layers in float, weights in float, loss."""
    return len(trial.recipe.kept), trial.floats, trial.figure.cautious_drop if trial.figure else 0.0

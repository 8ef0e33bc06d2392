"""Choices of `quantize` by data that nothing was fitted to: the rule of the scales, and the repairs.

    1  the data are split (quantkit.quantization.held_out); statistics are counted from the part that is fitted to
    2  rules for the whole network are compared on the rest, with the repairs from statistics alone
    3  repairs are added step by step, with scales by the rule that was chosen
    4  a factor for all scales is chosen by samples that were fitted to, and checked on the rest
    5  what each half of the held-out samples would have chosen is measured on the other half: the figure that is
       reported

Where nothing can be held out or compared, it is the default: its rule, and the repairs from statistics alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from quantkit.errors import ModelError, UsageError
from quantkit.graph import Model
from quantkit.progress import Phases
from quantkit.qdq.placement import Choices
from quantkit.quantization.choice_record import Gain, HeldOutChoice, repairs_text
from quantkit.quantization.held_out import HeldOutMeter, HeldOutParts, gain_over, hold_out, saw_samples
from quantkit.quantization.network_statistics import NetworkSamples, add_samples, collect_network_statistics
from quantkit.quantization.repair_choice import RepairTrials, gains_of_each, try_repairs
from quantkit.quantization.repair_run import RepairedNetwork, apply_repairs
from quantkit.quantization.rule_choice import (
    RULES,
    Way,
    best_rule,
    best_way,
    measure_rules,
    repairs_made,
    rule_gains,
)
from quantkit.quantization.scale_choice import choose_factor
from quantkit.repairs.registry import from_statistics_alone, needs_data, without_rescaling
from quantkit.rules import Rule, as_rules, kind_of
from quantkit.statistics import Statistics
from quantkit.values import QuantizedType


@dataclass(frozen=True, slots=True)
class FittedStatistics:
    """The statistics that scales and repairs come from, their name, and what is to be said about them.

    parts: the data, of which a part is held out; or why nothing is. given: statistics that the caller gave, also where
    others were collected because these had seen what is held out.
    """

    parts: HeldOutParts | str
    statistics: Statistics
    source: str
    notes: tuple[str, ...] = ()
    given: tuple[Statistics, str] | None = None


@dataclass(frozen=True, slots=True)
class ChoiceRequest:
    """The choices to be made for a network. rule, repairs: what the user asked for; None: to be chosen."""

    network: Model
    data: NetworkSamples
    fitted: FittedStatistics
    choices: Choices
    rule: str | Rule | None
    repairs: tuple[str, ...] | None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules to choose from, the default first; those that every type of the network knows. UsageError."""
        if self.rule is not None:
            return as_rules(self.rule)
        in_fp8 = QuantizedType.FP8 in self.choices.types
        return tuple(rule for rule in as_rules(",".join(RULES)) if not in_fp8 or kind_of(rule).in_fp8 is not None)

    @property
    def default_repairs(self) -> tuple[str, ...]:
        """The repairs of the default: those asked for, else those from statistics alone."""
        return from_statistics_alone() if self.repairs is None else self.repairs


@dataclass(frozen=True, slots=True)
class ChosenNetwork:
    """The network after the repairs that were chosen, the rule, the name of the statistics, and what was measured."""

    made: RepairedNetwork
    rule: Rule
    source: str
    held_out: HeldOutChoice | None = None
    notes: tuple[str, ...] = ()


def fit_statistics(
    network: Model, given: tuple[Statistics, str] | None, data: NetworkSamples, excluded: frozenset[str], phase: Phases
) -> FittedStatistics:
    """Split the data, and return statistics that saw none of the samples that are held out. DataError, UsageError.

    given: statistics and their name; None: they are collected. excluded: nodes that stay float.
    """
    parts = hold_out(network, data)
    if isinstance(parts, str):
        if given is not None:
            return FittedStatistics(parts, *given, given=given)
        phase("collecting statistics")
        return FittedStatistics(parts, collect_network_statistics(network, data, excluded, phase), "the data")
    notes: tuple[str, ...] = ()
    if given is not None:
        statistics, name = given
        if not saw_samples(statistics, network, parts.held):
            return FittedStatistics(parts, statistics, name, given=given)
        notes = (
            f"{name} saw samples that are held out, or may have: for the choice others were collected without them",
        )
    phase("collecting statistics")
    statistics = collect_network_statistics(network, parts.fitting, excluded, phase)
    return FittedStatistics(parts, statistics, f"{parts.fitted} samples of the data", notes, given)


def choose_network(request: ChoiceRequest, phase: Phases) -> ChosenNetwork:
    """Choose by samples held out. ModelError, DataError, UsageError."""
    parts, statistics = request.fitted.parts, request.fitted.statistics
    if isinstance(parts, str):
        return default_network(request, parts, phase)
    try:
        meter: HeldOutMeter[Way] = HeldOutMeter(request.network, parts.held)
    except ModelError as error:
        return default_network(request, error.summary, phase)
    made = apply_repairs(request.network, statistics, request.default_repairs, parts.fitting, request.choices, phase)
    default = (request.rules[0].name, repairs_made(made))
    measure_rules(made, request.rules, meter, request.choices, phase)
    if not meter.outputs:
        return default_network(request, "the outputs have no signal", phase)
    named = best_rule(meter.found, default, meter.outputs)
    rule = next(rule for rule in request.rules if rule.name == named)
    unrounded: Mapping[str, Gain] = {}
    if request.repairs is None:
        del made  # its memory is needed
        trials = RepairTrials(rule, default, parts.fitting, request.choices, meter, phase)
        try_repairs(RepairedNetwork(request.network, statistics), trials)
        made = chosen_network(request, trials, best_way(meter.found, default, meter.outputs))
        unrounded = trials.unrounded
    held_out = record_choice((named, repairs_made(made)), default, meter, parts, unrounded)
    if request.rule is None:
        held_out = replace(
            held_out, scales=choose_factor(request.network, made, rule, parts, request.choices, meter, phase)
        )
    if not parts.refits:
        return ChosenNetwork(made, rule, request.fitted.source, held_out)
    names = tuple(made.done)
    del made, meter  # their memory is needed
    return ChosenNetwork(*refit(request, names, rule, phase), held_out)


def refit(
    request: ChoiceRequest, names: Collection[str], rule: Rule, phase: Phases
) -> tuple[RepairedNetwork, Rule, str]:
    """Return the network after the repairs that were chosen, computed from all samples. DataError.

    The statistics of those held out are added to those of the others, which are not counted again.
    """
    fitted = request.fitted
    assert isinstance(fitted.parts, HeldOutParts), "bug in quantkit: nothing was held out"
    statistics, source = fitted.given or (None, "the data")
    if statistics is None:
        phase("collecting statistics")
        held, excluded = fitted.parts.held, request.choices.exclude
        statistics = add_samples(fitted.statistics, request.network, held, request.data, excluded, phase)
    adaptive = True if request.repairs is None else None  # as it was measured
    made = apply_repairs(
        request.network, statistics, names, request.data, request.choices, phase, rounds_weights=adaptive
    )
    return made, rule, source


def chosen_network(request: ChoiceRequest, trials: RepairTrials, chosen: Way) -> RepairedNetwork:
    """Return the network that was chosen: the last one that was measured, or another, which is made again."""
    if trials.last is not None and trials.way(trials.last) == chosen:
        return trials.last
    trials.last = None  # its memory is needed
    statistics, choices = request.fitted.statistics, request.choices
    return apply_repairs(
        request.network, statistics, chosen[1], trials.fitting, choices, trials.phase, rounds_weights=True
    )


def record_choice(
    chosen: Way, default: Way, meter: HeldOutMeter[Way], parts: HeldOutParts, unrounded: Mapping[str, Gain]
) -> HeldOutChoice:
    """Return the choice with figures that no choice was made by. unrounded: repair → what it gains before rounding.

    What one half of the samples chooses is measured on the other half, and the other way round: the noise that the way
    of choosing leaves on samples that it has not seen. Rules of which no repairs were tried do not count.
    """
    found, outputs = meter.found, meter.outputs
    repaired = {way: noise for way, noise in found.items() if way[0] in (chosen[0], default[0])}
    halves = [{way: noise.half(second) for way, noise in repaired.items()} for second in (False, True)]
    crossed = [unseen[best_way(seen, default, outputs)] for seen, unseen in (halves, halves[::-1])]
    first = [unseen[default] for unseen in halves[::-1]]
    best, plain = (each[0].followed_by(each[1]) for each in (crossed, first))
    gain = gain_over(best, plain, outputs)
    rule, repairs = chosen
    gains = gains_of_each(chosen, meter)
    return HeldOutChoice(
        rule=rule,
        repairs=repairs,
        rules=rule_gains(found, default, outputs),
        gains={**unrounded, **gains},
        before_rounding=tuple(name for name in unrounded if name not in gains),
        default_rule=default[0],
        default_repairs=default[1],
        db=best.decibels(outputs),
        default_db=plain.decibels(outputs),
        gain=gain,
        fitted=parts.fitted,
        refitted=parts.refits,
        held=meter.samples,
        outputs=(len(outputs), len(plain.energies)),
    )


def default_network(request: ChoiceRequest, reason: str, phase: Phases) -> ChosenNetwork:
    """Return the network by the default rule, with the repairs that are safe without a check, and say why. UsageError
    where an iterator would have to be read twice."""
    once = isinstance(request.data.source, Iterator)
    names = request.repairs
    if names is None:
        names = from_statistics_alone() if once else without_rescaling()
    elif once and needs_data(names):
        raise UsageError(
            "these repairs read the data several times, and an iterator can be read once only",
            remedy="pass a list, a DataLoader, or a function that returns a new iterator",
        )
    fitted, rule = request.fitted, request.rules[0]
    made = apply_repairs(request.network, fitted.statistics, names, request.data, request.choices, phase)
    note = f"nothing was chosen by the data: {reason}; taken were {rule.name}, {repairs_text(repairs_made(made))}"
    return ChosenNetwork(made, rule, fitted.source, None, (note,))

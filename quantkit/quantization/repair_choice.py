"""Networks after some of the repairs, compared on samples that these were not fitted to.

The prediction of a single repair ignores side effects: a channel that is scaled for its readers also affects the pairs
of a residual Add, and factors and roundings may suit only the samples that they were computed from. So networks are
repaired step by step, and each is measured on samples held out:

    rescaling      one after the other; one that loses a lot is left out at once
    rounding       behind those that are left; and without them, if they lose by themselves
    every one      with the repairs from statistics alone, and without

Rounding weighs the error that rescaling moves into weights, so that it decides where rescaling alone does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from quantkit.progress import Phases
from quantkit.qdq.placement import Choices
from quantkit.quantization.choice_record import Gain
from quantkit.quantization.held_out import HeldOutMeter, gain_over
from quantkit.quantization.repair_run import NetworkSamples, RepairedNetwork, apply_repair
from quantkit.quantization.rule_choice import Way, best_way, quantized_by_rule, repairs_made
from quantkit.repairs.registry import REPAIRS
from quantkit.repairs.repair import Needs, Repair
from quantkit.rules import Rule

FREE = tuple(repair for repair in REPAIRS if repair.needs is Needs.STATISTICS)
RESCALING = tuple(repair for repair in REPAIRS if repair.rescales)
FITTED = tuple(repair for repair in REPAIRS if repair.needs is Needs.DATA and not repair.rescales)


SLACK = 2.0
"""Loss in dB up to which rescaling is kept until weights are rounded: that makes up for a lot of it."""


@dataclass(slots=True)
class RepairTrials:
    """Networks after some of the repairs, measured as soon as they are made; only the best so far is kept.

    rule: of the scales. default: the network that others are compared with, which is measured already. fitting: the
    samples that repairs are computed from.
    """

    rule: Rule
    default: Way
    fitting: NetworkSamples
    choices: Choices
    meter: HeldOutMeter[Way]
    phase: Phases
    best: RepairedNetwork | None = None
    lost: dict[str, Gain] = field(default_factory=dict)
    """Repairs that were left out at once → what they gain without rounding."""

    def add(self, start: RepairedNetwork) -> RepairedNetwork:
        """Measure a network without and with the repairs that need no data; return the latter."""
        self._measure(start)
        made = start
        for repair in FREE:
            made = apply_repair(made, repair, None, self.choices, self.phase, rounds_weights=False)
        self._measure(made)
        return made

    def _measure(self, made: RepairedNetwork) -> None:
        way = self.way(made)
        self.meter.measure({way: partial(quantized_by_rule, made, self.rule, self.choices)}, self.phase)
        if best_way(self.meter.found, self.default, self.meter.outputs) == way:
            self.best = made

    def apply(self, start: RepairedNetwork, repair: Repair) -> RepairedNetwork:
        """Return the network after one more repair that needs data."""
        return apply_repair(start, repair, self.fitting, self.choices, self.phase, rounds_weights=True)

    def way(self, made: RepairedNetwork) -> Way:
        """Return the key of a network."""
        return self.rule.name, repairs_made(made)

    def gain(self, made: RepairedNetwork, other: RepairedNetwork) -> Gain:
        """Return what one of the networks gains over another."""
        found = self.meter.found
        return gain_over(found[self.way(made)], found[self.way(other)], self.meter.outputs)


def try_repairs(start: RepairedNetwork, trials: RepairTrials) -> None:
    """Apply repairs to a network step by step, and measure. ModelError, DataError, UsageError."""
    kept, compared = start, trials.add(start)
    doubtful = False
    for repair in RESCALING:
        scaled = trials.apply(kept, repair)
        if not scaled.done[repair.name].gains:
            kept = replace(kept, done=scaled.done)
            continue
        whole = trials.add(scaled)
        gain = trials.gain(whole, compared)
        if gain.db <= -SLACK:
            trials.lost[repair.name] = gain
            continue
        kept, compared = scaled, whole
        doubtful |= gain.db <= -gain.error
    rescaled = kept.network is not start.network
    for origin in (kept, start) if doubtful and rescaled else (kept,):
        made = origin
        for repair in FITTED:
            made = trials.apply(made, repair)
        trials.add(made)


def gains_of_each(chosen: Way, meter: HeldOutMeter[Way]) -> Mapping[str, Gain]:
    """Return what each repair gains or would gain, where the network was measured both with it and without it."""
    rule, names = chosen
    found: dict[str, Gain] = {}
    for repair in REPAIRS:
        with_it = rule, tuple(r.name for r in REPAIRS if r.name in names or r is repair)
        without = rule, tuple(name for name in with_it[1] if name != repair.name)
        if with_it in meter.found and without in meter.found:
            found[repair.name] = gain_over(meter.found[with_it], meter.found[without], meter.outputs)
    return found

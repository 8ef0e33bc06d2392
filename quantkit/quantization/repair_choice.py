"""Networks after some of the repairs, compared on samples that these were not fitted to.

The prediction of a single repair ignores side effects: a channel that is scaled for its readers also affects the pairs
of a residual Add, and factors and roundings may suit only the samples that they were computed from. So networks are
repaired step by step, and each is measured on samples held out:

    rescaling      one after the other; one that loses a lot is left out at once
    rounding       behind those that are left; and without them, if they clearly lose before it, or all behind it
    both           with the repairs from statistics alone; what is not rescaled, and what is rounded, without too

Rounding weighs the error that rescaling moves into weights, so that it decides where rescaling alone does not.

One of these networks is held at a time, beside the one that it is made from: noise is kept, and weights are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from quantkit.progress import Phases
from quantkit.qdq.placement import Choices
from quantkit.quantization.choice_record import Gain
from quantkit.quantization.held_out import HeldOutMeter, gain_over
from quantkit.quantization.network_statistics import NetworkSamples
from quantkit.quantization.repair_run import RepairedNetwork, apply_repair
from quantkit.quantization.rule_choice import CLEAR, Way, quantized_by_rule, repairs_made
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
    """Networks after some of the repairs: of each the noise is kept, and only the last one itself.

    rule: of the scales. default: the network that others are compared with, which is measured already. fitting: the
    samples that repairs are computed from.
    """

    rule: Rule
    default: Way
    fitting: NetworkSamples
    choices: Choices
    meter: HeldOutMeter[Way]
    phase: Phases
    last: RepairedNetwork | None = None
    """The last network with all repairs that were tried."""
    unrounded: dict[str, Gain] = field(default_factory=dict)
    """Repairs that rescale → what they gain before weights are rounded."""

    def measure(self, made: RepairedNetwork) -> Way:
        """Measure a network, unless one with the same repairs was measured. ModelError, DataError."""
        way = self.way(made)
        self.meter.measure({way: partial(quantized_by_rule, made, self.rule, self.choices)}, self.phase)
        return way

    def apply(self, start: RepairedNetwork, *repairs: Repair) -> RepairedNetwork:
        """Return the network after more repairs."""
        for repair in repairs:
            data = None if repair in FREE else self.fitting
            start = apply_repair(start, repair, data, self.choices, self.phase, rounds_weights=True)
        return start

    def finish(self, start: RepairedNetwork) -> Way:
        """Round weights, and measure without and with the repairs that need no data. ModelError, DataError."""
        made = self.apply(start, *FITTED)
        self.measure(made)
        made = self.apply(made, *FREE)
        self.last = replace(made, unrounded=None)  # the weights before, which no repair needs any more
        return self.measure(made)

    def way(self, made: RepairedNetwork) -> Way:
        """Return the key of a network."""
        return self.rule.name, repairs_made(made)

    def gain(self, one: Way, other: Way) -> Gain:
        """Return what one network gains over another; both are measured."""
        return gain_over(self.meter.found[one], self.meter.found[other], self.meter.outputs)


def try_repairs(start: RepairedNetwork, trials: RepairTrials) -> None:
    """Apply repairs to a network step by step, and measure. ModelError, DataError, UsageError."""
    trials.measure(start)
    kept, doubtful = rescale_activations(start, trials)
    rescaled = kept.network is not start.network
    made = trials.finish(kept)
    if rescaled and (doubtful or trials.gain(trials.default, made).clear(CLEAR)):
        kept, trials.last = start, None  # their memory is needed
        trials.finish(start)


def rescale_activations(start: RepairedNetwork, trials: RepairTrials) -> tuple[RepairedNetwork, bool]:
    """Return the network after those repairs that rescale activations and lose little, and True if one of them clearly
    loses as long as weights are rounded to the nearest. ModelError, DataError, UsageError."""
    kept, compared, doubtful = start, trials.measure(trials.apply(start, *FREE)), False
    for repair in RESCALING:
        scaled = trials.apply(kept, repair)
        if not scaled.done[repair.name].gains:
            kept = replace(kept, done=scaled.done)
            continue
        whole = trials.measure(trials.apply(scaled, *FREE))
        loss = trials.gain(compared, whole)
        trials.unrounded[repair.name] = trials.gain(whole, compared)
        if loss.db >= SLACK:
            continue
        kept, compared = scaled, whole
        doubtful |= loss.clear(CLEAR)
    return kept, doubtful


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

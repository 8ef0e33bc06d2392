"""The choice of one rule for all tensors, by the noise at the outputs on samples that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from quantkit.graph import Model
from quantkit.progress import Phases
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.placement import Choices
from quantkit.qdq.stored_weights import with_float_weights
from quantkit.quantization.choice_record import Gain
from quantkit.quantization.held_out import HeldOutMeter, MeasuredNoise, gain_over
from quantkit.quantization.repair_run import RepairedNetwork
from quantkit.quantization.scales import scales_by_rule
from quantkit.rules import DEFAULT_RULE, Rule

RULES = tuple(dict.fromkeys((DEFAULT_RULE, "mse", "entropy", "minmax", "percentile:99.99")))
"""The rules that are tried: few, since the best of many on a few samples is often a lucky one."""
CLEAR = 2.0
"""Standard errors by which another rule, or fewer repairs, have to be better than the default and all: the largest
errors of a few samples decide, and by one standard error the choice was often wrong."""

Way: TypeAlias = "tuple[str, tuple[str, ...]]"
"""A network by the rule of its scales, and by the repairs that changed it."""


def quantized_by_rule(made: RepairedNetwork, rule: str | Rule, choices: Choices, factor: float = 1.0) -> Model:
    """Return a repaired network with Q/DQ in INT8, by the scales that a rule takes from its statistics, times a factor.
    ModelError.

    Its weights are floats on their grids: the same numbers, and less memory to open it.
    """
    scales = scales_by_rule(made.statistics, rule, "", choices.types).times(factor).typed
    proto = insert_qdq(made.network, scales, choices, WeightForm.INT8).proto
    network = replace(made.network, proto=proto, sha256="")
    return replace(network, proto=with_float_weights(network)).with_weights_stored()


def repairs_made(made: RepairedNetwork) -> tuple[str, ...]:
    """Return the repairs that changed a network."""
    return tuple(name for name, report in made.done.items() if report.gains)


def measure_rules(
    made: RepairedNetwork, rules: Sequence[Rule], meter: HeldOutMeter[Way], choices: Choices, phase: Phases
) -> None:
    """Measure a network by each of the rules. ModelError, DataError."""
    repairs = repairs_made(made)
    meter.measure({(rule.name, repairs): partial(quantized_by_rule, made, rule, choices) for rule in rules}, phase)


def rule_gains(found: Mapping[Way, MeasuredNoise], default: Way, outputs: Sequence[str]) -> dict[str, Gain]:
    """Return what each other rule gains over the default's, with the same repairs."""
    rule, repairs = default
    return {
        way[0]: gain_over(noise, found[default], outputs)
        for way, noise in found.items()
        if way[1] == repairs and way[0] != rule
    }


def best_rule(found: Mapping[Way, MeasuredNoise], default: Way, outputs: Sequence[str]) -> str:
    """Return the default's rule, or the best of those that are clearly better."""
    gains = rule_gains(found, default, outputs)
    clear = [rule for rule, gain in gains.items() if gain.clear(CLEAR)]
    return max(clear, key=lambda rule: gains[rule].db, default=default[0])


def best_way(found: Mapping[Way, MeasuredNoise], default: Way, outputs: Sequence[str]) -> Way:
    """Return the network with the most repairs by the best rule, less those that clearly hurt.

    On so few samples a gain is hardly ever clear, and repairs help most networks: so it takes a clear loss to leave one
    out, and not a gain to keep it.
    """
    rule = best_rule(found, default, outputs)
    ways = [way for way in found if way[0] == rule]
    current = max(ways, key=lambda way: len(way[1]))
    while True:
        fewer = [way for way in ways if set(way[1]) < set(current[1])]
        gains = {way: gain_over(found[way], found[current], outputs) for way in fewer}
        clear = [way for way in fewer if gains[way].clear(CLEAR)]
        if not clear:
            return current
        current = max(clear, key=lambda way: gains[way].db)

"""Which repairs are worth it: what each predicts is weighed by what the outputs show.

Predictions of single repairs leave out what they do elsewhere: a channel that is scaled for its readers costs the pairs
of a residual Add as well, and factors may suit a weight badly. So the outputs of what comes out are compared with the
float network's on a few samples, and less is done where that leaves less noise.

    all repairs      taken where they beat the cheapest by half a decibel
    round, bias      looked at otherwise, and the best of the three is taken
    bias             what statistics alone allow
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from quantkit.data import open_data
from quantkit.data.opening import whole_batches
from quantkit.errors import DataError, ModelError
from quantkit.graph import Model
from quantkit.numerics import format_db, noise_decibels
from quantkit.output_noise import NoiseCandidate, NoiseMeter
from quantkit.preprocess import Preprocess
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.placement import Choices
from quantkit.quantization.repair import NetworkSamples, RepairedNetwork, apply_repairs
from quantkit.quantization.scales import scales_by_rule
from quantkit.repairs.registry import REPAIR_NAMES, from_statistics_alone, without_rescaling
from quantkit.rules import Rule
from quantkit.statistics import Statistics

SAMPLES = 64
"""The SQNR of outputs is settled to a few tenths of a decibel by then."""
CLEAR = 0.5
"""dB by which all repairs have to beat the cheapest, to be taken without a look at what lies between."""
EXACT = 200.0
"""dB: an output that is the same to the last bit counts as this."""


@dataclass(frozen=True, slots=True)
class RepairChoice:
    """The network after the repairs that were taken, and in words how they compare with others."""

    made: RepairedNetwork
    text: str


def choose_repairs(
    network: Model,
    statistics: Statistics,
    data: NetworkSamples,
    choices: Choices,
    rule: str | Rule,
    phase: Callable[[str], None] = lambda _: None,
) -> RepairChoice:
    """All repairs, or fewer where these leave less noise at the outputs; all where outputs cannot be compared, which
    `text` tells then. DataError, ModelError, UsageError."""
    cheap, unscaled = from_statistics_alone(), without_rescaling()
    every = apply_repairs(network, statistics, REPAIR_NAMES, data, choices, phase)
    plain = apply_repairs(network, statistics, cheap, None, choices, phase)
    try:
        measure = open_noise_meter(network, data)
        found = [RepairCandidate(REPAIR_NAMES, every), RepairCandidate(cheap, plain)]
        heard = measure_candidates(measure, found, rule, choices, phase)
        if not found[0].db(heard) >= found[1].db(heard) + CLEAR and every.collected_again:
            found.append(RepairCandidate(unscaled, apply_repairs(network, statistics, unscaled, data, choices, phase)))
            heard = measure_candidates(measure, found, rule, choices, phase)
    except (ModelError, DataError) as error:
        return RepairChoice(every, f"all repairs: outputs were not compared ({error.problem})")
    if not heard:
        return RepairChoice(
            plain, f"{repairs_text(cheap)}: the outputs hold no signal that tells more repairs from less"
        )
    best = max(found, key=lambda way: way.db(heard))
    others = ", ".join(f"{format_db(way.db(heard))} with {repairs_text(way.names)}" for way in found if way is not best)
    outputs = "outputs" if len(heard) == len(measure.outputs) else f"{len(heard)} of {len(measure.outputs)} outputs"
    text = (
        f"{repairs_text(best.names)}: {outputs} at {format_db(best.db(heard))} on {measure.samples} samples, {others}"
    )
    return RepairChoice(best.made, text)


@dataclass(slots=True)
class RepairCandidate:
    """A network after repairs of these names, and output → SQNR in dB once it was measured."""

    names: tuple[str, ...]
    made: RepairedNetwork
    each: dict[str, float] = field(default_factory=dict)

    def db(self, outputs: Collection[str]) -> float:
        """The mean of some outputs in dB, so that a quiet one drowns none."""
        return sum(self.each[name] for name in outputs) / len(outputs) if outputs else math.nan


def measure_candidates(
    measure: NoiseMeter,
    ways: Sequence[RepairCandidate],
    rule: str | Rule,
    choices: Choices,
    phase: Callable[[str], None],
) -> tuple[str, ...]:
    """Measure the ways that were not yet; returns the outputs that can tell them apart: not those
    without a signal, and not those that are exact in all."""
    for way in (way for way in ways if not way.each):
        phase("comparing outputs")
        network = way.made.network
        scales = scales_by_rule(way.made.statistics, rule, "").scales
        proto = insert_qdq(network, scales, choices, WeightForm.FLOAT).proto
        candidate = replace(network, proto=proto, sha256="")
        noise = measure.noise({"": NoiseCandidate(lambda made=candidate: made)})[""].each  # type: ignore[misc]
        way.each = {name: min(noise_decibels(ratio), EXACT) for name, ratio in noise.items()}
    heard = [name for name in measure.outputs if all(math.isfinite(way.each[name]) for way in ways)]
    return tuple(name for name in heard if any(way.each[name] < EXACT for way in ways))


def repairs_text(names: tuple[str, ...]) -> str:
    """`all repairs`, `round and bias`, `bias alone`."""
    if names == REPAIR_NAMES:
        return "all repairs"
    return " and ".join(names) if len(names) > 1 else f"{names[0]} alone"


def open_noise_meter(network: Model, data: NetworkSamples) -> NoiseMeter:
    """What compares outputs. ModelError where the network has none that could be compared."""
    limit = whole_batches(min(data.options.limit or SAMPLES, SAMPLES), network.inputs)
    spec = data.preprocess
    assert isinstance(spec, Preprocess)
    feed, _ = open_data(data.source, network.inputs, spec, replace(data.options, limit=limit))
    return NoiseMeter(network, feed, data.options.workers)

"""The choice of repairs: how much they help is measured at the outputs of the network.

The prediction of a single repair ignores side effects: a channel that is scaled for its readers also affects the pairs
of a residual Add, and factors may suit a weight badly. So the outputs of repaired networks are compared with those of
the float network on a few samples, and fewer repairs are chosen if that leaves less noise.

    all repairs                   chosen if they are better than the cheapest by half a decibel
    those that do not rescale     measured otherwise; then the best of the three is chosen
    those from statistics alone   the cheapest
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from quantkit.data import open_data
from quantkit.data.opening import whole_batches
from quantkit.errors import DataError, ModelError
from quantkit.graph import Model
from quantkit.numerics import format_db, noise_decibels
from quantkit.output_noise import NoiseCandidate, NoiseMeter
from quantkit.preprocess import Preprocess
from quantkit.progress import Phases
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.placement import Choices
from quantkit.quantization.repair_run import NetworkSamples, RepairedNetwork, apply_repairs
from quantkit.quantization.scales import scales_by_rule
from quantkit.repairs.registry import REPAIR_NAMES, from_statistics_alone, without_rescaling
from quantkit.rules import Rule
from quantkit.statistics import Statistics

SAMPLES = 64
"""The SQNR of outputs is known to a few tenths of a decibel after so many samples."""
CLEAR = 0.5
"""Lead in dB over the cheapest repairs with which all repairs are chosen without measuring anything in between."""
EXACT = 200.0
"""SQNR in dB that an output without any error counts as."""


@dataclass(frozen=True, slots=True)
class RepairChoice:
    """The network after the repairs that were chosen, and a text that compares them with others."""

    made: RepairedNetwork
    text: str


def choose_repairs(
    network: Model,
    statistics: Statistics,
    data: NetworkSamples,
    choices: Choices,
    rule: str | Rule,
    phase: Phases,
) -> RepairChoice:
    """Apply all repairs, or fewer if these leave less noise at the outputs; all if outputs cannot be compared.

    DataError, ModelError, UsageError.
    """
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
        return RepairChoice(every, f"all repairs: outputs were not compared ({error.summary})")
    if not heard:
        return RepairChoice(
            plain, f"{repairs_text(cheap)}: the outputs have no signal by which repairs could be compared"
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
    """A network after repairs of these names, and output → SQNR in dB once it is measured."""

    names: tuple[str, ...]
    made: RepairedNetwork
    each: dict[str, float] = field(default_factory=dict)

    def db(self, outputs: Collection[str]) -> float:
        """Return the mean SQNR of some outputs in dB, in which loud and quiet ones count the same."""
        return sum(self.each[name] for name in outputs) / len(outputs) if outputs else math.nan


def measure_candidates(
    measure: NoiseMeter,
    ways: Sequence[RepairCandidate],
    rule: str | Rule,
    choices: Choices,
    phase: Phases,
) -> tuple[str, ...]:
    """Measure the candidates that are not measured yet; return the outputs by which they can be compared.

    These are all but outputs without a signal, and outputs that are exact in every candidate.
    """
    for way in (way for way in ways if not way.each):
        phase("comparing outputs")
        network = way.made.network
        scales = scales_by_rule(way.made.statistics, rule, "", choices.type).scales
        proto = insert_qdq(network, scales, choices, WeightForm.FLOAT).proto
        candidate = replace(network, proto=proto, sha256="")
        made = {"": NoiseCandidate(lambda made=candidate: made)}  # type: ignore[misc]
        noise = measure.noise(made, phase.count)[""].each
        way.each = {name: min(noise_decibels(ratio), EXACT) for name, ratio in noise.items()}
    heard = [name for name in measure.outputs if all(math.isfinite(way.each[name]) for way in ways)]
    return tuple(name for name in heard if any(way.each[name] < EXACT for way in ways))


def repairs_text(names: tuple[str, ...]) -> str:
    """Return `all repairs`, `round and bias` or `bias alone`."""
    if names == REPAIR_NAMES:
        return "all repairs"
    return " and ".join(names) if len(names) > 1 else f"{names[0]} alone"


def open_noise_meter(network: Model, data: NetworkSamples) -> NoiseMeter:
    """Open a meter of the noise at the outputs. ModelError if the network has none that could be compared."""
    limit = whole_batches(min(data.options.limit or SAMPLES, SAMPLES), network.inputs)
    spec = data.preprocess
    assert isinstance(spec, Preprocess)
    feed, _ = open_data(data.source, network.inputs, spec, replace(data.options, limit=limit))
    return NoiseMeter(network, feed, data.options.threads)

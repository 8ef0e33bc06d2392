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
from quantkit.numerics import decibels, format_db
from quantkit.output_noise import NoiseCandidate, NoiseMeter
from quantkit.preprocess import Preprocess
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.placement import Choices
from quantkit.quantization.repair import Data, Repaired, repaired
from quantkit.quantization.scales import by_rule
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
class Weighed:
    """The network after the repairs that were taken, and in words how they compare with others."""

    made: Repaired
    text: str


def weighed(
    network: Model,
    statistics: Statistics,
    data: Data,
    choices: Choices,
    rule: str | Rule,
    phase: Callable[[str], None] = lambda _: None,
) -> Weighed:
    """All repairs, or fewer where these leave less noise at the outputs; all where outputs cannot be compared, which
    `text` tells then. DataError, ModelError, UsageError."""
    cheap, unscaled = from_statistics_alone(), without_rescaling()
    every = repaired(network, statistics, REPAIR_NAMES, data, choices, phase)
    plain = repaired(network, statistics, cheap, None, choices, phase)
    try:
        measure = measuring(network, data)
        found = [Way(REPAIR_NAMES, every), Way(cheap, plain)]
        heard = compared(measure, found, rule, choices, phase)
        if not found[0].db(heard) >= found[1].db(heard) + CLEAR and every.collected_again:
            found.append(Way(unscaled, repaired(network, statistics, unscaled, data, choices, phase)))
            heard = compared(measure, found, rule, choices, phase)
    except (ModelError, DataError) as error:
        return Weighed(every, f"all repairs: outputs were not compared ({error.problem})")
    if not heard:
        return Weighed(plain, f"{named(cheap)}: the outputs hold no signal that tells more repairs from less")
    best = max(found, key=lambda way: way.db(heard))
    others = ", ".join(f"{format_db(way.db(heard))} with {named(way.names)}" for way in found if way is not best)
    outputs = "outputs" if len(heard) == len(measure.outputs) else f"{len(heard)} of {len(measure.outputs)} outputs"
    text = f"{named(best.names)}: {outputs} at {format_db(best.db(heard))} on {measure.samples} samples, {others}"
    return Weighed(best.made, text)


@dataclass(slots=True)
class Way:
    """A network after repairs of these names, and output → SQNR in dB once it was measured."""

    names: tuple[str, ...]
    made: Repaired
    each: dict[str, float] = field(default_factory=dict)

    def db(self, outputs: Collection[str]) -> float:
        """The mean of some outputs in dB, so that a quiet one drowns none."""
        return sum(self.each[name] for name in outputs) / len(outputs) if outputs else math.nan


def compared(
    measure: NoiseMeter, ways: Sequence[Way], rule: str | Rule, choices: Choices, phase: Callable[[str], None]
) -> tuple[str, ...]:
    """Measure the ways that were not yet; returns the outputs that can tell them apart: not those
    without a signal, and not those that are exact in all."""
    for way in (way for way in ways if not way.each):
        phase("comparing outputs")
        network = way.made.network
        scales = by_rule(way.made.statistics, rule, "").scales
        proto = insert_qdq(network, scales, choices, WeightForm.FLOAT).proto
        candidate = replace(network, proto=proto, sha256="")
        noise = measure.noise({"": NoiseCandidate(lambda made=candidate: made)})[""].each  # type: ignore[misc]
        way.each = {name: min(decibels(ratio), EXACT) for name, ratio in noise.items()}
    heard = [name for name in measure.outputs if all(math.isfinite(way.each[name]) for way in ways)]
    return tuple(name for name in heard if any(way.each[name] < EXACT for way in ways))


def named(names: tuple[str, ...]) -> str:
    """`all repairs`, `round and bias`, `bias alone`."""
    if names == REPAIR_NAMES:
        return "all repairs"
    return " and ".join(names) if len(names) > 1 else f"{names[0]} alone"


def measuring(network: Model, data: Data) -> NoiseMeter:
    """What compares outputs. ModelError where the network has none that could be compared."""
    limit = whole_batches(min(data.options.limit or SAMPLES, SAMPLES), network.inputs)
    spec = data.preprocess
    assert isinstance(spec, Preprocess)
    feed, _ = open_data(data.source, network.inputs, spec, replace(data.options, limit=limit))
    return NoiseMeter(network, feed, data.options.workers)

"""Which repairs are worth it: what each predicts is weighed by what the outputs show.

Predictions of single repairs leave out what they do elsewhere: a channel that is scaled for its readers costs the pairs
of a residual Add as well, and factors may suit a weight badly. So the outputs of what comes out are compared with the
float network's on a few samples, and less is done where that leaves less noise.

    all repairs      taken where they beat the cheapest by half a decibel
    round, bias      looked at otherwise, and the best of the three is taken
    bias             what statistics alone allow
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from quantkit.data import open_data
from quantkit.errors import ModelError
from quantkit.evaluation.sensitivity import told
from quantkit.graph import Choices, Model, WeightForm, with_qdq
from quantkit.pipeline.noise import Candidate, Measuring
from quantkit.pipeline.repairing import FROM_STATISTICS, REPAIRS, SCALING, Data, Repaired, repaired
from quantkit.pipeline.scales import by_rule
from quantkit.preprocess import Preprocess
from quantkit.rules import Rule
from quantkit.statistics import Statistics

SAMPLES = 64
"""The SQNR of outputs is settled to a few tenths of a decibel by then."""
CLEAR = 0.5
"""dB by which all repairs have to beat the cheapest, to be taken without a look at what lies between."""
UNSCALED = tuple(name for name in REPAIRS if name not in SCALING)


@dataclass(frozen=True, slots=True)
class Weighed:
    """The network after the repairs that were taken, and in words how they compare with less; empty where the network
    has no output to compare."""

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
    """All repairs, or fewer where these leave less noise at the outputs. DataError, ModelError, UsageError."""
    every = repaired(network, statistics, REPAIRS, data, choices, phase)
    measure = measuring(network, data)
    if measure is None:
        return Weighed(every, "")

    def noise(made: Repaired) -> float:
        """SQNR of the outputs in dB."""
        phase("comparing outputs")
        scales = by_rule(made.statistics, rule, "").scales
        proto = with_qdq(made.network, scales, choices, WeightForm.FLOAT).proto
        candidate = replace(network, proto=proto, sha256="")
        return measure.noise({"": Candidate(lambda: candidate)})[""].db

    plain = repaired(network, statistics, FROM_STATISTICS, None, choices, phase)
    found = [(noise(every), REPAIRS, every), (noise(plain), FROM_STATISTICS, plain)]
    if not found[0][0] >= found[1][0] + CLEAR and every.collected_again:
        middle = repaired(network, statistics, UNSCALED, data, choices, phase)
        found.insert(1, (noise(middle), UNSCALED, middle))
    best = max(found, key=lambda entry: entry[0])
    others = ", ".join(f"{told(db)} with {named(names)}" for db, names, _ in found if names != best[1])
    return Weighed(best[2], f"{named(best[1])}: outputs at {told(best[0])} on {measure.samples} samples, {others}")


def named(names: tuple[str, ...]) -> str:
    """`all repairs`, `round and bias`, `bias alone`."""
    if names == REPAIRS:
        return "all repairs"
    return " and ".join(names) if len(names) > 1 else f"{names[0]} alone"


def measuring(network: Model, data: Data) -> Measuring | None:
    """What compares outputs; None where the network has none that could be compared."""
    limit = min(data.options.limit or SAMPLES, SAMPLES)
    spec = data.preprocess
    assert isinstance(spec, Preprocess)
    feed, _ = open_data(data.source, network.inputs, spec, replace(data.options, limit=limit))
    try:
        return Measuring(network, feed, data.options.workers)
    except ModelError:
        return None

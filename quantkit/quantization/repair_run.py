"""Repairs before Q/DQ is inserted: run those that were chosen, and collect statistics again where one requires it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from quantkit.backends.session import SessionOpener, open_session
from quantkit.calibration.memory_plan import slice_batch, slice_shapes
from quantkit.data import Portion, open_data
from quantkit.data.opening import whole_batches
from quantkit.graph import Model
from quantkit.graph.shape_inference import shapes_for_inputs
from quantkit.graph.weight_store import return_freed_memory
from quantkit.preprocess import Preprocess
from quantkit.progress import Phases
from quantkit.qdq.insert import plan_quantization
from quantkit.qdq.placement import Choices
from quantkit.qdq.shared_scales import TypedScales
from quantkit.quantization.network_statistics import NetworkSamples, statistics_after_rescaling
from quantkit.repairs.registry import repairs_named
from quantkit.repairs.repair import Observe, Repair, RepairInput, RepairReport
from quantkit.statistics import Statistics
from quantkit.values import Batch

ROUNDING_SAMPLES = 256
"""Samples that adaptive rounding looks at; more changed no network's error by 0.1 dB."""
OBSERVED = 32 << 20
"""Bytes of tensors that are observed at once, where batches may be divided."""
SILENT = Phases()


@dataclass(frozen=True, slots=True)
class RepairedNetwork:
    """A network after its repairs, the statistics that belong to it, and a report of each repair by name.

    collected_again: the statistics are no longer those that were given. unrounded: the network before its weights were
    rounded; None as long as they are not.
    """

    network: Model
    statistics: Statistics
    done: Mapping[str, RepairReport] = field(default_factory=dict)
    collected_again: bool = False
    unrounded: Model | None = None


def apply_repairs(
    network: Model,
    statistics: Statistics,
    names: Collection[str],
    data: NetworkSamples | None,
    choices: Choices,
    phase: Phases = SILENT,
    *,
    rounds_weights: bool | None = None,
) -> RepairedNetwork:
    """Apply the repairs `names`. What stays float by `choices` is left alone. UsageError.

    rounds_weights: as for `apply_repair`; None: whether one of the repairs does.
    """
    repairs = repairs_named(names)
    if rounds_weights is None:
        rounds_weights = any(repair.rounds_weights for repair in repairs)
    made = RepairedNetwork(network, statistics)
    for repair in repairs:
        made = apply_repair(made, repair, data, choices, phase, rounds_weights=rounds_weights)
    return made


def apply_repair(
    made: RepairedNetwork,
    repair: Repair,
    data: NetworkSamples | None,
    choices: Choices,
    phase: Phases,
    *,
    rounds_weights: bool,
) -> RepairedNetwork:
    """Apply one more repair. rounds_weights: weights will be rounded adaptively after it, or by it. UsageError."""
    phase(repair.name)
    network, statistics, again = made.network, made.statistics, made.collected_again
    amax = {name: h.amax for name, h in statistics.histograms.items()}
    largest = {kind: {name: most / kind.largest for name, most in amax.items()} for kind in choices.types}
    plan = plan_quantization(network, TypedScales(largest), choices)
    observe = None if data is None else tensor_observer(network, data, phase, sliced=bool(statistics.origin.slice))
    outcome = repair.apply(RepairInput(network, statistics, plan, observe, rounds_weights, made.unrounded, phase))
    unrounded = made.unrounded or network if repair.rounds_weights else made.unrounded
    network = replace(network, proto=outcome.proto).with_weights_stored()
    if repair.rescales and outcome.gains:
        assert data is not None, "bug in quantkit: a repair that rescales needs data"
        again = True
        phase("collecting statistics again")
        statistics = statistics_after_rescaling(statistics, network, outcome.rescaled, data, choices.exclude, phase)
    return_freed_memory()
    return RepairedNetwork(network, statistics, {**made.done, repair.name: repair.report(outcome)}, again, unrounded)


def tensor_observer(
    network: Model,
    data: NetworkSamples,
    phase: Phases = SILENT,
    open_session: SessionOpener = open_session,
    *,
    sliced: bool = False,
) -> Observe:
    """Return a function that runs a network and yields its tensors batch by batch, from the start each time.

    sliced: the network treats samples on their own, so that batches may be divided where their tensors are large.
    """

    def observe(names: Sequence[str]) -> Iterator[Batch]:
        limit = whole_batches(min(data.options.limit or ROUNDING_SAMPLES, ROUNDING_SAMPLES), network.inputs)
        spec = data.preprocess
        assert isinstance(spec, Preprocess)
        feed, _ = open_data(data.source, network.inputs, spec, replace(data.options, limit=limit))
        inputs = {i.name for i in network.inputs}
        tensors = [name for name in names if name not in inputs]
        run = open_session(network, tensors, threads=data.options.threads).runner()
        seen, size = 0, None if sliced else 0
        for portion in feed.portions():
            if size is None:  # once: shapes are inferred for it
                size = slice_size(network, names, portion)
            for batch, samples in slice_batch(portion.batch, portion.samples, size, portion.axes):
                yield {**batch, **run(batch)}
                seen += samples
                phase.count(seen, feed.samples)
        data.unreadable.update(feed.unreadable)

    return observe


def slice_size(network: Model, tensors: Sequence[str], portion: Portion) -> int:
    """Return how many samples of a batch have `OBSERVED` bytes of tensors; one that is not known counts as the largest
    that is."""
    shapes = shapes_for_inputs(network, tensors, slice_shapes(portion.batch, portion.samples, 1, portion.axes))
    known = [4 * prod(shape) for shape in shapes.values() if shape is not None]
    held = sum(known) + (len(shapes) - len(known)) * max(known, default=0)
    return max(1, OBSERVED // max(held, 1))

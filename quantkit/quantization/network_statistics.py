"""Statistics of networks that are in memory: of all tensors, of more samples, and of a network that was rescaled.

No sample is counted twice where that can be helped. Those of two parts of the data add up. A repair that rescales
activations changes few tensors, and the network computes the same in all others: only those that it changed are counted
again.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from quantkit.calibration.calibrate import calibrate
from quantkit.calibration.job import CalibrationJob, prepare_job
from quantkit.calibration.onnxruntime_run import calibrate_by_watching
from quantkit.calibration.options import CalibrateOptions
from quantkit.calibration.result import Calibration
from quantkit.calibration.tables import gains_by_place
from quantkit.data import DataOptions
from quantkit.data.preprocess_choice import AnyPreprocess, choose_spec
from quantkit.graph import Model
from quantkit.graph.identity import model_identity
from quantkit.graph.weight_store import return_freed_memory
from quantkit.progress import PhaseProgress, Phases
from quantkit.statistics import Statistics
from quantkit.statistics.merging import merge_pair, watched_views


@dataclass(frozen=True, slots=True)
class NetworkSamples:
    """Samples that a network can be run on. source: as `calibrate` takes it."""

    source: Any
    preprocess: AnyPreprocess = None
    options: DataOptions = field(default_factory=DataOptions)

    unreadable: set[str] = field(default_factory=set, compare=False)
    """Samples that were left out because the user asked for it: filled while data are read."""

    def of(self, model: Model) -> NetworkSamples:
        """Return the same with the preprocessing resolved, which may be a file beside the model."""
        return replace(self, preprocess=choose_spec(self.preprocess, model, self.source).spec)


def collect_network_statistics(
    network: Model, data: NetworkSamples, excluded: frozenset[str], phase: Phases
) -> Statistics:
    """Collect statistics of a network that is in memory. excluded: nodes that stay float."""
    options = statistics_options(data, excluded)
    known, progress = with_identity(network), PhaseProgress(phase)
    made = calibrate(known, data.source, rule="minmax", preprocess=data.preprocess, options=options, progress=progress)
    return statistics_of(made, data)


def add_samples(
    statistics: Statistics,
    network: Model,
    rest: NetworkSamples,
    everything: NetworkSamples,
    excluded: frozenset[str],
    phase: Phases,
) -> Statistics:
    """Return statistics of `everything`: those of a part of it, and of `rest`, as if it had been read last.

    Where a tensor has values in one part only (boxes that were not found), all samples are counted.
    """
    job = job_like(statistics, network, rest, excluded)
    more = run_job(replace(job, first_ranges={n: h.range for n, h in statistics.histograms.items()}), rest, phase)
    gone = {*statistics.unscalable, *more.unscalable}
    ours, theirs = statistics.without(gone), more.without(gone)
    if watched_views(ours) != watched_views(theirs):
        return collect_network_statistics(network, everything, excluded, phase)
    made = merge_pair(ours, theirs)
    return replace(made, origin=made.origin.model_copy(update={"order": None}))


def statistics_after_rescaling(
    statistics: Statistics,
    network: Model,
    rescaled: Collection[str],
    data: NetworkSamples,
    excluded: frozenset[str],
    phase: Phases,
) -> Statistics:
    """Return the statistics of a network from those before some of its tensors were rescaled: these are counted again.

    All are where those before are of other samples than `data`.
    """
    job = job_like(statistics, network, data, excluded)
    job = replace(job, watch=job.watch.only(rescaled))
    found = run_job(job, data, phase)
    if found.origin.data != statistics.origin.data:
        return collect_network_statistics(network, data, excluded, phase)
    return replace_tensors(statistics, found, network)


def replace_tensors(statistics: Statistics, found: Statistics, network: Model) -> Statistics:
    """Return statistics of which some tensors were counted again, with the gains of the weights as they are now."""
    before = statistics.without(found.unscalable)
    views = {(view.tensor, view.axis): view for view in found.channels}
    made = replace(
        before,
        histograms={name: found.histograms.get(name, h) for name, h in before.histograms.items()},
        channels=tuple(views.get((view.tensor, view.axis), view) for view in before.channels),
        origin=before.origin.model_copy(update={"model": found.origin.model}),
    )
    return made.with_gains(gains_by_place(network))


def statistics_options(data: NetworkSamples, excluded: frozenset[str]) -> CalibrateOptions:
    """Return the options of a run whose statistics are kept, and whose table is not."""
    return CalibrateOptions(data=data.options, backend="onnxruntime", exclude=tuple(sorted(excluded)))


def job_like(statistics: Statistics, network: Model, data: NetworkSamples, excluded: frozenset[str]) -> CalibrationJob:
    """Return a job that counts in the mode of statistics that are there."""
    options = replace(statistics_options(data, excluded), histogram=statistics.origin.histogram)
    return prepare_job(with_identity(network), data.source, "minmax", data.preprocess, None, options)


def run_job(job: CalibrationJob, data: NetworkSamples, phase: Phases) -> Statistics:
    """Return the statistics of a job."""
    made = calibrate_by_watching(job, job.feed.identity(), PhaseProgress(phase), time.monotonic())
    return statistics_of(made, data)


def with_identity(network: Model) -> Model:
    """Return a network of this process with the identity that its statistics are recorded for."""
    return replace(network, sha256=model_identity(network.proto, network.folder, str(network.path)))


def statistics_of(made: Calibration, data: NetworkSamples) -> Statistics:
    """Return the statistics of a run, and note the samples that were left out."""
    return_freed_memory()
    data.unreadable.update(made.skipped)
    assert made.statistics is not None, "bug in quantkit: onnxruntime gives statistics"
    return made.statistics

"""One shard of a calibration: the statistics that its batches contribute to those of the run that is not divided.

Nothing that affects the numbers is decided by a shard. The plan (samples at once, passes) comes from the first batch of
the whole data, as in one run; the batches are those of one run; and a sample that is left out must not move the others.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

from quantkit._version import __version__
from quantkit.artifact import Digest
from quantkit.backends.session import TENSORRT, Session
from quantkit.calibration.batch_slicing import backend_version, open_watching_session, plan_batches
from quantkit.calibration.job import CalibrationJob
from quantkit.calibration.leading_batches import LeadingBatches
from quantkit.calibration.onnxruntime_run import collect_statistics
from quantkit.calibration.streaming_pass import CheckpointPlan, PassHooks, StreamingPass, new_collectors
from quantkit.calibration.tables import describe_few
from quantkit.calibration.unscalable import ScaleNeeds, describe_unscalable, leave_out_masks
from quantkit.data import Feed, Portion
from quantkit.data.peeking import DataWatcher, PeekedFeed
from quantkit.errors import DataError, UsageError
from quantkit.graph import refuse_changed_weights
from quantkit.histogram import HistogramMode
from quantkit.progress import Progress
from quantkit.sharding import RunIdentity, Shard, record_shard
from quantkit.sharding.data_parts import data_parts, digest_list, digest_stamps, refuse_moved_batches, shard_batches
from quantkit.statistics import Statistics


@dataclass(frozen=True, slots=True)
class CollectedShard:
    """The statistics of one shard, with its record, and what the user should know."""

    statistics: Statistics
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class ShardCollector:
    """A collector of any shards of one calibration; the network is loaded once for all of them.

    first_ranges: in `tensorrt` mode, those of the whole data as far as they are known. first: the first batch of the
    whole data. plan: of the run that is not divided. DataError, UsageError, and what
    `calibrate` raises.
    """

    def __init__(self, job: CalibrationJob, first_ranges: Mapping[str, float] | None = None) -> None:
        self.job, self.run = job, identify_run(job)
        peeked = PeekedFeed(job.feed)
        peeked.close()
        if peeked.first is None:
            raise DataError("the data yields no samples", remedy="give at least one readable sample")
        self.first: Portion = peeked.first
        self.plan, self._session, self._notes = plan_batches(job, self.first)
        self._needs = ScaleNeeds(job.model, job.watch.tensors, job.excluded)
        self._views: dict[str, list[int]] = {}
        for view in job.watch.channels:
            self._views.setdefault(view.tensor, []).append(view.axis)
        self._leading = LeadingBatches(job.feed, self.plan, first_ranges or {}, self._refuse_moved)

    def of_job(self, job: CalibrationJob) -> ShardCollector:
        """Return a collector for another job that differs in its samples alone, with the same plan and sessions."""
        other = copy.copy(self)
        other.job = job
        return other

    def session(self, number: int) -> Session:
        """Return the session of a pass; that of the first is kept for all shards."""
        return open_watching_session(self.job, self.plan.passes[number], self.plan) if number else self._session

    def collect(self, shard: Shard, progress: Progress) -> CollectedShard:
        """Run the batches of one shard, and return their statistics. Raises what `calibrate` raises."""
        job, batches = self.job, shard_batches(self.job.feed, shard)
        feed = job.feed.part(batches)
        files, identity = digest_stamps(feed), feed.identity()
        watcher = DataWatcher(job.spec.applied)

        def see(portion: Portion) -> None:
            refuse_moved_batches(feed, *moved_batches(job))
            watcher.see(portion)

        run = StreamingPass(
            feed,
            self.plan,
            new_collectors(self.plan, self._views, job.options.histogram, self._first_ranges(batches.start)),
            CheckpointPlan(),
            progress,
            PassHooks(identity, see, None, self._needs.check, True),
        )
        observed = run.observe(self.session)
        refuse_moved_batches(feed, *moved_batches(job))
        watcher.look()
        refuse_changed_weights(job.model)
        part = collect_statistics(replace(job, feed=feed), observed, self.plan)
        if job.options.histogram is HistogramMode.TENSORRT:
            seams = {name: seam for each in observed.collectors for name, seam in each.seams().items()}
            part = replace(part, seams={name: seams[name] for name in part.histograms})
        statistics = leave_out_masks(part, job.model, self._needs)
        record = record_shard(shard, batches, self.run, files=files, skipped=feed.unreadable, watched=job.watch.tensors)
        statistics = replace(statistics, shard=record, chain=observed.identity.chain)
        few = describe_few(job.rules, job.feed.samples or 0)  # of the run, not of the shard
        notes = (*feed.notes, *self._notes, *describe_unscalable(statistics), *few)
        return CollectedShard(statistics, notes, watcher.warnings)

    def _first_ranges(self, start: int) -> dict[str, float]:
        """Return the first ranges that the leading batches have, for a shard that begins with batch `start`."""
        if self.job.options.histogram is not HistogramMode.TENSORRT:
            return {}
        return self._leading.first_ranges(start, self.session)

    def _refuse_moved(self, feed: Feed, _: Portion) -> None:
        refuse_moved_batches(feed, *moved_batches(self.job))


def collect_shard(job: CalibrationJob, shard: Shard, progress: Progress) -> CollectedShard:
    """Return the statistics of one shard. Raises what `calibrate` raises."""
    return ShardCollector(job).collect(shard, progress)


def identify_run(job: CalibrationJob) -> RunIdentity:
    """Return what all shards of a calibration have in common. UsageError where it cannot be divided."""
    options = job.options
    if options.backend == TENSORRT:
        raise UsageError("TensorRT's calibrators cannot be divided into shards", remedy="leave out --backend tensorrt")
    return RunIdentity({
        "model": Digest(job.model.sha256),
        "data list": Digest(digest_list(job.feed)),
        **data_parts(job.feed, options.data),
        "preprocessing": job.spec.document,
        "histogram": options.histogram.value,
        "max memory": options.memory,
        "backend": backend_version(options),
        "excluded layers": sorted(job.excluded),
        "quantkit": __version__,
    })  # fmt: skip


def moved_batches(job: CalibrationJob) -> tuple[str, str]:
    """Return why the numbers depend on the batches, empty if they do not, and what to do about a sample that is left
    out."""
    if any(i.fixed_batch is not None for i in job.model.inputs):
        return "the network has a fixed batch size", "remove the file"
    ordered = job.options.histogram is HistogramMode.TENSORRT
    why = "histograms of TensorRT's mode depend on them" if ordered else ""
    return why, "remove the file, or use --histogram invariant"

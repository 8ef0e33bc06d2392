"""One shard of a calibration: the statistics that its batches contribute to those of the run that is not divided.

Nothing that affects the numbers is decided by a shard. The plan (samples at once, passes) comes from the first batch of
the whole data, as in one run; the batches are those of one run; and a sample that is left out must not move the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from quantkit._version import __version__
from quantkit.artifact import Digest, sha256_of, text_bytes
from quantkit.backends.session import TENSORRT, Session
from quantkit.calibration.batch_slicing import backend_version, open_watching_session, plan_batches
from quantkit.calibration.job import CalibrationJob
from quantkit.calibration.leading_batches import LeadingBatches
from quantkit.calibration.onnxruntime_run import collect_statistics
from quantkit.calibration.streaming_pass import CheckpointPlan, PassHooks, StreamingPass, new_collectors
from quantkit.calibration.unscalable import ScaleNeeds, describe_unscalable, leave_out_masks
from quantkit.data import Feed, Portion
from quantkit.data.peeking import DataWatcher, PeekedFeed
from quantkit.errors import DataError, UsageError
from quantkit.graph import refuse_changed_weights
from quantkit.histogram import HistogramMode
from quantkit.progress import Progress
from quantkit.sharding import RunIdentity, Shard, record_shard
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

    def session(self, number: int) -> Session:
        """Return the session of a pass; that of the first is kept for all shards."""
        return open_watching_session(self.job, self.plan.passes[number], self.plan) if number else self._session

    def collect(self, shard: Shard, progress: Progress) -> CollectedShard:
        """Run the batches of one shard, and return their statistics. Raises what `calibrate` raises."""
        job, batches = self.job, shard_batches(self.job.feed, shard)
        feed = job.feed.part(batches)
        files, identity = digest_stamps(feed), feed.identity()
        watcher = DataWatcher(job.spec.applied)
        run = StreamingPass(
            feed,
            self.plan,
            new_collectors(self.plan, self._views, job.options.histogram, self._first_ranges(batches.start)),
            CheckpointPlan(),
            progress,
            PassHooks(identity, refuse_moved_batches(job, feed, watcher.see), None, self._needs.check, True),
        )
        observed = run.observe(self.session)
        watcher.look()
        refuse_changed_weights(job.model)
        part = collect_statistics(replace(job, feed=feed), observed, self.plan)
        if job.options.histogram is HistogramMode.TENSORRT:
            seams = {name: seam for each in observed.collectors for name, seam in each.seams().items()}
            part = replace(part, seams={name: seams[name] for name in part.histograms})
        statistics = leave_out_masks(part, job.model, self._needs)
        record = record_shard(shard, batches, self.run, files=files, skipped=feed.unreadable, watched=job.watch.tensors)
        statistics = replace(statistics, shard=record, chain=observed.identity.chain)
        notes = (*feed.notes, *self._notes, *describe_unscalable(statistics))
        return CollectedShard(statistics, notes, watcher.warnings)

    def _first_ranges(self, start: int) -> dict[str, float]:
        """Return the first ranges that the leading batches have, for a shard that begins with batch `start`."""
        if self.job.options.histogram is not HistogramMode.TENSORRT:
            return {}
        return self._leading.first_ranges(start, self.session)

    def _refuse_moved(self, feed: Feed, portion: Portion) -> None:
        refuse_moved_batches(self.job, feed, lambda _: None)(portion)


def collect_shard(job: CalibrationJob, shard: Shard, progress: Progress) -> CollectedShard:
    """Return the statistics of one shard. Raises what `calibrate` raises."""
    return ShardCollector(job).collect(shard, progress)


def shard_batches(feed: Feed, shard: Shard) -> range:
    """Return the batches of a shard. DataError where the number of batches is not known; UsageError."""
    if feed.batches is None:
        raise DataError(
            "data from Python code cannot be divided into shards: how many batches there are is not known",
            remedy="save the batches as .npz files, and give their folder",
        )
    return shard.batches_of(feed.batches)


def identify_run(job: CalibrationJob) -> RunIdentity:
    """Return what all shards of a calibration have in common. UsageError where it cannot be divided."""
    options = job.options
    if options.backend == TENSORRT:
        raise UsageError("TensorRT's calibrators cannot be divided into shards", remedy="leave out --backend tensorrt")
    reading = options.data
    return RunIdentity({
        "model": Digest(job.model.sha256),
        "data list": Digest(digest_list(job.feed)),
        "samples or files": job.feed.positions,
        "preprocessing": job.spec.document,
        "batch size": job.feed.batch_size,
        "limit": reading.limit,
        "shuffle": reading.shuffle,
        "seed": reading.seed if reading.shuffle else None,
        "histogram": options.histogram.value,
        "max memory": options.max_memory,
        "backend": backend_version(options),
        "excluded layers": sorted(job.excluded),
        "quantkit": __version__,
    })  # fmt: skip


def digest_list(feed: Feed) -> str:
    """Return the sha256 of the list of chosen samples: their names, in order; of arrays also the sizes of the files.

    The content of a sample is read by its own shard alone, and its digest is in the statistics.
    """
    sizes = () if feed.kind == "images" else tuple((stamp.name, stamp.size) for stamp in feed.stamps())
    return sha256_of(text_bytes(repr((tuple(feed.names or ()), sizes))))


def digest_stamps(feed: Feed) -> str:
    """Return the sha256 of the stamps of a feed's files; empty if there are none."""
    stamps = feed.stamps()
    return sha256_of(text_bytes(repr([stamp.record for stamp in stamps]))) if stamps else ""


def refuse_moved_batches(job: CalibrationJob, feed: Feed, see: Callable[[Portion], None]) -> Callable[[Portion], None]:
    """Return an observer of batches that calls `see`, and raises DataError where a sample that was left out moves
    others into other batches, although the numbers depend on the batches."""
    ordered = job.options.histogram is HistogramMode.TENSORRT
    fixed = any(i.fixed_batch is not None for i in job.model.inputs)

    def meet(portion: Portion) -> None:
        if feed.unreadable and (ordered or fixed):
            why = "the network has a fixed batch size" if fixed else "histograms of TensorRT's mode depend on them"
            raise DataError(
                f"{feed.unreadable[0]}; leaving it out moves samples into other batches, which shards cannot do: {why}",
                remedy="remove the file" + ("" if fixed else ", or use --histogram invariant"),
            )
        see(portion)

    return meet

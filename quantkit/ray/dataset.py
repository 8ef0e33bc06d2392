"""Statistics of a Ray dataset: actors collect those of some hundred rows at a time, which are merged as they come.

Histograms are `invariant`, because a dataset has no order. Statistics of the same samples are then the same bytes,
however Ray divides them, and those of `quantkit.calibrate(…, histogram="invariant")` over the same files.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quantkit.backends.session import DEFAULT_BACKEND
from quantkit.calibration.job import CalibrationJob, prepare_job
from quantkit.calibration.options import CalibrateFields, CalibrateOptions
from quantkit.calibration.shard_run import ShardCollector
from quantkit.data import DataOptions
from quantkit.data.opening import DEFAULT_BATCH
from quantkit.data.preprocess_choice import AnyPreprocess
from quantkit.errors import DataError, ModelError, UsageError
from quantkit.executors.actors import import_ray, share_cluster
from quantkit.executors.placement import RAY, Placement, argument_for_workers
from quantkit.executors.processes import pickled
from quantkit.executors.task import WorkerError, describe_failure
from quantkit.graph import AnyModel
from quantkit.histogram import HistogramMode
from quantkit.keywords.option_fields import takes_fields
from quantkit.progress import NoProgress
from quantkit.ray.row_feed import RowColumns, choose_columns, open_rows, sample_of_kind
from quantkit.rules import DEFAULT_RULE
from quantkit.sharding import Shard
from quantkit.statistics import Statistics, parse_statistics, statistics_bytes
from quantkit.statistics.shard_merging import join_shards
from quantkit.values import Array, checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

ROWS = 512
"""Rows whose statistics are one partial result: it is merged once, and made again where a worker died."""
PART = "part"
TAKEN = frozenset({"data", "histogram", "exclude", "provider", "max_memory", "workers", "gpus_per_worker"})
READ = frozenset({"batch_size", "skip_corrupt"})
"""The options of `calibrate`, and of its data, that count for a dataset. `histogram` has one value here."""
CHOOSING = frozenset({"limit", "shuffle", "seed", "part", "whole", "frame_step", "shard"})


@takes_fields(CalibrateOptions, DataOptions)
def statistics(
    dataset: Any,
    model: AnyModel,
    preprocess: AnyPreprocess = None,
    *,
    column: str | None = None,
    options: CalibrateOptions | None = None,
    **_: Unpack[CalibrateFields],
) -> Statistics:
    """Collect the statistics of a network over a `ray.data.Dataset`, on its cluster.

    dataset: rows with an image each (the bytes of a file, as `ray.data.read_binary_files` gives them, or pixels of
    8 bits, as `read_images` does), or with the inputs of the network by name. column: the one with images, if their
    values do not show it. The other arguments are those of `calibrate`: workers (None: as many actors as the cluster
    has room for), gpus_per_worker, batch_size, provider, max_memory, exclude, skip_corrupt; others are refused.
    Bytes of files are decoded as everywhere in quantkit; pixels were decoded by Ray.

    Partial statistics travel through Ray's object store, and never activations. BackendError without Ray; DataError,
    ModelError, UsageError.
    """
    ray = import_ray()
    given = checked_options(options, CalibrateOptions)
    refuse_choices(given)
    if not isinstance(dataset, ray.data.Dataset):
        raise UsageError(
            f"the dataset is a {type(dataset).__name__}, not a ray.data.Dataset",
            remedy="open it with ray.data.read_images, or give files to quantkit.calibrate",
        )
    placement = Placement(given.workers, RAY, given.gpus_per_worker)
    size_of_batch = given.data.batch_size or DEFAULT_BATCH
    try:
        first = dataset.take_batch(size_of_batch, batch_format="numpy")
    except ValueError:
        raise DataError("the dataset has no rows", remedy="give at least one") from None
    reading = DataOptions(batch_size=size_of_batch, threads=1, skip_corrupt=given.data.skip_corrupt)
    options = CalibrateOptions(
        data=reading,
        histogram=HistogramMode.INVARIANT,
        backend=DEFAULT_BACKEND,
        exclude=given.exclude,
        provider=given.provider,
        max_memory=given.max_memory,
    )
    model = argument_for_workers(model, placement)
    plan = RowsTask(model, preprocess, options, column, first)
    refuse_dependent_rows(plan.collector)
    size, cpus = share_cluster([node["Resources"] for node in ray.nodes() if node["Alive"]], placement)
    task = replace(plan, options=replace(options, data=replace(reading, threads=cpus)), preprocess=plan.job.spec)
    parts = dataset.select_columns([*plan.columns.names, *plan.columns.paths]).map_batches(
        PartCollector,
        fn_constructor_args=(pickled(task),),
        batch_size=ROWS,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=size),  # one at first: reading needs CPUs too
        num_cpus=None if given.gpus_per_worker else cpus if size > 1 else cpus / 2,
        num_gpus=given.gpus_per_worker or None,
    )
    with contextlib.closing(row[PART] for row in parts.iter_rows()) as found:  # an error ends the work of Ray
        return merge_parts(found)


@dataclass(frozen=True)
class RowsTask:
    """The work of an actor. first: the first rows, from which every actor makes the same plan."""

    model: Any
    preprocess: Any
    options: CalibrateOptions
    column: str | None
    first: Mapping[str, Array]

    @cached_property
    def job(self) -> CalibrationJob:
        """The job over the first rows. Raises what `calibrate` raises."""
        kind = sample_of_kind(self.first, self.column)
        plain = replace(self.options, data=DataOptions())
        job = prepare_job(self.model, kind, DEFAULT_RULE, self.preprocess, None, plain)
        return self.over(replace(job, options=self.options), self.first)

    @cached_property
    def columns(self) -> RowColumns:
        """The columns that are read. UsageError."""
        return choose_columns(self.first, self.job.model.inputs, self.column)

    @cached_property
    def collector(self) -> ShardCollector:
        """The collector, with the network in memory."""
        return ShardCollector(self.job)

    def over(self, job: CalibrationJob, rows: Mapping[str, Array]) -> CalibrationJob:
        """Return a job over other rows."""
        columns = choose_columns(self.first, job.model.inputs, self.column)
        return replace(job, feed=open_rows(rows, columns, job.model.inputs, job.spec.spec, self.options.data))

    def collect(self, rows: Mapping[str, Array]) -> Statistics:
        """Return the statistics of some rows. Raises what `calibrate` raises."""
        job = self.over(self.job, rows)
        return self.collector.of_job(job).collect(Shard(0, 1), NoProgress()).statistics


class PartCollector:
    """The actor: batches of rows become partial results, or errors, one each."""

    def __init__(self, content: bytes) -> None:
        self._task: RowsTask = pickle.loads(content)

    def __call__(self, rows: Mapping[str, Array]) -> dict[str, list[bytes]]:
        """Return one row with the bytes of statistics, or of a `WorkerError`."""
        try:
            return {PART: [pickle.dumps(statistics_bytes(self._task.collect(rows)))]}
        except Exception as error:
            return {PART: [pickle.dumps(describe_failure(error, None))]}


def refuse_choices(options: CalibrateOptions) -> None:
    """Raise UsageError for options that say nothing to a dataset: they choose samples, or need a run in order."""
    given = [*changed(options, CalibrateOptions(), TAKEN), *changed(options.data, DataOptions(), READ)]
    if options.backend == DEFAULT_BACKEND:
        given = [name for name in given if name != "backend"]
    if given:
        remedy = "choose rows by the dataset, such as dataset.limit(…)" if given[0] in CHOOSING else "leave it out"
        raise UsageError(f"{given[0]}= is not for a dataset, which Ray divides", remedy=remedy)


def changed(options: Any, defaults: Any, but: Collection[str]) -> list[str]:
    """Return the names of the fields that differ from their defaults, but for some."""
    names = [field.name for field in fields(options) if field.name not in but]
    return [name for name in names if getattr(options, name) != getattr(defaults, name)]


def refuse_dependent_rows(collector: ShardCollector) -> None:
    """Raise ModelError where the values of a sample depend on the others of its batch, which Ray chooses."""
    fixed = max((i.fixed_batch or 1 for i in collector.job.model.inputs), default=1)
    if fixed > 1:
        raise ModelError(
            f"the model has the fixed batch size {fixed}, which the batches of a dataset do not always fill",
            remedy="export it with a dynamic batch, or use quantkit.calibrate",
        )
    if not collector.plan.slice and collector.first.samples > 1:
        raise ModelError(
            "the network mixes the samples of a batch, and Ray chooses which are in one",
            remedy="use batch_size=1, or quantkit.calibrate",
        )


def merge_parts(parts: Iterable[bytes]) -> Statistics:
    """Return the statistics of all partial results, one after the other. DataError, the error of a worker."""
    merged: Statistics | None = None
    for content in parts:
        part = pickle.loads(content)
        if isinstance(part, WorkerError):
            raise part.raised()
        found = parse_statistics(part, "a partial result")
        merged = found if merged is None else join_shards(merged, found)
    if merged is None:
        raise DataError("the dataset has no rows", remedy="give at least one")
    return replace(merged, shard=None, chain=None)

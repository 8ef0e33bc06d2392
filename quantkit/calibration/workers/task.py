"""The work of a worker on shards of a calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quantkit.calibration.job import CalibrationJob, prepare_job
from quantkit.calibration.options import CalibrateOptions
from quantkit.calibration.shard_run import ShardCollector
from quantkit.data.preprocess_choice import PreprocessChoice
from quantkit.executors import ShardResult
from quantkit.executors.gpus import gpus_to_share
from quantkit.executors.placement import argument_for_workers
from quantkit.progress import NoProgress
from quantkit.rules import Rule
from quantkit.sharding import Shard
from quantkit.statistics import statistics_bytes


@dataclass(frozen=True, slots=True)
class CalibrationTask:
    """The arguments of a calibration, from which every worker prepares the same job."""

    model: Any
    data: Any
    rules: tuple[Rule, ...]
    spec: PreprocessChoice
    options: CalibrateOptions
    first_ranges: Mapping[str, float] | None = None
    """In `tensorrt` mode, where the leading batches do not show all of them."""

    @classmethod
    def of(cls, job: CalibrationJob, model: Any, data: Any) -> CalibrationTask:
        """Return the task of a job. model, data: as `calibrate` was given them; a worker opens them in its process."""
        options = job.options
        model, data = (argument_for_workers(value, options.placement) for value in (model, data))
        own = options.of_worker()
        return cls(model, data, job.rules, job.spec, own)

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs that workers take in turn."""
        return gpus_to_share(self.options.provider)

    def open(self, threads: int) -> Callable[[Shard], ShardResult]:
        """Open model and data, and return a function that collects a shard. Raises what `calibrate` raises."""
        options = replace(self.options, data=replace(self.options.data, threads=threads))
        job = prepare_job(self.model, self.data, self.rules, self.spec, None, options)
        collector = ShardCollector(job, self.first_ranges)

        def run(shard: Shard) -> ShardResult:
            statistics = collector.collect(shard, NoProgress()).statistics
            return ShardResult(statistics_bytes(statistics), statistics.origin.samples)

        return run

"""The work of a worker on shards of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from quantkit.data.preprocess_choice import PreprocessChoice
from quantkit.evaluation.options import EvaluateOptions
from quantkit.evaluation.request import open_request
from quantkit.evaluation.shards.evaluator import ShardEvaluator
from quantkit.executors import ShardResult
from quantkit.executors.gpus import gpus_to_share
from quantkit.executors.placement import argument_for_workers
from quantkit.progress import NoProgress
from quantkit.sharding import Shard
from quantkit.sharding.data_parts import shard_batches


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """The arguments of an evaluation, from which every worker opens the same models and data."""

    models: Any
    data: Any
    labels: Any
    spec: PreprocessChoice
    metrics: Any
    options: EvaluateOptions

    @classmethod
    def of(
        cls, models: Any, data: Any, labels: Any, spec: PreprocessChoice, metrics: Any, options: EvaluateOptions
    ) -> EvaluationTask:
        """Return the task of a call of `evaluate`; a worker runs in its own process alone and writes no file."""
        place = options.placement
        several = isinstance(models, Sequence) and not isinstance(models, str)
        given = [model_for_workers(m, options) for m in models] if several else model_for_workers(models, options)
        data, labels = argument_for_workers(data, place), argument_for_workers(labels, place)
        own = options.of_worker()
        return cls(given, data, labels, spec, metrics, own)

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs that workers take in turn."""
        return gpus_to_share(self.options.provider, self.options.device)

    def open(self, threads: int) -> Callable[[Shard], ShardResult]:
        """Open models and data, and return a function that evaluates a shard. Raises what `evaluate` raises."""
        options = replace(self.options, data=replace(self.options.data, threads=threads))
        held = ExitStack()  # as long as the process lives
        opened = open_request(self.models, self.data, self.labels, self.spec, self.metrics, options, held)
        evaluator = ShardEvaluator(*opened, held, cores=threads)

        def run(shard: Shard) -> ShardResult:
            content = evaluator.collect(shard, NoProgress())
            return ShardResult(content, evaluator.feed.part(shard_batches(evaluator.feed, shard)).samples or 0)

        return run


def model_for_workers(model: Any, options: EvaluateOptions) -> Any:
    """Return a model as workers take it: each path of `model.onnx+model.calib` by itself."""
    if not isinstance(model, str) or "+" not in model:
        return argument_for_workers(model, options.placement)
    network, _, table = model.rpartition("+")
    return "+".join(str(argument_for_workers(part, options.placement)) for part in (network, table))

"""The work of a worker on shards of a sensitivity analysis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from quantkit.data.preprocess_choice import PreprocessChoice
from quantkit.executors import ShardResult
from quantkit.executors.placement import argument_for_workers
from quantkit.progress import NoProgress
from quantkit.sensitivity.options import LayersOptions
from quantkit.sensitivity.shards.maker import SensitivityShards
from quantkit.sensitivity.subject import QuantizationSources, open_subject
from quantkit.sharding import Shard
from quantkit.sharding.data_parts import shard_batches


@dataclass(frozen=True, slots=True)
class LayersTask:
    """The arguments of `layers`, from which every worker opens the same network and data."""

    model: Any
    sources: QuantizationSources
    data: Any
    spec: PreprocessChoice
    options: LayersOptions

    @classmethod
    def of(
        cls, model: Any, sources: QuantizationSources, data: Any, spec: PreprocessChoice, options: LayersOptions
    ) -> LayersTask:
        """Return the task of a call of `layers`; a worker runs in its own process alone and writes no file."""
        place = options.placement
        given = {f.name: argument_for_workers(getattr(sources, f.name), place) for f in fields(sources)}
        own = options.of_worker()
        model, data = argument_for_workers(model, place), argument_for_workers(data, place)
        return cls(model, QuantizationSources(**given), data, spec, own)

    @property
    def gpus(self) -> tuple[str, ...]:
        """No GPUs: layers are measured on the CPU."""
        return ()

    def open(self, threads: int) -> Callable[[Shard], ShardResult]:
        """Open network and data, and return a function that measures a shard. Raises what `layers` raises."""
        options = replace(self.options, data=replace(self.options.data, threads=threads))
        subject = open_subject(self.model, self.sources, self.spec, self.data, options)
        maker = SensitivityShards(subject, self.data, self.spec, options)

        def run(shard: Shard) -> ShardResult:
            content = maker.collect(shard, NoProgress())
            return ShardResult(content, maker.feed.part(shard_batches(maker.feed, shard)).samples or 0)

        return run

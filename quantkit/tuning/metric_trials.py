"""Evaluation of candidates of a network by the metric of its task, on one part of the data.

The float network runs once: if its outputs fit into memory, they are kept and replayed in every later pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from quantkit.data import DataOptions
from quantkit.data.feed import changed_data
from quantkit.data.preprocess_choice import AnyPreprocess
from quantkit.data.splitting import HoldoutPart
from quantkit.errors import DataError, UsageError
from quantkit.evaluation.bootstrap import Z
from quantkit.evaluation.evaluate import evaluate_subjects
from quantkit.evaluation.options import EvaluateOptions, EvaluationRequest
from quantkit.evaluation.paired import binary_difference
from quantkit.evaluation.result import Evaluation, IntervalMethod, MetricDifference, ModelScore, Speed
from quantkit.evaluation.runners import ModelRunner, Pending
from quantkit.evaluation.subjects import ReadNetworks, SubjectOptions, model_subject, open_subject
from quantkit.graph import Model
from quantkit.tuning.figure import Figure
from quantkit.tuning.result import AGREEMENT
from quantkit.values import Array, Batch

CACHE_BYTES = 256 << 20
"""Largest size of the float network's outputs to keep."""
FLOAT = "FP32"


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """How candidates are evaluated. data, labels, preprocess, metrics, options: as `evaluate` takes them. unreadable:
    samples of any part that were left out so far."""

    data: Any
    labels: str | Path | None = None
    preprocess: AnyPreprocess = None
    metrics: tuple[str, ...] = ()
    options: EvaluateOptions = field(default_factory=EvaluateOptions)
    unreadable: set[str] = field(default_factory=set, compare=False)


class MetricTrials:
    """Evaluates candidates of a network on one part of the data. evaluations: number of models that ran on it.

    Errors are those of `evaluate`; UsageError besides if neither labels nor class scores define a loss.
    """

    def __init__(self, model: Model, request: TrialRequest, part: HoldoutPart) -> None:
        data = replace(request.options.data, limit=None, part=part)
        self._options = replace(request.options, data=data, max_drop=None)
        self._model, self._request = model, request
        self._cache = OutputCache()
        self._read: tuple[str, str | None] | None = None
        self.evaluations = 0
        self.samples = 0

    def evaluation(self, candidates: Mapping[str, Model | Path], max_drop: float | None = None) -> Evaluation:
        """Evaluate the float network and candidates by name, on the same samples: models, and engines by their paths.

        BackendError where an engine cannot run.
        """
        request = self._request
        opening, networks = SubjectOptions(self._options.device), ReadNetworks()
        with ExitStack() as held:
            subjects = [
                model_subject(model) if isinstance(model, Model) else open_subject(str(model), held, opening, networks)
                for model in (self._model, *candidates.values())
            ]
            evaluation = evaluate_subjects(
                subjects,
                EvaluationRequest(
                    data=request.data,
                    labels=None if request.labels is None else Path(request.labels),
                    preprocess=request.preprocess,
                    metrics=request.metrics,
                    options=replace(self._options, names=(FLOAT, *candidates)),
                    budget=max_drop,
                    must_decide=True,
                    skipped_before=tuple(request.unreadable),
                ),
                wrap_reference=self._cache.wrap,
            )
        self.evaluations += len(subjects) - self._cache.complete
        self._cache.close()
        self.samples = evaluation.samples
        read = (evaluation.provenance["data"]["content"], evaluation.provenance["labels_sha256"])
        if self._read not in (None, read):
            raise changed_data("the data")
        self._read = read
        request.unreadable.update(evaluation.provenance["skipped"])
        return evaluation


class OutputCache:
    """The outputs of a network, batch by batch, kept from its first pass for the following ones."""

    def __init__(self) -> None:
        self._kept: list[Mapping[str, Array]] | None = []
        self._bytes = 0
        self._speed: Speed | None = None
        self.complete = False
        """True if an entire pass is kept."""

    def wrap(self, runner: ModelRunner) -> ModelRunner:
        """Return the runner for the next pass: it replays the outputs if they are kept, and else keeps them."""
        if self.complete and self._kept is not None:
            return ReplayRunner(self._kept, self._speed)
        return CachingRunner(runner, self)

    def keep(self, outputs: Mapping[str, Array]) -> None:
        """Keep the outputs of the next batch; drop all of them if they become too large."""
        if self._kept is None:
            return
        self._bytes += sum(array.nbytes for array in outputs.values())
        self._kept.append(outputs)
        if self._bytes > CACHE_BYTES:
            self._kept = None

    def keep_speed(self, speed: Speed | None) -> Speed | None:
        """Remember how fast the network ran."""
        self._speed = speed
        return speed

    def close(self) -> None:
        """End a pass."""
        self.complete = self._kept is not None


@dataclass(frozen=True, slots=True)
class CachingRunner:
    """A runner whose outputs are kept in a cache."""

    runner: ModelRunner
    cache: OutputCache

    def submit(self, batch: Batch, samples: int) -> Pending:
        """Start a batch."""
        pending = self.runner.submit(batch, samples)

        def outputs() -> Mapping[str, Array]:
            found = pending()
            self.cache.keep(found)
            return found

        return outputs

    def speed(self, batch: int) -> Speed | None:
        """Return how fast the network ran, and remember it."""
        return self.cache.keep_speed(self.runner.speed(batch))


class ReplayRunner:
    """A runner that returns kept outputs for the same batches."""

    def __init__(self, kept: Sequence[Mapping[str, Array]], speed: Speed | None) -> None:
        self._left, self._speed = iter(kept), speed

    def submit(self, batch: Batch, samples: int) -> Pending:
        """Return the outputs for the next batch. DataError if the data changed."""
        found = next(self._left, None)
        size = max((len(array) for array in batch.values() if array.ndim), default=samples)
        if found is None or any(array.ndim and len(array) not in (samples, size) for array in found.values()):
            raise DataError(
                "the batches differ from those of the previous pass",
                remedy="give data that yields the same samples in the same order each time",
            )
        return lambda: found

    def speed(self, batch: int) -> Speed | None:
        """Return how fast the network ran in its own pass."""
        del batch
        return self._speed


def loss_of(evaluation: Evaluation, score: ModelScore) -> Figure:
    """Return the loss of a candidate, by agreement with the float network if there are no labels.

    UsageError if there are no class scores either.
    """
    lost = score.difference
    if lost is not None and evaluation.metric is not None:
        error = standard_error(lost, evaluation.samples, 100.0 if evaluation.share else 1.0)
        return Figure(score.metrics[evaluation.metric], lost.value, lost.low, lost.high, error)
    if score.agreement is None:
        raise UsageError(
            "neither labels nor class scores define the loss of a candidate",
            remedy="give --labels, or a metric that fits these outputs with --metric",
        )
    losses = np.zeros(evaluation.samples)
    losses[: round((1.0 - score.agreement) * evaluation.samples)] = 1.0  # as if the float network were always right
    found = binary_difference(losses)
    error = standard_error(found, evaluation.samples, 1.0)
    drop, low, high, error = (100.0 * value for value in (found.value, max(found.low, 0.0), found.high, error))
    return Figure(score.agreement, drop, low, high, error)


def standard_error(lost: MetricDifference, samples: int, points: float) -> float:
    """Return the standard error of a loss of `points` × a mean: from the changed samples if they are counted, else from
    the interval, else 0."""
    if lost.method is IntervalMethod.CHANGED_SAMPLES:
        return points * math.sqrt(lost.better + lost.worse - (lost.worse - lost.better) ** 2 / samples) / samples
    return 0.0 if math.isnan(lost.high) else (lost.high - lost.low) / (2 * Z)


def trial_metric(evaluation: Evaluation) -> str:
    """Return the name of what is measured: the metric, or the agreement."""
    return evaluation.metric or AGREEMENT


def holdout_parts(holdout: float, options: DataOptions) -> tuple[HoldoutPart, HoldoutPart]:
    """Return the tuning part and the held-out part; --limit counts both."""
    return HoldoutPart(holdout, False, options.limit), HoldoutPart(holdout, True, options.limit)

"""Candidates of a network by the metric of its task, on one part of the data.

The float network runs once: its outputs are kept where they fit into memory, and stand for it in every later pass.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from quantkit.data import DataOptions
from quantkit.data.peeking import DataWatcher
from quantkit.data.splitting import HoldoutPart
from quantkit.errors import DataError, UsageError
from quantkit.evaluation.bootstrap import Z
from quantkit.evaluation.evaluate import EvaluationPass, data_record, open_evaluation_data, rename_subjects, run_pass
from quantkit.evaluation.options import EvaluateOptions, EvaluationRequest, describe_score_outputs, name_output_remedy
from quantkit.evaluation.paired import binary_difference
from quantkit.evaluation.result import Evaluation, MetricDifference, ModelScore, Speed
from quantkit.evaluation.runners import ModelRunner, Pending, open_model_runner, open_runner_pool
from quantkit.evaluation.subjects import model_subject
from quantkit.evaluation.summarize import EvaluationContext, summarize
from quantkit.graph import Model
from quantkit.preprocess import Preprocess
from quantkit.progress import NoProgress
from quantkit.tuning.result import AGREEMENT, Figure
from quantkit.values import Array, Batch

RECORDED = 256 << 20
"""Bytes of the float network's outputs that are kept."""
FLOAT = "FP32"


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """What candidates are judged by. data, labels, preprocess, metrics, options: as `evaluate` takes them. unreadable:
    samples of any part that were left out so far."""

    data: Any
    labels: str | Path | None = None
    preprocess: str | Path | Preprocess | None = None
    metrics: tuple[str, ...] = ()
    options: EvaluateOptions = field(default_factory=EvaluateOptions)
    unreadable: set[str] = field(default_factory=set, compare=False)


class MetricTrials:
    """Judges candidates of `model` on a part of the data. `evaluations` counts networks that ran over the part.

    Errors are those of `evaluate`; UsageError besides where neither labels nor class scores tell what is lost.
    """

    def __init__(self, model: Model, question: TrialRequest, part: HoldoutPart) -> None:
        limited = replace(question.options.data, limit=None, part=part)
        self._options = replace(question.options, data=limited, max_drop=None)
        self._model, self._question = model, question
        self._record = OutputCache()
        self.evaluations = 0
        self.samples = 0

    def evaluation(self, candidates: Mapping[str, Model], max_drop: float | None = None) -> Evaluation:
        """The float network and candidates by name, on the same samples."""
        started = time.monotonic()
        question = self._question
        options = replace(self._options, names=(FLOAT, *candidates))
        subjects = rename_subjects(tuple(model_subject(m) for m in (self._model, *candidates.values())), options.names)
        with ExitStack() as held:
            spec, feed = open_evaluation_data(subjects, question.data, question.preprocess, options, held)
            assert feed.first is not None
            team = open_runner_pool(held, feed.first.batch, options.provider)
            reference = self._record.of(open_model_runner(subjects[0], team, held))
            runs = [reference, *(open_model_runner(subject, team, held) for subject in subjects[1:])]
            labels = None if question.labels is None else Path(question.labels)
            wanted = EvaluationRequest(question.metrics, labels, question.data, options, spec.applied)
            passing = EvaluationPass(feed, team, runs, DataWatcher(spec.applied), NoProgress())
            scoring, identity = run_pass(passing, subjects, wanted)
            if scoring.undecided:
                raise UsageError(
                    f"{describe_score_outputs(scoring.undecided)}: which of them decides is not told",
                    remedy=name_output_remedy(scoring.undecided),
                )
            context = EvaluationContext(
                source=Path(question.data).resolve() if isinstance(question.data, (str, Path)) else None,
                data=data_record(question.data, feed, identity.identity() if identity else feed.identity()),
                spec=spec,
                speeds=tuple(run.speed(feed.batch_size or feed.first.samples) for run in runs),
                notes=(*feed.notes,),
                warnings=passing.watcher.warnings,
                skipped=tuple(feed.unreadable),
                skipped_before=tuple(question.unreadable),
                max_drop=max_drop if scoring.labels else None,
                changed=options.changed,
                seconds=time.monotonic() - started,
            )
            self.evaluations += len(candidates) + (not self._record.whole)
            self._record.close()
            self.samples = len(scoring.names)
            question.unreadable.update(feed.unreadable)
            return summarize(scoring, context)


class OutputCache:
    """The outputs of a network, batch by batch, kept from its first pass for the others."""

    def __init__(self) -> None:
        self._kept: list[Mapping[str, Array]] | None = []
        self._bytes = 0
        self._speed: Speed | None = None
        self.whole = False
        """Whether a pass is kept from its first batch to its last."""

    def of(self, running: ModelRunner) -> ModelRunner:
        """The network as it is to be run in the next pass."""
        if self.whole and self._kept is not None:
            return ReplayRunner(self._kept, self._speed)
        return CachingRunner(running, self)

    def keep(self, outputs: Mapping[str, Array]) -> None:
        """The outputs of the next batch; too many are forgotten altogether."""
        if self._kept is None:
            return
        self._bytes += sum(array.nbytes for array in outputs.values())
        self._kept.append(outputs)
        if self._bytes > RECORDED:
            self._kept = None

    def timed(self, speed: Speed | None) -> Speed | None:
        """Remember how fast the network ran."""
        self._speed = speed
        return speed

    def close(self) -> None:
        """A pass is over."""
        self.whole = self._kept is not None


@dataclass(frozen=True, slots=True)
class CachingRunner:
    """A network that runs, and whose outputs are kept."""

    running: ModelRunner
    record: OutputCache

    def submit(self, batch: Batch, samples: int) -> Pending:
        """Begin with a batch."""
        pending = self.running.submit(batch, samples)

        def outputs() -> Mapping[str, Array]:
            found = pending()
            self.record.keep(found)
            return found

        return outputs

    def speed(self, batch: int) -> Speed | None:
        """How fast it ran."""
        return self.record.timed(self.running.speed(batch))


class ReplayRunner:
    """What a network answered before, on the same batches."""

    def __init__(self, kept: Sequence[Mapping[str, Array]], speed: Speed | None) -> None:
        self._left, self._speed = iter(kept), speed

    def submit(self, batch: Batch, samples: int) -> Pending:
        """The outputs for the next batch. DataError where the data are not what they were."""
        found = next(self._left, None)
        size = max((len(array) for array in batch.values() if array.ndim), default=samples)
        if found is None or any(array.ndim and len(array) not in (samples, size) for array in found.values()):
            raise DataError(
                "the data gives other batches than in the pass before",
                remedy="give data that yields the same samples in the same order each time",
            )
        return lambda: found

    def speed(self, batch: int) -> Speed | None:
        """How fast it ran."""
        del batch
        return self._speed


def loss_of(evaluation: Evaluation, score: ModelScore) -> Figure:
    """What a candidate loses; without labels, by its agreement with the float network. UsageError where neither."""
    lost = score.difference
    if lost is not None and evaluation.metric is not None:
        error = standard_error(lost, evaluation.samples, 100.0 if evaluation.share else 1.0)
        return Figure(score.metrics[evaluation.metric], lost.value, lost.low, lost.high, error)
    if score.agreement is None:
        raise UsageError(
            "neither labels nor class scores tell what a candidate loses",
            remedy="give --labels, or a metric that fits these outputs with --metric",
        )
    losses = np.zeros(evaluation.samples)
    losses[: round((1.0 - score.agreement) * evaluation.samples)] = 1.0  # as if the float network were always right
    found = binary_difference(losses)
    error = standard_error(found, evaluation.samples, 1.0)
    drop, low, high, error = (100.0 * value for value in (found.value, max(found.low, 0.0), found.high, error))
    return Figure(score.agreement, drop, low, high, error)


def standard_error(lost: MetricDifference, samples: int, points: float) -> float:
    """Of a loss whose value is `points` × a mean: by the samples that changed, by the interval where they are not
    counted, 0 where there is no interval."""
    if "McNemar" in lost.method:
        return points * math.sqrt(lost.better + lost.worse - (lost.worse - lost.better) ** 2 / samples) / samples
    return 0.0 if math.isnan(lost.high) else (lost.high - lost.low) / (2 * Z)


def trial_metric(evaluation: Evaluation) -> str:
    """What is measured."""
    return evaluation.metric or AGREEMENT


def holdout_parts(holdout: float, options: DataOptions) -> tuple[HoldoutPart, HoldoutPart]:
    """The tuning part and the held-out part; --limit counts both."""
    return HoldoutPart(holdout, False, options.limit), HoldoutPart(holdout, True, options.limit)

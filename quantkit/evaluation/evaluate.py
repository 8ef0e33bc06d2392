"""evaluate: measure the cost and gain of INT8: models compared with a reference, on the same samples."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from quantkit.data import DataOptions, Portion
from quantkit.data.peeking import DataWatcher
from quantkit.data.preprocess_choice import AnyPreprocess
from quantkit.evaluation.accumulate import Outputs, Scoring
from quantkit.evaluation.evaluation_pass import (
    EvaluationPass,
    PassFigures,
    evaluation_context,
    open_evaluation_data,
    run_pass,
)
from quantkit.evaluation.options import EvaluateFields, EvaluateOptions, EvaluationRequest, resolve_metrics
from quantkit.evaluation.request import open_request, rename_subjects
from quantkit.evaluation.result import Evaluation
from quantkit.evaluation.runners import ModelRunner, open_model_runner, open_runner_pool
from quantkit.evaluation.shards.evaluator import ShardEvaluator
from quantkit.evaluation.shards.format import EVALUATION
from quantkit.evaluation.shards.merge import merge_evaluations
from quantkit.evaluation.shards.task import EvaluationTask
from quantkit.evaluation.subjects import Subject
from quantkit.evaluation.summarize import summarize
from quantkit.graph import AnyModel, refuse_changed_weights
from quantkit.keywords.option_fields import takes_fields
from quantkit.progress import NoProgress, Progress
from quantkit.totals import Division, run_by_workers, shards_at
from quantkit.values import checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack


@takes_fields(EvaluateOptions, DataOptions)
def evaluate(
    models: AnyModel | Sequence[AnyModel],
    data: Any,
    *,
    labels: str | os.PathLike[str] | Iterable[Any] | None = None,
    preprocess: AnyPreprocess = None,
    metrics: str | Sequence[str] | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
    **_: Unpack[EvaluateFields],
) -> Evaluation:
    """Evaluate models on the same samples, in one pass; the first is the reference for the others.

    models: float or Q/DQ ONNX models (paths or `onnx.ModelProto`), engines, and `model.onnx+model.calib` to simulate
    INT8 with a table. data: as for `calibrate`, images with labels as (image, label) pairs, and (inputs, labels) pairs
    of batches from a Python iterable. labels: a file of labels, or one
    for each image of a list; by default the class
    folders, the array `labels` in an `.npz`, or the labels in the batches. metrics: names as for `--metric`, or
    `module:callable`; differences are those of the first one. None: the default metric if there are labels and class
    scores.

    ModelError, DataError (which names the sample), PreprocessError, BackendError, StaleError, TableError, UsageError,
    Interrupted.
    """
    started = time.monotonic()
    options = checked_options(options, EvaluateOptions)
    with ExitStack() as held:
        subjects, request = open_request(models, data, labels, preprocess, metrics, options, held)
        if options.merge is not None:
            return merge_evaluations(ShardEvaluator(subjects, request, held), shards_at(EVALUATION, options.merge))
        if options.placement.divides:
            evaluator = ShardEvaluator(subjects, request, held)
            task = EvaluationTask.of(models, data, labels, evaluator.spec, metrics, options)
            division = Division(options.placement, options.data, options.parts, options.force)
            parts = run_by_workers(evaluator, EVALUATION, task, division, progress or NoProgress())
            result = merge_evaluations(evaluator, held.enter_context(parts))
            return replace(result, seconds=time.monotonic() - started)
        return evaluate_subjects(subjects, request, progress=progress, started=started)


def evaluate_subjects(
    subjects: Sequence[Subject],
    request: EvaluationRequest,
    *,
    progress: Progress | None = None,
    wrap_reference: Callable[[ModelRunner], ModelRunner] = lambda runner: runner,
    started: float | None = None,
) -> Evaluation:
    """Evaluate models that are open already, from files or in memory. Errors are those of `evaluate`.

    wrap_reference: replaces the runner of the reference, for example by one that caches its outputs. started: value of
    `time.monotonic()` from which the duration counts; None: now.
    """
    started = time.monotonic() if started is None else started
    subjects = rename_subjects(subjects, request.options.names)
    with ExitStack() as held:
        spec, feed = open_evaluation_data(subjects, request, held)
        assert feed.first is not None
        pool = open_runner_pool(held, feed.first.batch, request.options.provider)
        reference, *candidates = (open_model_runner(subject, pool, held) for subject in subjects)
        runners = [wrap_reference(reference), *candidates]
        pass_ = EvaluationPass(feed, pool, runners, DataWatcher(spec.applied), progress or NoProgress())

        def start(first: Outputs, portion: Portion) -> Scoring:
            return resolve_metrics(subjects, first, portion, feed, request, spec.applied)

        scoring, identity = run_pass(pass_, subjects, start)
        for subject in subjects:
            if subject.model is not None:
                refuse_changed_weights(subject.model)
        figures = PassFigures(
            identity.identity() if identity else feed.identity(),
            tuple(runner.speed(feed.batch_size or feed.first.samples) for runner in runners),
            pass_.watcher.warnings,
            tuple(feed.unreadable),
            time.monotonic() - started,
        )
        return summarize(scoring, evaluation_context(request, subjects, feed, spec, scoring, figures))

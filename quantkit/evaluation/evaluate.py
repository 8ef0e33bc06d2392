"""evaluate: measure the cost and gain of INT8: models compared with a reference, on the same samples."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit.data import DataOptions, Feed, Portion, open_data
from quantkit.data.feed import Identifier, portion_digests
from quantkit.data.image_list import given_data
from quantkit.data.opening import DEFAULT_BATCH
from quantkit.data.peeking import DataWatcher, PeekedFeed
from quantkit.data.pictures.find import data_name, is_remote
from quantkit.data.preprocess_choice import AnyPreprocess, PreprocessChoice, choose_spec, feeds_images
from quantkit.errors import DataError, Interrupted, UsageError
from quantkit.evaluation.accumulate import Outputs, Scoring
from quantkit.evaluation.options import EvaluateFields, EvaluateOptions, EvaluationRequest, resolve_metrics
from quantkit.evaluation.result import Evaluation
from quantkit.evaluation.runners import (
    ModelRunner,
    RunnerPool,
    indivisible_parts,
    indivisible_size,
    open_model_runner,
    open_runner_pool,
)
from quantkit.evaluation.subjects import Subject, SubjectOptions, common_inputs, list_of_models, open_subjects
from quantkit.evaluation.summarize import EvaluationContext, summarize
from quantkit.graph import AnyModel, Model, refuse_changed_weights
from quantkit.keywords.option_fields import takes_fields
from quantkit.paths import real_path
from quantkit.preprocess import Preprocess
from quantkit.progress import NoProgress, Progress
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
    given = list_of_models(models)
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics or ())
    refuse_idle_budget(given, options)
    data = given_data(data, labels)
    file = Path(labels) if isinstance(labels, (str, os.PathLike)) else None
    request = EvaluationRequest(data, file, preprocess, names, options)
    with ExitStack() as held:
        opening = SubjectOptions(options.device, options.allow_code, options.min_coverage)
        return evaluate_subjects(open_subjects(given, held, opening), request, progress=progress, started=started)


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
    options, data = request.options, request.data
    subjects = rename_subjects(subjects, options.names)
    with ExitStack() as held:
        spec, feed = open_evaluation_data(subjects, request, held)
        assert feed.first is not None
        pool = open_runner_pool(held, feed.first.batch, options.provider)
        reference, *candidates = (open_model_runner(subject, pool, held) for subject in subjects)
        runners = [wrap_reference(reference), *candidates]
        pass_ = EvaluationPass(feed, pool, runners, DataWatcher(spec.applied), progress or NoProgress())
        scoring, identity = run_pass(pass_, subjects, request, spec.applied)
        for subject in subjects:
            if subject.model is not None:
                refuse_changed_weights(subject.model)
        context = EvaluationContext(
            source=image_root(data, feed),
            data=data_record(data, feed, identity.identity() if identity else feed.identity()),
            spec=spec,
            speeds=tuple(runner.speed(feed.batch_size or feed.first.samples) for runner in runners),
            notes=(*feed.notes, *(note for subject in subjects for note in subject.notes)),
            warnings=pass_.watcher.warnings,
            skipped=tuple(feed.unreadable),
            skipped_before=request.skipped_before,
            max_drop=request.budget if options.max_drop is None and scoring.labels else options.max_drop,
            changed=options.changed,
            seconds=time.monotonic() - started,
        )
        return summarize(scoring, context)


def refuse_idle_budget(models: Sequence[Any], options: EvaluateOptions) -> None:
    """Raise UsageError if there is a budget but no model that could exceed it."""
    if options.max_drop is not None and len(models) == 1:
        raise UsageError(
            f"--max-drop {options.max_drop:g} needs a candidate to compare with the reference; only {models[0]} was "
            "given",
            remedy="give a candidate after the reference, or omit --max-drop",
        )


def rename_subjects(subjects: Sequence[Subject], names: Sequence[str]) -> tuple[Subject, ...]:
    """Return the models under other names, if there are any. UsageError unless each model gets a name of its own."""
    if not names:
        return tuple(subjects)
    if len(names) != len(subjects) or len(set(names)) != len(names) or not all(names):
        one = len(subjects) == 1
        raise UsageError(
            f"--names {','.join(names)!r} does not fit {len(subjects)} model{'' if one else 's'}",
            remedy=f"give {'one name' if one else 'every model a name of its own'}",
        )
    return tuple(replace(subject, name=name) for subject, name in zip(subjects, names, strict=True))


@dataclass(frozen=True, slots=True)
class EvaluationPass:
    """One pass of all models over the data."""

    feed: PeekedFeed
    pool: RunnerPool
    runners: Sequence[ModelRunner]
    watcher: DataWatcher
    progress: Progress


def open_evaluation_data(
    subjects: Sequence[Subject], request: EvaluationRequest, held: ExitStack
) -> tuple[PreprocessChoice, PeekedFeed]:
    """Open the data in a form that all models take, with their preprocessing. DataError, PreprocessError."""
    data, inputs = request.data, common_inputs(subjects)
    spec = choose_common_spec(subjects, request.preprocess, data)
    options = replace(request.options.data, whole=True)
    if options.batch_size is None and (feeds_images(data) or is_array_file(data)):
        options = replace(options, batch_size=choose_batch_size(subjects))
    feed, applied = open_data(data, inputs, spec.spec, options)
    peeked = PeekedFeed(feed)
    held.callback(peeked.close)
    if peeked.first is None:
        raise DataError("the data set is empty", remedy="give at least one sample")
    return spec.with_applied(applied), peeked


def is_array_file(data: Any) -> bool:
    """Return True if the samples are rows of a file."""
    return isinstance(data, (str, os.PathLike)) and Path(data).suffix in (".npy", ".npz")


def choose_batch_size(subjects: Sequence[Subject]) -> int:
    """Return about 32: a multiple of a fixed batch size, and no more than the engines take."""
    fixed = max((s.limits.low for s in subjects if s.limits.low == s.limits.high), default=1)
    highs = (s.limits.high for s in subjects if s.limits.low != s.limits.high)
    most = min((high for high in highs if high is not None), default=DEFAULT_BATCH)
    return fixed * max(1, min(DEFAULT_BATCH, most) // fixed)


def choose_common_spec(subjects: Sequence[Subject], preprocess: AnyPreprocess, data: Any) -> PreprocessChoice:
    """Choose the preprocessing as `calibrate` does: from the reference, else from the first model that declares it."""
    import onnx

    found = [
        choose_spec(preprocess, s.model if s.model else Model(s.path, onnx.ModelProto(), s.sha256), data, s.inputs)
        for s in subjects
    ]
    return next((spec for spec in found if spec.source != "default"), found[0])


def run_pass(
    pass_: EvaluationPass, subjects: Sequence[Subject], request: EvaluationRequest, spec: Preprocess | None
) -> tuple[Scoring, Identifier | None]:
    """Run all models over all batches while the next ones are decoded.

    The identity of a stream is computed on the way; other data keep the digests of what was read.
    """
    feed, progress = pass_.feed, pass_.progress
    identity = Identifier() if feed.kind == "stream" else None
    pending: deque[tuple[Portion, list[Callable[[], Outputs]]]] = deque()
    scoring: Scoring | None = None
    seen = 0

    def collect() -> None:
        nonlocal scoring
        portion, waiting = pending.popleft()
        found = [outputs() for outputs in waiting]
        if scoring is None:
            scoring = resolve_metrics(subjects, found[0], portion, feed, request, spec)
        scoring.add(portion, found)
        progress.advance(portion.samples)

    progress.start(feed.samples, 1, 0)
    try:
        for portion in feed.portions():
            if progress.stopped():
                raise Interrupted("the evaluation was stopped", remedy="start it again; nothing was written")
            pass_.watcher.see(portion)
            seen += portion.samples
            if identity is not None:
                identity.add(portion_digests(portion))
            for part in indivisible_parts(portion, subjects):
                pending.append((part, [runner.submit(part.batch, part.samples) for runner in pass_.runners]))
                if len(pending) > pass_.pool.lanes:
                    collect()
        while pending:
            collect()
    finally:
        progress.close()
    pass_.watcher.look()
    size = indivisible_size(subjects)
    if scoring is None:
        raise DataError(
            f"the samples do not fill a batch of {size}, the model's fixed size",
            remedy=f"give at least {size} samples",
        )
    if size is not None and (rest := seen - len(scoring.names)):
        scoring.notes += (f"{rest} of {seen:,} samples are left out: they do not fill a batch of {size}",)
    return scoring, identity


def image_root(data: Any, feed: Feed) -> Path | None:
    """Return the folder that names of images are relative to, or the path of other data; None without one."""
    if feed.images is not None:
        return real_path(feed.images.folder.root)
    is_path = isinstance(data, (str, os.PathLike)) and feed.kind != "images" and not is_remote(data)
    return real_path(data) if is_path else None


def data_record(data: Any, feed: Feed, identity: Any) -> Mapping[str, Any]:
    """Return the record of the samples for the provenance."""
    return {
        "source": data_name(data),
        "kind": feed.kind,
        "samples": identity.samples,
        "content": identity.content,
        "batch": feed.batch_size,
    }

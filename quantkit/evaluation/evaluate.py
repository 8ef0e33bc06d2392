"""evaluate: what INT8 costs and gains: models beside a reference, on the same samples."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantkit.data import Feed, Portion, open_data
from quantkit.data.feed import Identifier, batch_digests
from quantkit.data.opening import DEFAULT_BATCH
from quantkit.data.peeking import DataWatcher, PeekedFeed
from quantkit.data.preprocess_choice import PreprocessChoice, choose_spec, feeds_images
from quantkit.errors import DataError, Interrupted, UsageError
from quantkit.evaluation.accumulate import Outputs, Scoring
from quantkit.evaluation.options import EvaluateOptions, EvaluationRequest, resolve_metrics
from quantkit.evaluation.result import Evaluation
from quantkit.evaluation.runners import ModelRunner, RunnerPool, open_model_runner, open_runner_pool
from quantkit.evaluation.subjects import Subject, SubjectOptions, common_inputs, open_subjects
from quantkit.evaluation.summarize import EvaluationContext, summarize
from quantkit.graph import Model
from quantkit.preprocess import Preprocess
from quantkit.progress import NoProgress, Progress


def evaluate(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    data: Any,
    *,
    labels: str | os.PathLike[str] | None = None,
    preprocess: str | Path | Preprocess | None = None,
    metrics: str | Sequence[str] | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate models on the same samples, in one pass; the first is the reference of the others.

    models: float or Q/DQ ONNX, engines, and `model.onnx+model.calib` for INT8 as TensorRT would do it by a table. data:
    as `calibrate` takes it, and (inputs, labels) pairs of a Python iterable. labels: a file of labels; by default the
    class folders, the array `labels` in an `.npz`, or what comes along with batches. metrics: `top1`, `top5`, `yolo` or
    `module:callable`; differences are of the first one. None: top1 where there are labels and class scores.

    ModelError, DataError (the sample is named), PreprocessError, BackendError, StaleError, TableError, UsageError,
    Interrupted.
    """
    options = options or EvaluateOptions()
    given = [models] if isinstance(models, (str, os.PathLike)) else list(models)
    asked = (metrics,) if isinstance(metrics, str) else tuple(metrics or ())
    started = time.monotonic()
    refuse_idle_budget(given, options)
    with ExitStack() as held:
        subjects = rename_subjects(
            open_subjects(given, held, SubjectOptions(options.device, options.allow_code, options.min_coverage)),
            options.names,
        )
        spec, feed = open_evaluation_data(subjects, data, preprocess, options, held)
        assert feed.first is not None
        team = open_runner_pool(held, feed.first.batch, options.provider)
        runs = [open_model_runner(subject, team, held) for subject in subjects]
        wanted = EvaluationRequest(asked, None if labels is None else Path(labels), data, options, spec.applied)
        pass_ = EvaluationPass(feed, team, runs, DataWatcher(spec.applied), progress or NoProgress())
        scoring, identity = run_pass(pass_, subjects, wanted)
        context = EvaluationContext(
            source=Path(data).resolve() if isinstance(data, (str, os.PathLike)) else None,
            data=data_record(data, feed, identity.identity() if identity else feed.identity()),
            spec=spec,
            speeds=tuple(run.speed(feed.batch_size or feed.first.samples) for run in runs),
            notes=(*feed.notes, *(note for subject in subjects for note in subject.notes)),
            warnings=pass_.watcher.warnings,
            skipped=tuple(feed.unreadable),
            max_drop=options.max_drop,
            changed=options.changed,
            seconds=time.monotonic() - started,
        )
        return summarize(scoring, context)


def refuse_idle_budget(models: Sequence[Any], options: EvaluateOptions) -> None:
    """UsageError where there is a budget, and no model that could go over it."""
    if options.max_drop is not None and len(models) == 1:
        raise UsageError(
            f"--max-drop {options.max_drop:g} is what a model may lose beside the reference, and {models[0]} is alone",
            remedy="give a candidate behind it, or leave --max-drop out",
        )


def rename_subjects(subjects: tuple[Subject, ...], names: Sequence[str]) -> tuple[Subject, ...]:
    """The models under other names. UsageError where these do not tell them apart."""
    if not names:
        return subjects
    if len(names) != len(subjects) or len(set(names)) != len(names) or not all(names):
        one = len(subjects) == 1
        raise UsageError(
            f"{len(subjects)} model{' is' if one else 's are'} called {', '.join(map(repr, names))}",
            remedy=f"--names gives {'one name' if one else 'every model a name of its own'}",
        )
    return tuple(replace(subject, name=name) for subject, name in zip(subjects, names, strict=True))


@dataclass(frozen=True, slots=True)
class EvaluationPass:
    """One pass over the data by all models."""

    feed: PeekedFeed
    team: RunnerPool
    runs: Sequence[ModelRunner]
    watcher: DataWatcher
    progress: Progress


def open_evaluation_data(
    subjects: Sequence[Subject],
    data: Any,
    preprocess: str | Path | Preprocess | None,
    options: EvaluateOptions,
    held: ExitStack,
) -> tuple[PreprocessChoice, PeekedFeed]:
    """The data as all of the models take them, and how they are prepared. DataError, PreprocessError."""
    inputs = common_inputs(subjects)
    spec = choose_common_spec(subjects, preprocess, data)
    chosen = replace(options.data, whole=True)
    if chosen.batch_size is None and (feeds_images(data) or is_array_file(data)):
        chosen = replace(chosen, batch_size=choose_batch_size(subjects))
    feed, applied = open_data(data, inputs, spec.spec, chosen)
    peeked = PeekedFeed(feed)
    held.callback(peeked.close)
    if peeked.first is None:
        raise DataError("the data set is empty", remedy="give at least one sample")
    return spec.with_applied(applied), peeked


def is_array_file(data: Any) -> bool:
    """Whether data are rows of a file."""
    return isinstance(data, (str, os.PathLike)) and Path(data).suffix in (".npy", ".npz")


def choose_batch_size(subjects: Sequence[Subject]) -> int:
    """Samples a batch: about 32, whole batches for models that are fixed to some, and no more than engines take."""
    fixed = max((s.limits.low for s in subjects if s.limits.low == s.limits.high), default=1)
    highs = (s.limits.high for s in subjects if s.limits.low != s.limits.high)
    most = min((high for high in highs if high is not None), default=DEFAULT_BATCH)
    return fixed * max(1, min(DEFAULT_BATCH, most) // fixed)


def choose_common_spec(
    subjects: Sequence[Subject], asked: str | Path | Preprocess | None, data: Any
) -> PreprocessChoice:
    """As `calibrate` chooses it: by the reference, or by the first model that tells."""
    import onnx

    found = [
        choose_spec(asked, s.model if s.model else Model(s.path, onnx.ModelProto(), s.sha256), data) for s in subjects
    ]
    return next((spec for spec in found if spec.source != "default"), found[0])


def run_pass(
    pass_: EvaluationPass, subjects: Sequence[Subject], wanted: EvaluationRequest
) -> tuple[Scoring, Identifier | None]:
    """Run all models over all batches, while the next ones are decoded. The identity of batches and streams is found
    in passing; that of files is not."""
    feed, progress = pass_.feed, pass_.progress
    identity = Identifier() if feed.kind in ("batches", "stream") else None
    pending: deque[tuple[Portion, list[Callable[[], Outputs]]]] = deque()
    scoring: Scoring | None = None

    def collect() -> None:
        nonlocal scoring
        portion, waiting = pending.popleft()
        found = [outputs() for outputs in waiting]
        if scoring is None:
            scoring = resolve_metrics(subjects, found[0], portion, feed, wanted)
        scoring.add(portion, found)
        progress.advance(portion.samples)

    progress.start(feed.samples, 1, 0)
    try:
        for portion in feed.portions():
            if progress.stopped():
                raise Interrupted("the evaluation was stopped", remedy="start it again; nothing was written")
            pass_.watcher.see(portion)
            if identity is not None:
                identity.add(batch_digests(portion.batch, portion.samples))
            pending.append((portion, [run.submit(portion.batch, portion.samples) for run in pass_.runs]))
            if len(pending) > pass_.team.lanes:
                collect()
        while pending:
            collect()
    finally:
        progress.close()
    pass_.watcher.look()
    assert scoring is not None
    return scoring, identity


def data_record(data: Any, feed: Feed, identity: Any) -> Mapping[str, Any]:
    """What the samples were, for the record."""
    source = Path(data).resolve().name if isinstance(data, (str, os.PathLike)) else type(data).__name__
    return {
        "source": source,
        "kind": feed.kind,
        "samples": identity.samples,
        "content": identity.content,
        "batch": feed.batch_size,
    }

"""One pass of all models over the same samples: the data as all of them take it, and the totals of their outputs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantkit.data import DataIdentity, Feed, Portion, open_data
from quantkit.data.feed import Identifier, portion_digests
from quantkit.data.opening import DEFAULT_BATCH
from quantkit.data.peeking import DataWatcher, PeekedFeed
from quantkit.data.pictures.find import data_name, is_remote
from quantkit.data.preprocess_choice import AnyPreprocess, PreprocessChoice, choose_spec, feeds_images
from quantkit.errors import DataError, Interrupted
from quantkit.evaluation.accumulate import Outputs, Scoring
from quantkit.evaluation.options import EvaluationRequest
from quantkit.evaluation.result import Speed
from quantkit.evaluation.runners import ModelRunner, RunnerPool, indivisible_parts, indivisible_size
from quantkit.evaluation.subjects import Subject, common_inputs
from quantkit.evaluation.summarize import EvaluationContext
from quantkit.graph import Model
from quantkit.paths import real_path
from quantkit.progress import Progress


@dataclass(frozen=True, slots=True)
class PassFigures:
    """Figures of a pass beside the totals: the identity of what was read, the speed of each model, warnings about the
    data, samples that were left out, and the duration in seconds."""

    identity: DataIdentity | None
    speeds: tuple[Speed | None, ...]
    warnings: tuple[str, ...]
    skipped: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class EvaluationPass:
    """One pass of all models over the data."""

    feed: Feed
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
    pass_: EvaluationPass,
    subjects: Sequence[Subject],
    start: Callable[[Outputs, Portion], Scoring],
    scoring: Scoring | None = None,
) -> tuple[Scoring, Identifier | None]:
    """Run all models over all batches while the next ones are decoded; every sample is read and decoded once.

    start: returns totals of nothing yet, from the reference's outputs for the first batch. The identity of a stream is
    computed on the way; other data keep the digests of what was read. scoring: totals that are there already, to which
    the batches are added, if there are any.
    """
    feed, progress = pass_.feed, pass_.progress
    identity = Identifier() if feed.kind == "stream" else None
    pending: deque[tuple[Portion, list[Callable[[], Outputs]]]] = deque()
    seen = 0

    def collect() -> None:
        nonlocal scoring
        portion, waiting = pending.popleft()
        found = [outputs() for outputs in waiting]
        if scoring is None:
            scoring = start(found[0], portion)
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
    if scoring is None:
        raise unfilled_batch(indivisible_size(subjects) or 1)
    note_left_out(scoring, subjects, seen)
    return scoring, identity


def unfilled_batch(size: int) -> DataError:
    """Return the error for samples that do not fill a single batch."""
    return DataError(
        f"the samples do not fill a batch of {size}, the model's fixed size", remedy=f"give at least {size} samples"
    )


def note_left_out(scoring: Scoring, subjects: Sequence[Subject], seen: int) -> None:
    """Add a note on the samples that do not fill a batch of a model whose outputs cannot be divided. seen: all."""
    size = indivisible_size(subjects)
    if size is not None and (rest := seen - len(scoring.names)):
        scoring.notes += (f"{rest} of {seen:,} samples are left out: they do not fill a batch of {size}",)


def evaluation_context(
    request: EvaluationRequest,
    subjects: Sequence[Subject],
    feed: Feed,
    spec: PreprocessChoice,
    scoring: Scoring,
    figures: PassFigures,
) -> EvaluationContext:
    """Return the facts that a result contains besides the scores."""
    options = request.options
    return EvaluationContext(
        source=image_root(request.data, feed),
        data=data_record(request.data, feed, figures.identity),
        spec=spec,
        speeds=figures.speeds,
        notes=(*feed.notes, *(note for subject in subjects for note in subject.notes)),
        warnings=figures.warnings,
        skipped=figures.skipped,
        skipped_before=request.skipped_before,
        max_drop=request.budget if options.max_drop is None and scoring.labels else options.max_drop,
        changed=options.changed,
        seconds=figures.seconds,
    )


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

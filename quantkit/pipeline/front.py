"""Accuracy × latency on a GPU: engines of every precision beside the tuned one, the fastest that holds the budget.

FP32, TF32 and FP16 come from the float network, INT8 from the tuned Q/DQ network, and from its table where layers were
kept. Each engine is timed alone, and judged on the held-out part. Without a GPU nothing is timed, and it is said that
the share of weights in float stands for the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from quantkit.errors import QuantkitError
from quantkit.evaluation.tuning import Point, Tuning
from quantkit.graph import Model, write_model
from quantkit.pipeline.bench import BenchOptions, bench, why_no_gpu
from quantkit.pipeline.evaluate import evaluate
from quantkit.pipeline.judging import Question, figure, parts
from quantkit.pipeline.measuring import FASTER, ORDER, Bench

if TYPE_CHECKING:
    import onnx

BATCH = 32
SECONDS = 0.5


class Wishes(Protocol):
    """What is asked of a front."""

    @property
    def front(self) -> bool:
        """Whether engines are built where they can be."""

    @property
    def device(self) -> int:
        """Number of the GPU."""

    @property
    def holdout(self) -> float:
        """Share of the samples that is held out."""


def front_of(
    source: Model,
    tuning: Tuning,
    tuned: onnx.ModelProto,
    question: Question,
    wishes: Wishes,
    phase: Callable[[str], None],
) -> tuple[tuple[Point, ...], tuple[str, ...]]:
    """The points, fastest first, and what is to be said. Errors of `bench` and `evaluate` become a remark."""
    if not wishes.front:
        return (), ()
    reason = why_no_gpu(wishes.device)
    if reason is not None:
        share = f"{tuning.chosen.floats:.1%} of the weights"
        return (), (f"no latency was measured ({reason}): the cost is counted as what stays float, {share}",)
    with TemporaryDirectory(prefix="quantkit-") as folder:
        mixed = Path(folder) / f"{source.path.stem}.tuned.onnx"
        write_model(tuned, source.folder, mixed)
        options = BenchOptions(
            batches=(1, BATCH), streams=(1,), seconds=SECONDS, precisions=("fp32", "fp16", "int8"), device=wishes.device
        )
        try:
            timed = bench([source.path, mixed], options=options, output=folder, phase=phase)
            phase("engines on the held-out part")
            lost = losses(timed, Path(folder), source, question, wishes)
        except QuantkitError as error:
            return (), (f"no latency was measured: {error.problem}",)
    return points_of(timed, lost, tuning.max_drop), timed.notes


def losses(timed: Bench, folder: Path, source: Model, question: Question, wishes: Wishes) -> dict[str, float]:
    """Engine → what it loses on the held-out part."""
    engines = [folder / subject.name for subject in timed.subjects]
    part = parts(wishes.holdout, question.options.data)[1]
    data = replace(question.options.data, limit=None, part=part)
    options = replace(question.options, data=data, max_drop=None, device=wishes.device)
    found = evaluate(
        [source.path, *engines],
        question.data,
        labels=question.labels,
        preprocess=question.preprocess,
        metrics=question.metrics or None,
        options=options,
    )
    return {model.name: figure(found, model).drop for model in found.candidates}


def points_of(timed: Bench, lost: dict[str, float], max_drop: float) -> tuple[Point, ...]:
    """Engines by their latency at the largest batch; the simplest of those that are as fast as the fastest that holds
    the budget is chosen."""
    batch = timed.batches[-1]
    found = []
    for subject in timed.subjects:
        time = timed.median(subject.name, batch)
        if time is not None:
            found.append(Point(subject.name, subject.precision, lost.get(subject.name), time))
    found.sort(key=lambda point: point.milliseconds)
    best = chosen(found, max_drop)
    return tuple(replace(point, chosen=point is best) for point in found)


def chosen(found: Sequence[Point], max_drop: float) -> Point | None:
    """The point to take; None where none holds the budget."""
    allowed = [point for point in found if point.drop is not None and point.drop <= max_drop]
    if not allowed:
        return None
    fastest = min(point.milliseconds for point in allowed)
    near = [point for point in allowed if point.milliseconds <= fastest * FASTER]
    return min(near, key=lambda point: (order(point.precision), point.milliseconds))


def order(precision: str) -> int:
    """Simpler precisions first."""
    return ORDER.index(precision) if precision in ORDER else len(ORDER)

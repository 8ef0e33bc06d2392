"""Accuracy × latency on a GPU: engines of every precision beside the tuned one, the fastest that holds the budget.

FP32 and FP16 come from the float network, INT8 from the Q/DQ networks, untuned and tuned. Each engine is timed alone,
and judged on the held-out part. Without a GPU nothing is timed, and it is said that the share of weights in float
stands for the cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from quantkit.engines.bench import BenchOptions, bench, explain_no_gpu
from quantkit.engines.bench_result import BenchResult
from quantkit.engines.choice import TimedEngine, fastest_within_budget, is_faster
from quantkit.errors import QuantkitError
from quantkit.evaluation.evaluate import evaluate
from quantkit.graph import Model, write_model
from quantkit.tuning.metric_trials import TrialRequest, holdout_parts, loss_of
from quantkit.tuning.result import FrontPoint, Tuning, two_decimals

if TYPE_CHECKING:
    import onnx

BATCH = 32
FLOAT_PRECISIONS = ("fp32", "fp16")
SECONDS = 0.5
DIGEST = re.compile(r"\.[0-9a-f]{8}\.bench(?=\.engine$)")


@dataclass(frozen=True, slots=True)
class ParetoFront:
    """points: fastest first; machine: the GPU that they were timed on; said: what is to be said about them."""

    points: tuple[FrontPoint, ...] = ()
    machine: str = ""
    said: tuple[str, ...] = ()


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


def measure_front(
    source: Model,
    tuning: Tuning,
    quantized: Mapping[str, onnx.ModelProto],
    question: TrialRequest,
    wishes: Wishes,
    phase: Callable[[str], None],
) -> ParetoFront:
    """The engines. quantized: name → Q/DQ network. What keeps engines from being
    built, timed or judged becomes a remark: the result without them is whole."""
    if not wishes.front:
        return ParetoFront()
    reason = explain_no_gpu(wishes.device)
    if reason is not None:
        share = f"{tuning.chosen.floats:.1%} of the weights"
        return ParetoFront(
            said=(f"no latency was measured ({reason}): the cost is counted as what stays float, {share}",)
        )
    with TemporaryDirectory(prefix="quantkit-") as folder:
        paths = [Path(folder) / f"{source.path.stem}.{name}.onnx" for name in quantized]
        for path, proto in zip(paths, quantized.values(), strict=True):
            write_model(proto, source.folder, path)
        base = BenchOptions(batches=(1, BATCH), streams=(1,), seconds=SECONDS, device=wishes.device)
        try:
            timed = [
                bench(models, options=replace(base, precisions=precisions), output=folder, phase=phase)
                for models, precisions in (([source.path], FLOAT_PRECISIONS), (paths, ("int8",)))
            ]
            phase("engines on the held-out part")
            engines = [Path(folder) / subject.name for found in timed for subject in found.subjects]
            lost = measure_losses(engines, source, question, wishes)
        except QuantkitError as error:
            return ParetoFront(said=(f"no latency was measured: {error.problem}",))
    found = front_points(timed, lost, tuning.max_drop)
    said = (*advise_on_front(found, tuning.max_drop), *(text for part in timed for text in part.notes))
    return ParetoFront(found, timed[0].machine, said)


def advise_on_front(found: Sequence[FrontPoint], max_drop: float) -> tuple[str, ...]:
    """Whether INT8 is worth it here, and whether accuracy or speed speaks against it."""
    best = next((point for point in found if point.chosen), None)
    if best is None:
        return ("no engine holds the budget on the held-out part",)
    if best.precision == "int8":
        return ()
    other = best.precision.upper()
    over = [p for p in found if p.precision == "int8" and p.drop is not None and p.drop > max_drop]
    quick = next((p for p in over if is_faster(best.milliseconds / p.milliseconds)), None)
    if quick is not None:
        times = f"{best.milliseconds / quick.milliseconds:.2f}×"
        lost = two_decimals(quick.drop or 0.0)
        return (f"take {other}: {quick.name} is {times} as fast, but loses {lost}, which is over the budget",)
    return (f"INT8 is not worth it here: {other} holds the budget and is as fast",)


def measure_losses(engines: Sequence[Path], source: Model, question: TrialRequest, wishes: Wishes) -> dict[str, float]:
    """Engine → what it loses on the held-out part."""
    part = holdout_parts(wishes.holdout, question.options.data)[1]
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
    return {model.name: loss_of(found, model).drop for model in found.candidates}


def front_points(timed: Sequence[BenchResult], lost: Mapping[str, float], max_drop: float) -> tuple[FrontPoint, ...]:
    """Engines by their latency at the largest batch; the simplest of those that are as fast as the fastest that holds
    the budget is chosen."""
    found = []
    for bench_ in timed:
        for subject in bench_.subjects:
            time = bench_.median(subject.name, bench_.batches[-1])
            if time is not None:
                found.append(FrontPoint(engine_label(subject.name), subject.precision, lost.get(subject.name), time))
    found.sort(key=lambda point: point.milliseconds)
    engines = [TimedEngine(p.name, p.precision, p.milliseconds, p.drop) for p in found]
    best = fastest_within_budget([engine for engine in engines if engine.loss is not None], max_drop)
    return tuple(replace(point, chosen=engine is best) for point, engine in zip(found, engines, strict=True))


def engine_label(name: str) -> str:
    """The name of an engine without what keeps those of one folder apart: `net.fp16.engine`."""
    return DIGEST.sub("", name)

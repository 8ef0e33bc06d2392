"""The Pareto front of accuracy and latency on a GPU: engines of every precision, and the fastest within the budget.

FP32 and FP16 are built from the float network, INT8 or FP8 from the untuned and the tuned Q/DQ network. Each engine is
timed alone and evaluated on the held-out part. Without a GPU nothing is timed; a note then reports the fraction of
weights in float as the cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from quantkit.engines.bench import BenchOptions, bench, explain_no_gpu
from quantkit.engines.bench_result import BenchResult
from quantkit.engines.choice import TimedEngine, fastest_within_budget, is_faster
from quantkit.errors import QuantkitError
from quantkit.evaluation.evaluate import evaluate
from quantkit.graph import Model, write_model
from quantkit.quantization.result import Quantization
from quantkit.tuning.metric_trials import TrialRequest, holdout_parts, loss_of
from quantkit.tuning.options import TuneOptions
from quantkit.tuning.result import FrontPoint, Tuning, two_decimals
from quantkit.values import NetworkType

BATCH = 32
FLOAT_PRECISIONS = ("fp32", "fp16")
SECONDS = 0.5
DIGEST = re.compile(r"\.[0-9a-f]{8}\.bench(?=\.engine$)")


@dataclass(frozen=True, slots=True)
class ParetoFront:
    """A frozen value with the points (fastest first), the GPU that they were timed on, and notes about them."""

    points: tuple[FrontPoint, ...] = ()
    machine: str = ""
    notes: tuple[str, ...] = ()


def measure_front(
    source: Model,
    tuning: Tuning,
    quantized: Mapping[str, Quantization],
    request: TrialRequest,
    options: TuneOptions,
    phase: Callable[[str], None],
) -> ParetoFront:
    """Build, time and evaluate the engines. quantized: name → Q/DQ network.

    An error becomes a note, because the tuning result is complete without engines.
    """
    if not options.front:
        return ParetoFront()
    reason = explain_no_gpu(options.device)
    if reason is not None:
        share = f"{tuning.chosen.floats:.1%} of the weights"
        return ParetoFront(
            notes=(f"latency was not measured ({reason}); the cost is the fraction that stays float: {share}",)
        )
    with TemporaryDirectory(prefix="quantkit-") as folder:
        paths = [Path(folder) / f"{source.path.stem}.{name}.onnx" for name in quantized]
        for path, made in zip(paths, quantized.values(), strict=True):
            write_model(made.proto, source.folder, path)
        base = BenchOptions(batches=(1, BATCH), streams=(1,), seconds=SECONDS, device=options.device)
        try:
            timed = [
                bench(models, options=replace(base, precisions=precisions), output=folder, phase=phase)
                for models, precisions in (([source.path], FLOAT_PRECISIONS), (paths, ("int8",)))
            ]
            phase("evaluating engines on the held-out part")
            engines = [Path(folder) / subject.name for found in timed for subject in found.subjects]
            lost = measure_losses(engines, source, request, options)
        except QuantkitError as error:
            return ParetoFront(notes=(f"latency was not measured: {error.summary}",))
    found = front_points(timed, lost, tuning.max_drop, {n: operator_types_of(made) for n, made in quantized.items()})
    word = {NetworkType.MIXED: "INT8 with FP8"}.get(tuning.network_type, tuning.network_type.value.upper())
    notes = (*advise_on_front(found, tuning.max_drop, word), *(text for part in timed for text in part.notes))
    return ParetoFront(found, timed[0].machine, notes)


def advise_on_front(found: Sequence[FrontPoint], max_drop: float, word: str = "INT8") -> tuple[str, ...]:
    """Return a note if INT8 is not worth it here, and whether the reason is accuracy or speed.

    word: for the types of the Q/DQ network.
    """
    best = next((point for point in found if point.chosen), None)
    if best is None:
        return ("no engine is within the budget on the held-out part",)
    if best.precision == "int8":
        return ()
    other = best.precision.upper()
    over = [p for p in found if p.precision == "int8" and p.drop is not None and p.drop > max_drop]
    faster = next((p for p in over if is_faster(best.milliseconds / p.milliseconds)), None)
    if faster is not None:
        times = f"{best.milliseconds / faster.milliseconds:.2f}×"
        lost = two_decimals(faster.drop or 0.0)
        return (f"use {other}: {faster.name} is {times} as fast, but loses {lost}, which is over the budget",)
    return (f"{word} is not worth it here: {other} is within the budget and just as fast",)


def measure_losses(
    engines: Sequence[Path], source: Model, request: TrialRequest, options: TuneOptions
) -> dict[str, float]:
    """Return engine → what it loses on the held-out part."""
    part = holdout_parts(options.holdout, request.options.data)[1]
    data = replace(request.options.data, limit=None, part=part)
    evaluating = replace(request.options, data=data, max_drop=None, device=options.device)
    found = evaluate(
        [source.path, *engines],
        request.data,
        labels=request.labels,
        preprocess=request.preprocess,
        metrics=request.metrics or None,
        options=evaluating,
    )
    return {model.name: loss_of(found, model).drop for model in found.candidates}


def operator_types_of(made: Quantization) -> dict[str, str]:
    """Return operator → int8, fp8, or float for those that could be quantized and are not."""
    return {node: kind.value for node, kind in made.types.items()} | dict.fromkeys(made.left, "float")


def front_points(
    timed: Sequence[BenchResult],
    lost: Mapping[str, float],
    max_drop: float,
    types: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[FrontPoint, ...]:
    """Return the engines by their latency at the largest batch. types: Q/DQ network → its operators' types.

    The chosen one is the simplest of those that are as fast as the fastest within the budget.
    """
    found = []
    for result in timed:
        for subject in result.subjects:
            time = result.median(subject.name, result.batches[-1])
            if time is not None:
                label = engine_label(subject.name)
                own = next((each for name, each in (types or {}).items() if f".{name}." in label), {})
                found.append(FrontPoint(label, subject.precision, lost.get(subject.name), time, types=own))
    found.sort(key=lambda point: point.milliseconds)
    engines = [TimedEngine(p.name, p.precision, p.milliseconds, p.drop) for p in found]
    best = fastest_within_budget([engine for engine in engines if engine.loss is not None], max_drop)
    return tuple(replace(point, chosen=engine is best) for point, engine in zip(found, engines, strict=True))


def engine_label(name: str) -> str:
    """Return the name of an engine without the digest that makes it unique in its folder: `net.fp16.engine`."""
    return DIGEST.sub("", name)

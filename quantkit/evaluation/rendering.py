"""Evaluations as cells of text, for terminals and notebooks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantkit.evaluation.value import Difference, Evaluation, ModelScore
from quantkit.evaluation.verdict import on_processor
from quantkit.view import Block, Remarks, Table

HEAD = ("kind", "metric", "drop", "95 % interval", "agreement", "SQNR dB", "INT8 layers", "samples/s")


def score_row(score: ModelScore, evaluation: Evaluation) -> tuple[str, ...]:
    """kind, metric, drop, interval, agreement, SQNR, INT8 layers, speed as text; empty where there is none."""
    value = score.metrics.get(evaluation.metric) if evaluation.metric else None
    lost = score.difference
    layers = score.int8_layers
    return (
        score.kind.value,
        figure(value, evaluation.share),
        "" if lost is None else f"{lost.value:+.2f}",
        interval_text(lost),
        "" if score.agreement is None else f"{score.agreement:.2%}",
        f"{score.outputs[0].sqnr_db:.1f}" if score.outputs else "",
        f"{layers[0]} of {layers[1]}" if layers else "",
        f"{score.speed.samples_per_second:,.0f}" if score.speed else "",
    )


def figure(value: float | None, share: bool) -> str:
    """A metric's value: a share in percent."""
    if value is None:
        return ""
    return f"{value:.2%}" if share else f"{value:.4g}"


def interval_text(lost: Difference | None) -> str:
    """`−0.10 … +0.18`; empty where there is no interval."""
    if lost is None or not (math.isfinite(lost.low) and math.isfinite(lost.high)):
        return ""
    return f"{lost.low:+.2f} … {lost.high:+.2f}"


def evaluation_view(evaluation: Evaluation) -> Sequence[Block]:
    """A row for each model, and the verdict."""
    head = ("model", *head_of(evaluation.metric))
    rows = [(model.name, *told_row(model, evaluation)) for model in evaluation.models]
    unit = ", differences in points" if evaluation.share else ""
    return (
        f"{evaluation.samples:,} samples{unit}",
        Table(head, rows, frozenset({0, 1})),
        Remarks([*evaluation.verdict, *evaluation.notes]),
    )


def head_of(metric: str | None) -> tuple[str, ...]:
    """What `score_row` tells."""
    return (HEAD[0], metric or HEAD[1], *HEAD[2:])


def told_row(score: ModelScore, evaluation: Evaluation) -> tuple[str, ...]:
    """`score_row`, without speeds of a processor, which say nothing of a GPU's and are others every time."""
    kind, metric, drop, interval, *rest, speed = score_row(score, evaluation)
    told = "" if score.speed and on_processor(score.speed) else speed
    return kind, metric, drop.replace("-", "−"), interval.replace("-", "−"), *rest, told

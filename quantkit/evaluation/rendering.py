"""Evaluations as text cells and as small HTML tables for notebooks."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from quantkit.evaluation.value import Difference, Evaluation, ModelScore

HEAD = ("model", "kind", "metric", "drop", "95 % interval", "agreement", "SQNR dB", "INT8 layers", "samples/s")


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


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; every cell is escaped."""
    titles = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{body}</table>"


def evaluation_html(evaluation: Evaluation) -> str:
    """The verdict, and a row for each model."""
    said = "".join(f"<p>{html.escape(text)}</p>" for text in evaluation.verdict)
    head = (HEAD[0], HEAD[1], evaluation.metric or HEAD[2], *HEAD[3:])
    rows = [(model.name, *score_row(model, evaluation)) for model in evaluation.models]
    unit = ", differences in points" if evaluation.share else ""
    return f"{said}{table(head, rows)}<p>{evaluation.samples:,} samples{unit}</p>"

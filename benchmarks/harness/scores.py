"""The figures of an evaluated model that results keep."""

from __future__ import annotations

from typing import Any


def score_figures(score: Any, metric: str) -> dict[str, Any]:
    """Return metric, agreement in percent, drop and its interval in points, SQNR of the worst output in dB, layers."""
    lost = score.difference
    return {
        "metric": round(100 * score.metrics[metric], 2),
        "drop": None if lost is None else round(lost.value, 2),
        "interval": None if lost is None else [round(lost.low, 2), round(lost.high, 2)],
        "agreement": None if score.agreement is None else round(100 * score.agreement, 2),
        "sqnr_db": None if score.worst_output is None else round(score.worst_output.sqnr_db, 2),
        "int8_layers": score.int8_layers,
        "fp8_layers": score.fp8_layers,
    }

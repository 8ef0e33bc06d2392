"""The fastest precision inside an accuracy budget: one rule and one threshold for everything that recommends an engine.

is_faster(1.05)                        True: 5 % is more than two measurements of one engine differ by
fastest_within_budget(engines, 0.5)    the simplest of those that are as good as fastest and lose at most 0.5
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FASTER = 1.03
"""Ratio of two speeds from which one counts as faster.

Engines of the same layers, built and timed in one session, differ in their best median by up to 1.2 % (INT8 from
TensorRT's table and from the CPU's) and by up to 2.2 % (ViT's FP16 engine and its INT8 engine, which holds no INT8
layer): 2 % would take that for a gain. The smallest gain of an engine that does hold INT8 layers is 3.8 %. All of it
in `benchmarks/results/gpu_acceptance.json`.
"""
SIMPLEST_FIRST = ("fp32", "tf32", "fp16", "int8", "best")
"""Precisions by what they cost in accuracy, the least first."""


@dataclass(frozen=True, slots=True)
class TimedEngine:
    """An engine to choose from. loss: what it loses of the metric; None where that is not known."""

    name: str
    precision: str
    milliseconds: float
    loss: float | None = None


def is_faster(ratio: float) -> bool:
    """Return True if a ratio of speeds (theirs/ours in milliseconds) is more than measurement noise."""
    return ratio >= FASTER


def precision_rank(precision: str) -> int:
    """Position among the precisions, the simplest first; unknown ones come last."""
    return SIMPLEST_FIRST.index(precision) if precision in SIMPLEST_FIRST else len(SIMPLEST_FIRST)


def fastest_within_budget(engines: Sequence[TimedEngine], budget: float = math.inf) -> TimedEngine | None:
    """Return the simplest engine of those that are as good as fastest and lose no more than the budget.

    An engine whose loss is not known counts as inside the budget. None where no engine is inside it.
    """
    allowed = [engine for engine in engines if engine.loss is None or engine.loss <= budget]
    if not allowed:
        return None
    fastest = min(engine.milliseconds for engine in allowed)
    near = [engine for engine in allowed if not is_faster(engine.milliseconds / fastest)]
    return min(near, key=lambda engine: (precision_rank(engine.precision), engine.milliseconds, engine.name))

"""The time of an operator from those of its measured neighbours.

The neighbours are operators of the same kind; their distance is that of the logarithms of their channels and rows. An
operator that is far from all of them has no estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quantkit.gpu_profile.operator_size import OperatorSize
from quantkit.gpu_profile.profile import BorderTime, GpuProfile, OperatorTime

NEIGHBOURS = 4
FAR = 2.0
"""The distance from which on nothing is estimated: channels and rows four times as large, say."""
SOFT = 0.02
"""Added to squared distances, so that an operator that was measured itself counts nearly alone."""
GROWTH = 0.3
"""The power of the operations by which a neighbour's time is carried over: between that of a launch and of arithmetic.
It changes the estimate of both precisions alike."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Microseconds of an operator in both precisions. distance: to its nearest measured neighbour."""

    fp16: float
    int8: float
    distance: float


def estimate_operator(profile: GpuProfile, size: OperatorSize) -> Estimate | None:
    """Estimate an operator; None where it is far from every measurement."""
    return estimate_among(profile.operators, size)


def estimate_among(rows: Sequence[OperatorTime], size: OperatorSize) -> Estimate | None:
    """Estimate an operator from some rows."""
    near = sorted(((distance(row.size, size), k) for k, row in enumerate(rows) if row.kind == size.kind.value))
    near = [(d, k) for d, k in near[:NEIGHBOURS] if d < FAR]
    if not near:
        return None
    weights = [1 / (d**2 + SOFT) for d, _ in near]
    fp16 = int8 = 0.0
    for weight, (_, k) in zip(weights, near, strict=True):
        scale = GROWTH * math.log(size.operations / rows[k].size.operations)
        fp16 += weight * (math.log(rows[k].fp16) + scale)
        int8 += weight * (math.log(rows[k].int8) + scale)
    return Estimate(math.exp(fp16 / sum(weights)), math.exp(int8 / sum(weights)), near[0][0])


def distance(a: OperatorSize, b: OperatorSize) -> float:
    """Return how far two operators of one kind are from each other; infinite for kernels that differ in kind."""
    if a.kind is not b.kind or (a.kernel == 1) != (b.kernel == 1):
        return math.inf
    channels = [abs(math.log2(a.inputs / b.inputs)), abs(math.log2(a.outputs / b.outputs))]
    apart = [
        math.hypot(*channels) / math.sqrt(2),
        abs(math.log2(a.rows / b.rows)) / 2,
        abs(math.log2(a.kernel / b.kernel)),
        0.5 * (a.stride != b.stride),
        1.0 * (a.curved != b.curved),
        abs(math.log2(a.width / b.width)) / 2 if a.width and b.width else 0.0,
    ]
    return math.hypot(*apart)


def border_costs(rows: Sequence[BorderTime], values: int) -> tuple[float, float]:
    """Return the microseconds of Q in front of INT8, and of DQ behind it, for a tensor of so many values.

    Between measured sizes the nearest ones count, by the distance of their logarithms; beyond the largest one the
    memory's bandwidth does. (0, 0) where nothing was measured.
    """
    if not rows or values <= 0:
        return 0.0, 0.0
    largest = max(row.values for row in rows)
    beyond = max(1.0, values / largest)
    weights = [1 / (math.log2(min(values, largest) / row.values) ** 2 + SOFT) for row in rows]
    total = sum(weights)
    quantize = sum(w * row.quantize for w, row in zip(weights, rows, strict=True)) / total
    dequantize = sum(w * row.dequantize for w, row in zip(weights, rows, strict=True)) / total
    return max(0.0, quantize * beyond), max(0.0, dequantize * beyond)

"""What can be mended in the Q/DQ nodes of a network without changing what it computes.

int32 bias              float, as DequantizeLinear computes it: float32(q)·scale
uint8, zero point 128   int8, zero point 0: q − 128, the same numbers
scale 0                 the least normal number, where all that it applies to is stored, and zero
zero point of 0         int8, one for every scale
equal pairs             one
a Clip apart            Relu (Max) and Min: the same numbers
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quantkit.numerics import TINY
from quantkit.qdq.reader import QdqGraph, QdqNode, QuantizedTensor

if TYPE_CHECKING:
    from quantkit.values import Array

MIDDLE = 128
"""uint8 with this zero point is int8 with 0, number by number."""


def bias_values(reading: QdqGraph, step: QdqNode) -> Array | None:
    """A stored int32 tensor as its DequantizeLinear computes it; None where that cannot be told, or is asked for."""
    stored = reading.values(step.data)
    if stored is None or step.scale is None or step.result in {v.name for v in reading.graph.output}:
        return None
    if step.zero_name and (step.zero is None or step.zero.any()):
        return None
    scale = along(step.scale, step.axis, stored.ndim)
    if scale is None or not np.isfinite(step.scale).all():
        return None
    try:
        values = stored.astype(np.float32) * scale
    except ValueError:
        return None
    return np.asarray(values, step.scale.dtype) if values.shape == stored.shape else None


def zero_scales(reading: QdqGraph, carrier: QuantizedTensor) -> tuple[Array, ...] | None:
    """Scales of all nodes of a carrier with 0 raised to the least normal number; None where that is not exact.

    It is exact where everything that a scale of 0 applies to is stored, and zero.
    """
    values = reading.values(carrier.quantize.data if carrier.quantize else carrier.name)
    shifted = any(step.zero.any() if step.zero is not None else step.zero_name for step in carrier.steps)
    if values is None or shifted:
        return None
    raised = []
    for step in carrier.steps:
        scale = None if step.scale is None else along(step.scale, step.axis, values.ndim)
        if step.scale is None or scale is None or not np.isfinite(scale).all() or (scale < 0).any():
            return None
        try:
            covered = np.broadcast_to(scale == 0, values.shape)
        except ValueError:
            return None
        if values[covered].any():
            return None
        least = np.finfo(step.scale.dtype).tiny if step.scale_type != "bfloat16" else step.scale.dtype.type(TINY)
        raised.append(np.where(step.scale == 0, least, step.scale).astype(step.scale.dtype))
    return tuple(raised)


def is_shifted_int8(carrier: QuantizedTensor) -> bool:
    """Whether all nodes of a uint8 tensor have the zero point 128."""
    return all(step.zero is not None and bool((step.zero == MIDDLE).all()) for step in carrier.steps)


def is_free(reading: QdqGraph, carrier: QuantizedTensor) -> bool:
    """Whether only DequantizeLinear nodes see a quantized tensor, so that it may change its type."""
    made = carrier.quantize is not None or carrier.name in reading.weights
    readers = reading.readers.get(carrier.name, ())
    return made and carrier.name not in reading.held and len(readers) == len(carrier.dequantize)


def along(scale: Array, axis: int, rank: int) -> Array | None:
    """Scales in a shape that meets a tensor along `axis`; None where they do not fit."""
    if scale.size == 1:
        return scale.reshape(())
    if scale.ndim != 1 or not -rank <= axis < rank:
        return None
    return scale.reshape([-1 if d == axis % rank else 1 for d in range(rank)])

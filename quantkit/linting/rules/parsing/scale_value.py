"""scale-value: scales that are 0, negative, NaN or infinite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from quantkit.linting.finding import Defect
from quantkit.linting.graph_edit import GraphEdit
from quantkit.linting.quantized_tensors import distinct_nodes, eight_bit_tensors, scale_along
from quantkit.linting.rule import LintRule
from quantkit.numerics import TINY
from quantkit.qdq.reader import QdqGraph, QuantizedTensor

if TYPE_CHECKING:
    from quantkit.values import Array


def find_bad_scales(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield nodes with scales that are no positive finite numbers."""
    for tensor in eight_bit_tensors(qdq):
        for node in distinct_nodes(tensor):
            if node.scale is None:
                continue
            scale = np.asarray(node.scale, np.float64).ravel()
            bad = scale[~((scale > 0) & np.isfinite(scale))]
            if not bad.size:
                continue
            share = f"{bad.size} of {scale.size} scales" if scale.size > 1 else "the scale"
            values = ", ".join(dict.fromkeys(f"{v:g}" for v in bad[:3]))
            yield Defect(
                node.name,
                f"{share}: {values}; TensorRT requires positive numbers",
                "quantize again" if bad.any() else "the least normal number serves where everything is zero",
                fixable=raised_scales(qdq, tensor) is not None,
            )


def raised_scales(qdq: QdqGraph, tensor: QuantizedTensor) -> tuple[Array, ...] | None:
    """Return the scales of all nodes of a tensor with 0 raised to the least normal number; None if that is not exact.

    It is exact if everything that a scale of 0 applies to is stored, and zero.
    """
    values = qdq.values(tensor.quantize.data if tensor.quantize else tensor.name)
    shifted = any(node.zero.any() if node.zero is not None else node.zero_name for node in tensor.nodes)
    if values is None or shifted:
        return None
    raised = []
    for node in tensor.nodes:
        scale = None if node.scale is None else scale_along(node.scale, node.axis, values.ndim)
        if node.scale is None or scale is None or not np.isfinite(scale).all() or (scale < 0).any():
            return None
        try:
            covered = np.broadcast_to(scale == 0, values.shape)
        except ValueError:
            return None
        if values[covered].any():
            return None
        least = np.finfo(node.scale.dtype).tiny if node.scale_type != "bfloat16" else node.scale.dtype.type(TINY)
        raised.append(np.where(node.scale == 0, least, node.scale).astype(node.scale.dtype))
    return tuple(raised)


def raise_zero_scales(edit: GraphEdit) -> None:
    """Raise scales of 0 to the least normal number."""
    for tensor in edit.qdq.quantized:
        raised = raised_scales(edit.qdq, tensor) if tensor.nodes[0].stored in ("int8", "uint8") else None
        if raised is None:
            continue
        for node, scale in zip(tensor.nodes, raised, strict=True):
            if node.scale is not None and (node.scale == 0).any():
                edit.set_input(node.result, 1, edit.add_constant(scale, f"{node.scale_name}_normal"))


RULE = LintRule(
    "scale-value",
    "error",
    "a scale that is 0, negative, NaN or Inf",
    find_bad_scales,
    raise_zero_scales,
    "0 where everything that it applies to is zero: the least normal number",
)

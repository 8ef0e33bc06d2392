"""Outputs that hold class scores."""

from __future__ import annotations

from quantkit.values import Array


def class_scores(output: Array) -> Array | None:
    """Return an output as [N, C] if it is [N, C] or [N, C, 1, 1] with at least two classes, else None."""
    if output.ndim < 2 or output.shape[1] < 2 or any(d != 1 for d in output.shape[2:]):
        return None
    return output.reshape(output.shape[:2])

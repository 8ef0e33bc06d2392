"""Channels last or first: TensorFlow's images are NHWC, convolutions of ONNX and TensorRT are NCHW.

A model whose input stays NHWC begins with a Transpose, which TensorRT runs as a separate layer; quantkit's
preprocessing makes the layout that the model has.
"""

from __future__ import annotations

import numpy as np

from quantkit.values import Array, Batch

CHANNELS = (1, 3, 4)


def image_inputs(example: Batch) -> tuple[str, ...]:
    """Return the inputs that are images with their channels last."""
    return tuple(name for name, array in example.items() if array.ndim == 4 and array.shape[3] in CHANNELS)


def channels_first(array: Array) -> Array:
    """Transpose [N, H, W, C] to [N, C, H, W]."""
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def channels_last(array: Array) -> Array:
    """Transpose [N, C, H, W] to [N, H, W, C]."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def nhwc_notes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a note for each image input that stays NHWC."""
    return tuple(f"{name} stays NHWC: TensorRT transposes it first; --inputs-as-nchw avoids that" for name in names)

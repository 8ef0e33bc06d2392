"""Channels last or first: TensorFlow's images are NHWC, ONNX's and TensorRT's convolutions NCHW.

A model whose input stays NHWC begins with a Transpose, which TensorRT runs as a layer of its own; quantkit's
preprocessing makes either layout, and takes the one that the model has.
"""

from __future__ import annotations

import numpy as np

from quantkit.values import Array, Batch

CHANNELS = (1, 3, 4)


def image_inputs(example: Batch) -> tuple[str, ...]:
    """The inputs that are images with their channels last."""
    return tuple(name for name, array in example.items() if array.ndim == 4 and array.shape[3] in CHANNELS)


def channels_first(array: Array) -> Array:
    """[N, H, W, C] → [N, C, H, W]."""
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def channels_last(array: Array) -> Array:
    """[N, C, H, W] → [N, H, W, C]."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def nhwc_notes(names: tuple[str, ...]) -> tuple[str, ...]:
    """What the user should know of inputs that stay as they are."""
    return tuple(f"{name} stays NHWC: TensorRT transposes it first; --inputs-as-nchw leaves that out" for name in names)

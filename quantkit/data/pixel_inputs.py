"""Evidence of the pixels that an input takes: its type, and the operators that the network begins with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quantkit.graph import Model
from quantkit.graph.weights import stored_tensors, stored_values
from quantkit.values import ModelInput

MOVES = frozenset({"Cast", "Transpose", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Resize", "Pad"})
"""Operators that do not change the range of pixels."""
LARGE = 16.0
"""A mean or a divisor above it is one of pixels 0 … 255; those of pixels 0 … 1 are around 0.5."""


def default_preset(model: Model, inputs: Sequence[ModelInput]) -> tuple[str, str]:
    """Return the preset for images of a network that declares none, and why, in words.

    An input of integers takes pixels, because fractions 0 … 1 would all become 0 or 1; so does a network that begins
    with the arithmetic of a normalisation.
    """
    image = next((i for i in inputs if len(i.shape) == 4), None)
    if image is not None and "int" in image.dtype:
        return "raw", f"its input takes {image.dtype}, so pixels 0 … 255 are fed unchanged"
    if image is not None and (found := pixel_arithmetic(model, image.name)):
        return "raw", f"it begins with {found}, so pixels 0 … 255 are fed unchanged"
    return "unit", "pixels are divided by 255"


def pixel_arithmetic(model: Model, name: str) -> str | None:
    """Return the operator by which a network scales or centres pixels 0 … 255 itself, such as `Div by 255`; else None.

    name: of its input. Only the operators are looked at that every path from the input begins with.
    """
    stored = stored_tensors(model.proto.graph)
    for _ in model.proto.graph.node:
        readers = [node for node in model.proto.graph.node if name in node.input]
        if len(readers) != 1 or not readers[0].output:
            return None
        (node,) = readers
        if node.op_type in MOVES and node.input[0] == name:
            name = node.output[0]
            continue
        place = {"Sub": 1, "Add": None, "Div": 1, "Mul": None, "BatchNormalization": 3}.get(node.op_type, -1)
        others = [n for n in node.input if n != name] if place is None else node.input[place : place + 1]
        values = stored_values(model, stored, others[0]) if len(others) == 1 and others[0] in stored else None
        if values is None or not values.size or (place is not None and node.input[0] != name):
            return None
        size = float(np.abs(values.astype(np.float64)).max())
        large = 0 < size < 1 / LARGE if node.op_type == "Mul" else size > LARGE
        return f"{node.op_type} by {size:g}" if large and np.isfinite(size) else None
    return None

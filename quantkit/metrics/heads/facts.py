"""Facts about a network's outputs, from its graph and from an example of their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.index import Wiring, wire_graph
from quantkit.graph.operators import COMMUTING, QDQ
from quantkit.metrics.heads.head import Ending, OutputFacts
from quantkit.values import Array

if TYPE_CHECKING:
    import onnx

PASSING = (COMMUTING - {"MaxPool"}) | QDQ | {"Cast", "Identity"}
"""Operators that move values and make no new ones."""
ENDINGS = {"Sigmoid": Ending.SIGMOID, "Softmax": Ending.SOFTMAX}
FIRST_CLASS = 5
"""Column of the class number in a row of box, score and class."""


def example_facts(outputs: Mapping[str, Array], graph: onnx.GraphProto | None = None) -> tuple[OutputFacts, ...]:
    """Return the facts of outputs [N, …] of a batch. graph: None for an engine, whose values tell what they can."""
    wiring = None if graph is None else wire_graph(graph)
    found = []
    for name, values in outputs.items():
        found.append(
            OutputFacts(
                name,
                tuple(values.shape),
                values.dtype.kind in "iub",
                graph_ending(wiring, name) if wiring is not None else value_ending(values),
                holds_class_numbers(values),
                *(selection_of(wiring, name) if wiring is not None else (False, False)),
                ordered=are_ordered_corners(values),
                example=values,
            )
        )
    return tuple(found)


def declared_facts(shapes: Mapping[str, tuple[int, ...]]) -> tuple[OutputFacts, ...]:
    """Return what the shapes of outputs say; −1 is an unknown size."""
    return tuple(OutputFacts(name, tuple(None if d < 0 else d for d in shape)) for name, shape in shapes.items())


def graph_ending(wiring: Wiring, name: str) -> Ending:
    """Return the function that an output's values come from, through operators that only move them."""
    while (node := wiring.maker(name)) is not None:
        if node.op_type in ENDINGS:
            return ENDINGS[node.op_type]
        if node.op_type not in PASSING or not node.input:
            return Ending.OTHER
        name = node.input[0]
    return Ending.OTHER


def value_ending(values: Array) -> Ending:
    """Return the function that values look like: rows that sum to 1, or values in 0 … 1."""
    if values.dtype.kind != "f" or not values.size or not np.isfinite(values).all():
        return Ending.UNKNOWN
    if values.min() < 0 or values.max() > 1:
        return Ending.OTHER
    sums = values.astype(np.float64).sum(axis=-1)
    return Ending.SOFTMAX if values.shape[-1] > 1 and np.all(np.abs(sums - 1) <= 0.01) else Ending.SIGMOID


def holds_class_numbers(values: Array) -> bool | None:
    """Return True if rows [N, M, 6 …] look like corners, score and class number; None without rows."""
    if values.ndim != 3 or values.shape[2] <= FIRST_CLASS or values.dtype.kind != "f" or not values.size:
        return None
    numbers, scores = values[..., FIRST_CLASS], values[..., FIRST_CLASS - 1]
    if not (values[..., :2] <= values[..., 2:4]).all():
        return False
    whole = np.isfinite(numbers).all() and (numbers >= 0).all() and np.array_equal(numbers, np.rint(numbers))
    return bool(whole and scores.min() >= 0 and scores.max() <= 1.0001)


def are_ordered_corners(values: Array) -> bool | None:
    """Return True if all rows [N, M, 4] are corners x1 ≤ x2 and y1 ≤ y2; None if there are no such rows."""
    if values.ndim != 3 or values.shape[2] != 4 or not values.size:
        return None
    return bool((values[..., :2] <= values[..., 2:]).all())


def selection_of(wiring: Wiring, name: str) -> tuple[bool, bool]:
    """Return whether a NonMaxSuppression makes an output, and whether its boxes are centre and size."""
    while (node := wiring.maker(name)) is not None:
        if node.op_type == "NonMaxSuppression":
            return True, any(a.name == "center_point_box" and a.i == 1 for a in node.attribute)
        if node.op_type not in PASSING or not node.input:
            break
        name = node.input[0]
    return False, False

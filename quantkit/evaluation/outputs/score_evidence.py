"""Evidence that an output [N, C] holds class scores, so that its largest value is a prediction.

    CERTAIN     every row is a distribution, or the logarithm of one: the network ends in a Softmax
    POSSIBLE    a weighted layer or a pool makes the values: class scores, or else coordinates or an embedding
    UNLIKELY    another operator makes them, for example a Sigmoid, so that several classes may hold at once
    EXCLUDED    a TopK or an NMS selects and sorts them: the position of the largest says nothing

With labels, everything but EXCLUDED may be measured, because labels show whether it is right.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from quantkit.evaluation.outputs.predictions import are_probabilities
from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.index import Wiring, wire_graph
from quantkit.graph.operators import (
    ARITHMETIC,
    AVERAGE_POOLS,
    COMMUTING,
    PICKING,
    QDQ,
    WEIGHTED,
)
from quantkit.graph.selected_outputs import is_selected
from quantkit.metrics.class_scores import class_scores

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

PASSING = (COMMUTING - {"MaxPool", "Concat"} - PICKING) | QDQ | {"Cast", "BatchNormalization"}
"""Operators behind which scores are still scores."""
SCORING = WEIGHTED | AVERAGE_POOLS | {"ReduceMean"}
"""Operators that a classifier ends in, before its Softmax if there is one."""
ROWS = 8
"""Rows that are sorted by chance in one of 2⁸ cases at most."""


class Evidence(IntEnum):
    """How likely an output holds class scores; see the module."""

    EXCLUDED = 0
    UNLIKELY = 1
    POSSIBLE = 2
    CERTAIN = 3


def score_evidence(graph: onnx.GraphProto | None, name: str, values: Array) -> Evidence:
    """Return the evidence for an output [N, C]. graph: of the network, None for an engine; values: an example."""
    scores = class_scores(values)
    if scores is None or scores.dtype.kind != "f" or not len(scores):
        return Evidence.EXCLUDED
    wiring = None if graph is None else wire_graph(graph)
    if is_selected(wiring, name) if wiring is not None else is_sorted(scores):
        return Evidence.EXCLUDED
    if is_distribution(scores):
        return Evidence.CERTAIN
    if not np.isfinite(scores.max(axis=1)).all():
        return Evidence.UNLIKELY
    ends = graph is None or wiring is None or is_scoring_end(wiring, constant_tensors(graph), name)
    return Evidence.POSSIBLE if ends else Evidence.UNLIKELY


def is_distribution(scores: Array) -> bool:
    """Return True if every row sums to 1, or the exponentials of its values do."""
    if not np.isfinite(scores).all():
        return False
    logarithms = bool(scores.max() <= 0.0)
    return are_probabilities(np.exp(scores.astype(np.float64)) if logarithms else scores)


def is_sorted(scores: Array) -> bool:
    """Return True if there are enough rows, and all of them are sorted in the same direction."""
    steps = np.diff(scores.astype(np.float64), axis=1)
    return len(scores) >= ROWS and bool((steps <= 0).all() or (steps >= 0).all()) and bool(steps.any())


def is_scoring_end(wiring: Wiring, constants: Collection[str], name: str) -> bool:
    """Return True if a weighted layer or a pool makes the values, but for a bias, a factor, and a change of form."""
    while (node := wiring.maker(name)) is not None:
        if node.op_type in SCORING:
            return True
        if node.op_type in ARITHMETIC:
            computed = [tensor for tensor in node.input if tensor not in constants]
            if len(computed) != 1:
                return False
            name = computed[0]
        elif node.op_type in PASSING and node.input:
            name = node.input[0]
        else:
            return False
    return False

"""What is taken for class scores, and on what evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from scipy import special

from quantkit.evaluation.outputs.score_evidence import Evidence, score_evidence
from tests.support.networks import network

X = np.random.default_rng(5).standard_normal((40, 6)).astype(np.float32)
WEIGHTS = {
    "w": np.ones((6, 4), np.float32),
    "half": np.float32([0.5]),
    "k": np.array([3]),
    "shape": np.array([0, 4, 1, 1]),
    "by": np.float32(0.1),
    "zero": np.int8(0),
}


def graph(*nodes: tuple[str, list[str], dict[str, Any]]) -> Any:
    """A chain behind one matrix product; the last tensor is `y`."""
    made, before = [helper.make_node("MatMul", ["x", "w"], ["t"])], "t"
    for number, (operator, others, attributes) in enumerate(nodes):
        after = f"t{number}"
        outputs = [after, f"{after} places"] if operator == "TopK" else [after]
        made.append(helper.make_node(operator, [before, *others], outputs, **attributes))
        before = after
    made.append(helper.make_node("Identity", [before], ["y"]))
    return network(made, {"x": ["N", 6]}, ["y"], WEIGHTS).graph


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ([], Evidence.POSSIBLE),
        ([("Add", ["half"], {})], Evidence.POSSIBLE),
        ([("Mul", ["half"], {}), ("Reshape", ["shape"], {})], Evidence.POSSIBLE),
        ([("QuantizeLinear", ["by", "zero"], {}), ("DequantizeLinear", ["by", "zero"], {})], Evidence.POSSIBLE),
        ([("Sigmoid", [], {})], Evidence.UNLIKELY),
        ([("Relu", [], {})], Evidence.UNLIKELY),
        ([("Tanh", [], {}), ("Reshape", ["shape"], {})], Evidence.UNLIKELY),
        ([("LpNormalization", [], {})], Evidence.UNLIKELY),
        ([("Mul", ["t"], {})], Evidence.UNLIKELY),
        ([("TopK", ["k"], {})], Evidence.EXCLUDED),
        ([("TopK", ["k"], {}), ("Cast", [], {"to": 1})], Evidence.EXCLUDED),
    ],
)
def test_the_operators_at_the_end_are_evidence(chain: list[Any], expected: Evidence) -> None:
    assert score_evidence(graph(*chain), "y", X) is expected


@pytest.mark.parametrize("values", [special.softmax(X, axis=1), special.log_softmax(X, axis=1)])
def test_rows_that_are_distributions_are_class_scores(values: Any) -> None:
    values = values.astype(np.float32)
    assert score_evidence(graph(("Softmax", [], {})), "y", values) is Evidence.CERTAIN
    assert score_evidence(None, "y", values) is Evidence.CERTAIN
    assert score_evidence(graph(("TopK", ["k"], {})), "y", values) is Evidence.EXCLUDED


def test_an_engine_shows_sorted_values_alone() -> None:
    assert score_evidence(None, "y", X) is Evidence.POSSIBLE
    assert score_evidence(None, "y", np.sort(X, axis=1)) is Evidence.EXCLUDED
    assert score_evidence(None, "y", np.sort(X, axis=1)[:, ::-1]) is Evidence.EXCLUDED
    assert score_evidence(None, "y", np.sort(X[:3], axis=1)) is Evidence.POSSIBLE
    assert score_evidence(None, "y", np.ones((40, 6), np.float32)) is Evidence.POSSIBLE


@pytest.mark.parametrize("shape", [(40,), (), (40, 1), (40, 5, 2), (0, 5)])
def test_other_shapes_hold_no_class_scores(shape: tuple[int, ...]) -> None:
    assert score_evidence(None, "y", np.zeros(shape, np.float32)) is Evidence.EXCLUDED
    assert score_evidence(None, "y", np.zeros((40, 6), np.int64)) is Evidence.EXCLUDED

"""Stacks of one matrix become that matrix, and the network computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from quantkit.rewrites.single_matrices import unstack_matrices
from tests.support.qdq import model_of, noise
from tests.support.repairing import outputs_of

MATRIX = noise(4, 5)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("leading", [1, 2])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 2, 3, 4)])
def test_the_result_keeps_values_and_shape(shape: tuple[int, ...], leading: int, opset: int) -> None:
    stack = MATRIX.reshape((1,) * leading + MATRIX.shape)
    sizes = ", ".join(map(str, shape))
    model = model_of(f"(float[{sizes}] x) => (float[{', '.join('ABCD'[: max(len(shape), leading + 2)])}] y)"
                     f" {{ m = MatMul(x, w) y = Relu(m) }}", opset, w=stack)  # fmt: skip
    made = unstack_matrices(model)
    onnx.checker.check_model(made, full_check=True)
    assert {tuple(t.dims) for t in made.graph.initializer if t.name == "w"} == {(4, 5)}
    assert tuple(model.proto.graph.initializer[0].dims) == stack.shape, "the model itself is untouched"
    x = noise(*shape)
    (before,), (after,) = outputs_of(model.proto, x=x), outputs_of(made, x=x)
    np.testing.assert_array_equal(after, before)


def test_what_else_reads_the_stack_keeps_it() -> None:
    model = model_of(
        "(float[2, 3, 4] x) => (float[2, 3, 5] y) { m = MatMul(x, w) s = ReduceMax<axes = [1]>(w) y = Add(m, s) }",
        w=MATRIX[None],
    )
    made = unstack_matrices(model)
    assert {t.name: list(t.dims) for t in made.graph.initializer} == {"w": [1, 4, 5], "w_matrix": [4, 5]}
    x = noise(2, 3, 4)
    np.testing.assert_array_equal(outputs_of(made, x=x)[0], outputs_of(model.proto, x=x)[0])


@pytest.mark.parametrize(
    ("shape", "weight"), [("2, 3, 4", MATRIX), ("2, 3, 4", np.stack([MATRIX] * 2)), ("2, 3, 4", MATRIX[:, 0])]
)
def test_other_weights_stay(shape: str, weight: np.ndarray) -> None:  # type: ignore[type-arg]
    model = model_of(f"(float[{shape}] x) => (float y) {{ y = MatMul(x, w) }}", w=weight)
    assert unstack_matrices(model) is model.proto

"""INT8 operators are those whose activation and weight both come out of DequantizeLinear, moved at most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
from onnx import helper, numpy_helper

from quantkit.graph import Model
from quantkit.qdq.layer_counts import count_int8_layers
from quantkit.qdq.reader import has_qdq
from tests.support.networks import network

WEIGHTS = {
    "s": np.float32(0.1),
    "w": np.ones((4, 4), np.int8),
    "f": np.ones((4, 4), np.float32),
}


def counted(*nodes: tuple[str, list[str], str]) -> tuple[int, int]:
    made = [helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes]
    return count_int8_layers(Model(Path("m"), network(made, {"x": ["N", 4]}, [nodes[-1][2]], WEIGHTS), ""))


QUANTIZED = (("QuantizeLinear", ["x", "s"], "q"), ("DequantizeLinear", ["q", "s"], "a"))
WEIGHT = ("DequantizeLinear", ["w", "s"], "d")


def test_both_sides_have_to_be_quantized() -> None:
    assert counted(*QUANTIZED, WEIGHT, ("MatMul", ["a", "d"], "y")) == (1, 1)
    assert counted(*QUANTIZED, ("MatMul", ["a", "f"], "y")) == (0, 1)
    assert counted(WEIGHT, ("MatMul", ["x", "d"], "y")) == (0, 1)


def test_values_may_be_moved_in_between_but_not_changed() -> None:
    moved = (*QUANTIZED, WEIGHT, ("Transpose", ["d"], "t"), ("Identity", ["a"], "b"))
    assert counted(*moved, ("Gemm", ["b", "t"], "y")) == (1, 1)
    assert counted(*QUANTIZED, WEIGHT, ("Sigmoid", ["a"], "b"), ("MatMul", ["b", "d"], "y")) == (0, 1)


def test_products_of_activations_have_no_weights() -> None:
    assert counted(*QUANTIZED, ("Transpose", ["a"], "t"), ("MatMul", ["a", "t"], "y")) == (0, 0)


def test_what_quantkit_does_not_quantize_counts_as_float() -> None:
    """INT8 1/1 would be said of a network that is nothing but an LSTM in front of one Gemm."""
    assert counted(*QUANTIZED, WEIGHT, ("MatMul", ["a", "d"], "y"), ("Einsum", ["y", "f"], "z")) == (1, 2)


def test_integer_operators_are_neither_float_nor_behind_pairs() -> None:
    assert counted(("DynamicQuantizeLinear", ["x"], "q"), ("MatMulInteger", ["q", "w"], "y")) == (0, 0)


BODY = (
    "then_branch = yes () => (float[N, 4] t) { q = QuantizeLinear(x, s) a = DequantizeLinear(q, s) t = MatMul(a, d) }, "
    "else_branch = no () => (float[N, 4] e) { e = MatMul(x, f) }"
)


def test_operators_in_subgraphs_are_counted_as_they_are() -> None:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> net (float[N, 4] x, bool c) => (float[N, 4] y) '
        f"{{ d = DequantizeLinear(w, s) y = If(c) <{BODY}> }}"
    )
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in WEIGHTS.items())
    model = Model(Path("m"), proto, "")
    assert count_int8_layers(model) == (1, 2)
    assert has_qdq(Model(Path("m"), proto, ""))

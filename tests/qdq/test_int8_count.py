"""INT8 operators are those whose activation and weight both come out of DequantizeLinear, moved at most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

from quantkit.graph import Model
from quantkit.qdq.int8_count import count_int8_layers
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

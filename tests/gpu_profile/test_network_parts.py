"""Parts take in what TensorRT fuses, and tensors between them name every reader."""

from __future__ import annotations

from typing import Any

import numpy as np

from quantkit.gpu_profile.network_parts import NetworkParts, network_parts
from quantkit.gpu_profile.operator_size import OperatorKind
from quantkit.graph.index import index_graph
from quantkit.qdq.placement import place_pairs
from tests.support.qdq import model_of, noise


def parts_of(text: str, head: str = "(float[2, 4, 8, 8] x) => (float[A, B, C, D] y)", **weights: Any) -> NetworkParts:
    named = {"w": noise(4, 4, 1, 1), "v": noise(4, 4, 3, 3), "d": noise(4, 1, 3, 3), "u": noise(4, 8, 1, 1)}
    used = {name: value for name, value in {**named, **weights}.items() if f", {name})" in text}
    wires = index_graph(model_of(f"{head} {{ {text} }}", **used).proto)
    names = [name for node in wires.nodes for name in (*node.input, *node.output)]
    shapes = {name: None if None in s else s for name in names if (s := wires.shapes.get(name)) is not None}
    return network_parts(wires, place_pairs(wires, dict.fromkeys(names, 0.1)).inputs, shapes)


def readers(parts: NetworkParts) -> dict[str, tuple[str | None, set[str | None]]]:
    return {tensor.name: (tensor.maker, tensor.readers) for tensor in parts.tensors}


def test_activations_and_the_residual_add_belong_to_the_convolution() -> None:
    made = parts_of(
        "a = Conv(x, w) r = Relu(a) b = Conv<pads = [1, 1, 1, 1]>(r, v) s = Sigmoid(b) m = Mul(b, s) "
        "c = Conv(m, w) t = Add(c, r) q = Relu(t) y = Conv(q, w)"
    )
    assert list(made.parts) == ["a", "b", "c", "y"]
    assert readers(made) == {
        "x": (None, {"a"}), "r": ("a", {"b", "c"}), "m": ("b", {"c"}), "q": ("c", {"y"}), "y": ("y", {None}),
    }  # fmt: skip
    assert [part.size and (part.size.kernel, part.size.curved) for part in made.parts.values()] == [
        (1, False), (3, True), (1, False), (1, False),
    ]  # fmt: skip
    assert {tensor.name: tensor.values for tensor in made.tensors}["r"] == 2 * 4 * 8 * 8


def test_what_only_moves_values_is_looked_through() -> None:
    made = parts_of(
        "a = Conv(x, w) b = Conv(x, w) j = Concat<axis = 1>(a, b) "
        "p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(j) y = Conv(p, u)"
    )
    assert readers(made) == {
        "x": (None, {"a", "b"}), "a": ("a", {"y"}), "b": ("b", {"y"}), "y": ("y", {None}),
    }  # fmt: skip


def test_other_operators_are_float() -> None:
    made = parts_of(
        "a = Conv(x, w) s = Softmax(a) b = Conv(s, w) g = GlobalAveragePool(b) h = Sigmoid(g) y = Mul(b, h)"
    )
    assert readers(made) == {"x": (None, {"a"}), "a": ("a", {None}), "s": (None, {"b"}), "b": ("b", {None})}


def test_sizes_of_all_kinds() -> None:
    deep = parts_of("a = Conv<group = 4, pads = [1, 1, 1, 1], strides = [2, 2]>(x, d) y = ConvTranspose(a, w)")
    size, transposed = (part.size for part in deep.parts.values())
    assert size
    assert transposed
    assert (size.kind, size.inputs, size.width, size.stride, size.rows) == (OperatorKind.DEPTHWISE, 4, 1, 2, 2 * 16)
    assert size.operations == 2 * 16 * 4 * 9
    assert (transposed.kind, transposed.inputs, transposed.outputs) == (OperatorKind.TRANSPOSED, 4, 4)
    tokens = parts_of(
        "a = MatMul(x, k) y = Gemm<transB = 1>(a, l)", "(float[6, 3] x) => (float[6, 7] y)", k=noise(3, 5),
        l=np.ones((7, 5), np.float32),
    )  # fmt: skip
    product, gemm = (part.size for part in tokens.parts.values())
    assert product
    assert gemm
    assert (product.kind, product.inputs, product.outputs, product.rows) == (OperatorKind.MATMUL, 3, 5, 6)
    assert (gemm.kind, gemm.inputs, gemm.outputs, gemm.rows) == (OperatorKind.GEMM, 5, 7, 6)
    assert "3 → 5 channels" in product.words

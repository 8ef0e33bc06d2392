"""Operators with weights that stay float are named with the reason, wherever they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from quantkit.errors import ModelError
from quantkit.graph import Model
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.weighted_operators import unreachable_operators, weighted_operators

F = np.ones((4, 4), np.float32)
HEAD = '<ir_version: 8, opset_import: ["": 17, "own": 1, "com.microsoft": 1]> net '


def network(text: str, tail: str = "") -> onnx.ModelProto:
    """A network with a matrix `f` and a vector `v`."""
    proto = parser.parse_model(f"{HEAD}{text}{tail}")
    proto.graph.initializer.extend(
        numpy_helper.from_array(a, n) for n, a in {"f": F, "v": F[0], "packed": F.astype(np.uint8)}.items()
    )
    return proto


LOOP = (
    "(float[N, 4] x, int64 n, bool c) => (float[N, 4] y) { [walk] y = Loop(n, c, x) <body = inside "
    "(int64 i, bool k, float[N, 4] a) => (bool l, float[N, 4] b) { l = Identity(k) [step] b = MatMul(a, f) }> }"
)
NESTED = (
    "(float[N, 4] x, bool c) => (float[N, 4] y) { [outer] y = If(c) <then_branch = yes () => (float[N, 4] t) "
    "{ [inner] t = If(c) <then_branch = ya () => (float[N, 4] p) { m = Transpose(f) [deep] p = MatMul(x, m) }, "
    "else_branch = na () => (float[N, 4] q) { q = MatMul(x, x) }> }, "
    "else_branch = no () => (float[N, 4] e) { e = Neg(x) }> }"
)
CALL = "(float[N, 4] x) => (float[N, 4] y) { [call] y = own.F(x, f) }"
FUNCTION = ' <domain: "own", opset_import: ["": 12]> F (a, w) => (b) { m = MatMul(a, w) b = Softmax(m) }'
ONE = "(float[N, 4] x) => (float[A, B] y) "
UNREACHABLE: dict[str, tuple[str, str, dict[str, str]]] = {
    "Loop": (LOOP, "", {"step": "inside Loop: walk"}),
    "If in If": (NESTED, "", {"deep": "inside If: inner"}),
    "function": (CALL, FUNCTION, {"call/m": "inside function F: call"}),
    "Einsum": (ONE + '{ y = Einsum<equation = "ij,jk->ik">(x, f) }', "", {"y": "quantkit does not quantize Einsum"}),
    "GRU": (
        "(float[S, N, 4] x) => (float[A, B, C, D] y) { [r] y = GRU<hidden_size = 1>(x, g, g) }",
        "",
        {"r": "quantkit does not quantize GRU"},
    ),
    "another domain": (
        ONE + "{ y = com.microsoft.FusedMatMul(x, f) }",
        "",
        {"y": "quantkit does not quantize com.microsoft.FusedMatMul"},
    ),
    "integers": (
        ONE + "{ y = com.microsoft.MatMulNBits(x, packed, v) }",
        "",
        {"y": "quantized for onnxruntime, as com.microsoft.MatMulNBits"},
    ),
    "integers of ONNX": (
        ONE + "{ q, s, z = DynamicQuantizeLinear(x) i = MatMulInteger(q, packed, z) y = Cast<to = 1>(i) }",
        "",
        {"i": "quantized for onnxruntime, as MatMulInteger"},
    ),
    "integers without weights": (ONE + "{ y = com.microsoft.QLinearAdd(x, v, v, v, v, v, v, v) }", "", {}),
    "an operator that makes weights": (ONE + "{ w = own.Quant(f, v) y = own.Layer(x, w) }", "", {}),
    "activations": (ONE + '{ y = Einsum<equation = "ij,kj->ik">(x, x) }', "", {}),
    "vectors": (ONE + "{ y = com.microsoft.BiasGelu(x, v) }", "", {}),
    "plain": (ONE + "{ y = MatMul(x, f) }", "", {}),
}


@pytest.mark.parametrize("kind", UNREACHABLE)
def test_operators_that_cannot_be_quantized_are_named(kind: str) -> None:
    text, tail, expected = UNREACHABLE[kind]
    proto = network(text, tail)
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((1, 3, 4), np.float32), "g"))
    assert {name: str(reason) for name, reason in unreachable_operators(proto).items()} == expected
    assert len(weighted_operators(proto)) == len(expected) + (kind == "plain")


def test_they_are_listed_beside_what_is_quantized() -> None:
    proto = network(ONE + '{ [a] m = MatMul(x, f) [b] y = Einsum<equation = "ij,jk->ik">(m, f) }')
    made = insert_qdq(Model(Path("m"), proto, ""), {"x": 0.1, "m": 0.1})
    assert {name: str(reason) for name, reason in made.left.items()} == {"b": "quantkit does not quantize Einsum"}


def test_a_network_of_nothing_else_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError) as caught:
        insert_qdq(Model(Path("m"), network(LOOP), ""), {"x": 0.1})
    assert "inside Loop" in caught.value.problem
    assert "without control flow" in caught.value.remedy


@pytest.mark.parametrize(
    ("opsets", "text", "why"),
    [
        ('"com.microsoft": 1', "y = com.microsoft.Gelu(x)", "it has no weighted operators"),
        ('"com.microsoft": 1', "y = com.microsoft.FusedMatMul(x, f)", "does not quantize com.microsoft.FusedMatMul"),
        ('"": 11', "y = Mystery(x)", "it has no weighted operators"),
    ],
)
def test_the_opset_of_a_network_with_nothing_to_quantize_does_not_matter(opsets: str, text: str, why: str) -> None:
    proto = parser.parse_model(
        f"<ir_version: 8, opset_import: [{opsets}]> net (float[N, 4] x) => (float[N, 4] y) {{{text}}}"
    )
    proto.graph.initializer.append(numpy_helper.from_array(F, "f"))
    with pytest.raises(ModelError, match=f"no operator of this network can be quantized: .*{why}"):
        insert_qdq(Model(Path("m"), proto, ""), {"x": 0.1})


@pytest.mark.parametrize("constant", [False, True])
def test_sparse_weights_are_called_so(constant: bool) -> None:
    proto = network(ONE + "{ y = MatMul(x, s) }")
    values, places = numpy_helper.from_array(F[0, :2], "s"), numpy_helper.from_array(np.array([1, 6]), "places")
    sparse = helper.make_sparse_tensor(values, places, [4, 4])
    if constant:
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["s"], sparse_value=sparse))
    else:
        proto.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match="its weights are stored as a sparse tensor") as caught:
        insert_qdq(Model(Path("m"), proto, ""), {"x": 0.1})
    assert "dense" in caught.value.remedy

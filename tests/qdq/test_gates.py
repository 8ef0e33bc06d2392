"""Gates of squeeze and excite, in the forms that exporters give them, and what only looks like one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from quantkit.graph import Model
from quantkit.graph.index import index_graph
from quantkit.qdq.float_reason import FloatCause
from quantkit.qdq.patterns.gates import find_gates, gate_nodes
from quantkit.qdq.placement import Choices, Policy
from tests.support.qdq import inserted, model_of, noise, placed, reasons

GATE = FloatCause.GATE.value

HEAD = "(float[1, 8, 6, 6] x) => (float[1, 8, 6, 6] y)"
FREE = "(float[N, 8, H, W] x) => (float[N, 8, H, W] y)"
SPACE = np.array([2, 3])
WEIGHTS: dict[str, Any] = {
    "w": noise(8, 8, 1, 1), "w1": noise(2, 8, 1, 1), "w2": noise(8, 2, 1, 1), "g1": noise(8, 2), "g2": noise(2, 8),
    "space": SPACE, "channel": np.array([1]), "flat": np.array([-1, 8]), "square": np.array([-1, 8, 1, 1]),
    "three": np.float32(3), "six": np.float32(6), "zero": np.float32(0), "b": noise(8),
    "s1": noise(1, 1, 3, 3), "s2": noise(1, 2, 3, 3), "c1": noise(8, 8),
}  # fmt: skip
CONVS = "h = Conv(p, w1) i = Relu(h) k = Conv(i, w2) "
FORMS = {
    "Conv": f"p = GlobalAveragePool(c) {CONVS} s = Sigmoid(k) m = Mul(c, s)",
    "gate first": f"p = GlobalAveragePool(c) {CONVS} s = Sigmoid(k) m = Mul(s, c)",
    "HardSigmoid": f"p = GlobalAveragePool(c) {CONVS} s = HardSigmoid(k) m = Mul(c, s)",
    "HardSigmoid, written out": f"p = GlobalAveragePool(c) {CONVS} a = Add(k, three) e = Clip(a, zero, six)"
    " s = Div(e, six) m = Mul(c, s)",
    "SiLU inside": "p = GlobalAveragePool(c) h = Conv(p, w1) j = Sigmoid(h) i = Mul(h, j) k = Conv(i, w2)"
    " s = Sigmoid(k) m = Mul(c, s)",
    "Gemm": "p = GlobalAveragePool(c) f = Flatten(p) h = Gemm(f, g1) i = Relu(h) k = Gemm(i, g2) s = Sigmoid(k)"
    " r = Reshape(s, square) m = Mul(c, r)",
    "MatMul": "p = GlobalAveragePool(c) f = Reshape(p, flat) h = MatMul(f, g1) i = Relu(h) k = MatMul(i, g2)"
    " a = Add(k, b) s = Sigmoid(a) r = Reshape(s, square) m = Mul(c, r)",
    "ReduceMean": f"p = ReduceMean<axes = [2, 3]>(c) {CONVS} s = Sigmoid(k) m = Mul(c, s)",
    "ReduceMean, negative axes": f"p = ReduceMean<axes = [-1, -2]>(c) {CONVS} s = Sigmoid(k) m = Mul(c, s)",
    "ReduceMean to vectors": "p = ReduceMean<axes = [2, 3], keepdims = 0>(c) h = Gemm(p, g1) i = Relu(h)"
    " k = Gemm(i, g2) s = Sigmoid(k) r = Reshape(s, square) m = Mul(c, r)",
    "both pools of CBAM": "p = GlobalAveragePool(c) q = GlobalMaxPool(c) h = Conv(p, w1) i = Relu(h) k = Conv(i, w2)"
    " n = Conv(q, w1) o = Relu(n) l = Conv(o, w2) a = Add(k, l) s = Sigmoid(a) m = Mul(c, s)",
}
GATING = {"CBAM": {"h", "k", "n", "l"}}


def net(text: str, head: str = HEAD, opset: int = 17) -> Model:
    """A network; of the weights those that it names."""
    text = f"c = Conv(x, w) {text}"
    words = set(re.findall(r"\w+", text))
    return model_of(f"{head} {{ {text} }}", opset, **{name: v for name, v in WEIGHTS.items() if name in words})


def found(model: Model) -> set[str]:
    wires = index_graph(model.proto)
    return {wires.name(number) for number in gate_nodes(find_gates(wires))}


@pytest.mark.parametrize("head", [HEAD, FREE], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("form", FORMS)
def test_a_gate_is_found_and_stays_float(form: str, head: str) -> None:
    model = net(f"{FORMS[form]} y = Conv(m, w)", head)
    expected = {"h", "k", "n", "l"} if "CBAM" in form else {"h", "k"}
    assert found(model) == expected
    made = inserted(model)
    assert reasons(made) == dict.fromkeys(expected, GATE)
    assert placed(made) == ["x", "m"], "and so does its pool"


def test_a_gate_whose_axes_are_an_input() -> None:
    """From opset 18 on."""
    assert found(net(f"p = ReduceMean(c, space) {CONVS} s = Sigmoid(k) m = Mul(c, s) y = Conv(m, w)", opset=18)) == {
        "h", "k"}  # fmt: skip


def test_a_pool_as_large_as_its_input_is_global() -> None:
    """Exported with fixed shapes, as by older exporters."""
    pool = "AveragePool<kernel_shape = [6, 6]>(c)"
    assert found(net(f"p = {pool} {CONVS} s = Sigmoid(k) m = Mul(c, s) y = Conv(m, w)")) == {"h", "k"}


def test_a_gate_can_be_included() -> None:
    model = net(f"{FORMS['Conv']} y = Conv(m, w)")
    made = inserted(model, choices=Choices(include=frozenset({"h", "k"})))
    assert made.left == {}
    assert {"p", "i"} <= set(placed(made))
    assert inserted(model, choices=Choices(Policy.ALL)).left == {}


OTHERS = {
    "a classifier": "p = GlobalAveragePool(c) f = Flatten(p) y = Gemm(f, c1)",
    "a classifier with a hidden layer and SiLU": "p = GlobalAveragePool(c) h = Conv(p, w1) j = Sigmoid(h)"
    " i = Mul(h, j) k = Conv(i, w2) y = Flatten(k)",
    "spatial attention": "p = ReduceMean<axes = [1]>(c) h = Conv<pads = [1, 1, 1, 1]>(p, s1) s = Sigmoid(h)"
    " y = Mul(c, s)",
    "spatial attention of CBAM": "p = ReduceMean<axes = [1]>(c) q = ReduceMax<axes = [1]>(c)"
    " j = Concat<axis = 1>(p, q) h = Conv<pads = [1, 1, 1, 1]>(j, s2) s = Sigmoid(h) y = Mul(c, s)",
    "a gate that is not pooled": "h = Conv(c, w) s = Sigmoid(h) y = Mul(c, s)",
    "a scale that is learnt": "h = Conv(c, w) y = Mul(h, three)",
    "a mask of coarse pools": "p = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(c) h = Conv(p, w)"
    " s = Sigmoid(h) y = Mul(c, s)",
    "what is pooled and added": "p = GlobalAveragePool(c) h = Conv(p, w) y = Add(c, h)",
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("free", [False, True], ids=["fixed", "dynamic"])
def test_what_is_no_gate(kind: str, free: bool) -> None:
    head = "(float[N, 8, H, W] x) => (float y)" if free else "(float[1, 8, 6, 6] x) => (float y)"
    model = net(
        OTHERS[kind], head.replace("float y", "float[A, B] y" if "classifier" in kind else "float[A, B, C, D] y")
    )
    assert found(model) == set()
    assert GATE not in reasons(inserted(model)).values()


def test_a_classifier_behind_gates_is_none() -> None:
    """Only what is multiplied again with a tensor that is larger."""
    model = net(f"{FORMS['Conv']} e = Conv(m, w) z = GlobalAveragePool(e) f = Flatten(z) y = Gemm(f, c1)",
                "(float[1, 8, 6, 6] x) => (float[1, 8] y)")  # fmt: skip
    assert found(model) == {"h", "k"}
    assert "z" not in inserted(model).left
    assert {"e", "f"} <= set(placed(inserted(model)))

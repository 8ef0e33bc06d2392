"""Where pairs go in the networks that there are, which scales are shared, and what stays float for which reason."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from quantkit.graph import Model
from quantkit.graph.index import index_graph
from quantkit.graph.weights import stored_tensors
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import QuantizedNetwork
from quantkit.qdq.placement import Choices, Policy
from quantkit.repairs.editing import WeightEditor
from quantkit.repairs.weighted_layers import weighted_layers
from tests.support.qdq import (
    behind_pairs,
    every_scale,
    inserted,
    model_of,
    node_of,
    noise,
    pair,
    placed,
    reasons,
)

SAME = "(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)"
ANY = "(float[1, 4, 8, 8] x) => (float[A, B, C, D] y)"
TOKENS = "(float[1, 8, 16] x) => (float[1, 8, 16] y)"


def weights_of(text: str) -> dict[str, Any]:
    """Weights that a text names: `w`, `v`, `u` 4 → 4 channels, `d` 8 → 4, `t` 12 → 4, `q` 16 → 4, and so on."""
    shapes = {"w": (4, 4, 1, 1), "v": (4, 4, 1, 1), "u": (4, 4, 1, 1), "d": (4, 8, 1, 1), "t": (4, 12, 1, 1),
              "q": (4, 16, 1, 1), "m": (16, 16), "n": (16, 16)}  # fmt: skip
    named: dict[str, Any] = {name: noise(*shape) for name, shape in shapes.items()}
    named |= {"g": np.abs(noise(4)) + 1, "h": np.array([2, 2])}
    return {
        k: value for k, value in named.items() if re.search(rf", {k}[,)]", text) and not re.search(rf"\b{k} =", text)
    }


def net(text: str, head: str = SAME, opset: int = 17, **more: Any) -> Model:
    return model_of(f"{head} {{ {text} }}", opset, **{**weights_of(text), **more})


# Policies ---------------------------------------------------------------------------------------------------------

MIXED = "c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) s = Conv(p, v) k = Reshape(s, flat) y = Gemm(k, z)"


def mixed() -> Model:
    return net(MIXED, "(float[1, 4, 8, 8] x) => (float[1, 5] y)", z=noise(4, 5), flat=np.array([1, 4]))


def test_conv_only_leaves_what_is_no_convolution() -> None:
    assert placed(inserted(mixed())) == ["x", "r", "p", "k"]
    made = inserted(mixed(), choices=Choices(Policy.CONV_ONLY))
    assert placed(made) == ["x", "r", "p"]
    assert reasons(made) == {"y": "not a convolution (policy conv-only)"}


def test_a_pool_before_a_gemm_alone_stays_float_with_it() -> None:
    text = "c = Conv(x, w) p = GlobalAveragePool(c) k = Flatten(p) y = Gemm(k, z)"
    model = net(text, "(float[1, 4, 8, 8] x) => (float[1, 5] y)", z=noise(4, 5))
    assert placed(inserted(model)) == ["x", "c", "k"]
    assert placed(inserted(model, choices=Choices(Policy.CONV_ONLY))) == ["x"]


ATTENTION = (
    "l = LayerNormalization(x, o) a = MatMul(l, m) b = MatMul(l, n) t = Transpose<perm = [0, 2, 1]>(b)"
    " e = MatMul(a, t) s = Softmax(e) f = MatMul(s, a) j = MatMul(f, z) r = Add(j, x)"
    " i = LayerNormalization(r, o) y = MatMul(i, z)"
)


def attention() -> Model:
    return net(ATTENTION, TOKENS, o=np.ones(16, np.float32), z=noise(16, 16))


def test_attention_and_its_residual_stay_float() -> None:
    """LayerNormalization reads float, so that the Add before it has nobody to hand INT8 on to."""
    made = inserted(attention())
    assert placed(made) == ["l", "f", "i"]
    assert reasons(made) == dict.fromkeys(["e", "f"], "a product of two activations (attention)")
    assert behind_pairs(made, "r") == [False, False]


def test_all_quantizes_products_softmax_and_normalization() -> None:
    made = inserted(attention(), choices=Choices(Policy.ALL))
    assert made.left == {}
    for output in ("e", "f"):
        assert behind_pairs(made, output) == [True, True], output
    for output in ("l", "s", "i"):
        assert behind_pairs(made, output)[0], output
    assert behind_pairs(made, "r") == [False, True], "of a residual Add the skip"


def test_all_quantizes_both_factors_of_a_gate_and_activations() -> None:
    model = net("c = Conv(x, w) s = Sigmoid(c) r = Relu(c) a = Mul(r, s) y = Mul(a, g)", g=noise(4, 1, 1))
    assert placed(inserted(model)) == ["x"]
    made = inserted(model, choices=Choices(Policy.ALL))
    assert (behind_pairs(made, "s"), behind_pairs(made, "r"), behind_pairs(made, "a"), behind_pairs(made, "y")) == (
        [False], [False], [True, True], [False, False]), "nothing between a convolution and its activation"  # fmt: skip


# Choices of a user ------------------------------------------------------------------------------------------------


def test_an_included_node_is_quantized_against_the_policy() -> None:
    made = inserted(mixed(), choices=Choices(Policy.CONV_ONLY, include=frozenset("y")))
    assert (placed(made), reasons(made)) == (["x", "r", "p", "k"], {})
    made = inserted(attention(), choices=Choices(include=frozenset("e")))
    assert behind_pairs(made, "e") == [True, True]
    assert reasons(made) == {"f": "a product of two activations (attention)"}


@pytest.mark.parametrize("name", ["s", "l"])
def test_an_included_node_without_weights_is_quantized(name: str) -> None:
    assert not behind_pairs(inserted(attention()), name)[0]
    assert behind_pairs(inserted(attention(), choices=Choices(include=frozenset(name))), name)[0]


def test_an_included_pool_is_quantized() -> None:
    model = net(
        "c = Conv(x, w) p = GlobalAveragePool(c) y = Sigmoid(p)", "(float[1, 4, 8, 8] x) => (float[1, 4, 1, 1] y)"
    )
    assert placed(inserted(model)) == ["x"]
    assert placed(inserted(model, choices=Choices(include=frozenset("p")))) == ["x", "c"]


def test_exclusion_wins_over_inclusion() -> None:
    made = inserted(mixed(), choices=Choices(exclude=frozenset("s"), include=frozenset("s")))
    assert reasons(made) == {"s": "excluded"}
    assert placed(made) == ["x", "k"], "and the pool before it stays float"


def test_excluding_an_add_or_a_pool_is_told() -> None:
    model = net("r = Relu(x) c = Conv(r, w) a = Add(c, r) p = AveragePool<kernel_shape = [1, 1]>(a) y = Conv(p, v)")
    assert placed(inserted(model)) == ["r", "a", "p"]
    made = inserted(model, choices=Choices(exclude=frozenset({"a", "p"})))
    assert reasons(made) == {"p": "excluded"}, "the Add hands on float then, and nobody asks for it"
    made = inserted(model, choices=Choices(exclude=frozenset("a")))
    assert reasons(made) == {"a": "excluded"}
    assert behind_pairs(made, "a") == [False, False]


# Shared scales ----------------------------------------------------------------------------------------------------


def shared(made: QuantizedNetwork, *tensors: str) -> float:
    """The one scale that all of these have."""
    (scale,) = {made.pairs[name] for name in tensors}
    return scale


def test_all_that_a_concat_joins_has_its_scale() -> None:
    """YOLO's C2f: both halves, and what is made of them, side by side."""
    text = (
        "c = Conv(x, w) a, b = Split<axis = 1>(c, h) e = Conv(b, v2) f = Relu(e) k = Add(b, f) l = Conv(k, v2)"
        " j = Concat<axis = 1>(a, b, k) y = Conv(j, d6)"
    )
    model = net(text, "(float[1, 4, 8, 8] x) => (float[1, 2, 8, 8] l, float[1, 4, 8, 8] y)",
                v2=noise(2, 2, 1, 1), d6=noise(4, 6, 1, 1))  # fmt: skip
    made = inserted(model)
    assert placed(made) == ["x", "b", "f", "k", "j"]
    assert shared(made, "b", "k", "j") == every_scale(model)["j"] != made.pairs["f"]


def test_a_concat_of_concats_has_one_scale() -> None:
    text = (
        "a = Conv(x, w) b = Conv(a, v) c = Concat<axis = 1>(a, b) e = Conv(c, d)"
        " j = Concat<axis = 1>(c, e) y = Conv(j, t)"
    )
    model = net(text)
    made = inserted(model)
    assert placed(made) == ["x", "a", "c", "j"]
    assert shared(made, "a", "c", "j") == every_scale(model)["j"], "that of the last one"


def test_the_pyramid_of_pools_in_yolo_has_one_scale() -> None:
    pool = "MaxPool<kernel_shape = [5, 5], pads = [2, 2, 2, 2]>"
    text = f"c = Conv(x, w) a = {pool}(c) b = {pool}(a) e = {pool}(b) j = Concat<axis = 1>(c, a, b, e) y = Conv(j, q)"
    model = net(f"{text} z = Conv(c, v) k = Conv(b, u)", "(float[1, 4, 8, 8] x) =>"
                "(float[1, 4, 8, 8] y, float[1, 4, 8, 8] z, float[1, 4, 8, 8] k)")  # fmt: skip
    made = inserted(model)
    assert set(placed(made)) == {"x", "c", "b", "j"}
    assert shared(made, "c", "b", "j") == every_scale(model)["j"]


MOVING = {
    "MaxPool": "m = MaxPool<kernel_shape = [1, 1]>(c)",
    "Reshape": "m = Reshape(c, k)",
    "Transpose": "m = Transpose<perm = [0, 1, 3, 2]>(c)",
    "Identity": "m = Identity(c)",
    "chain": "i = Transpose<perm = [0, 2, 3, 1]>(c) j = Reshape(i, o) l = Unsqueeze(j, n) m = Reshape(l, k)",
}


@pytest.mark.parametrize("kind", MOVING)
def test_both_sides_of_what_moves_values_have_the_scale_of_the_first(kind: str) -> None:
    shapes = {name: value for name, value in {"k": np.array([1, 4, 8, 8]), "o": np.array([1, -1]), "n": np.array([0])}
              .items() if f", {name})" in MOVING[kind]}  # fmt: skip
    text = f"c = Conv(x, w) {MOVING[kind]} e = Conv(c, v) f = Conv(m, u) y = Add(e, f)"
    model = model_of(f"{SAME} {{ {text} }}", **{k: noise(4, 4, 1, 1) for k in "wvu"}, **shapes)
    made = inserted(model)
    assert placed(made) == ["x", "c", "m"]
    assert shared(made, "c", "m") == every_scale(model)["c"]


def test_where_the_first_has_no_scale_others_keep_their_own() -> None:
    model = net("c = Conv(x, w) m = MaxPool<kernel_shape = [1, 1]>(c) y = Conv(m, v)")
    for missing in ({"x": 0.1, "m": 0.3}, {"x": 0.1, "c": 0.0, "m": 0.3}):
        assert inserted(model, missing).pairs == {"x": 0.1, "m": 0.3}


def test_a_missing_scale_is_taken_from_what_shares_it() -> None:
    model = net("c = Conv(x, w) m = MaxPool<kernel_shape = [1, 1]>(c) y = Conv(m, v)")
    assert inserted(model, {"x": 0.1, "c": 0.2}).pairs == {"x": 0.1, "m": 0.2}


def test_a_concat_without_a_scale_leaves_its_inputs_theirs() -> None:
    model = net("a = Conv(x, w) b = Conv(a, v) j = Concat<axis = 1>(a, b) y = Conv(j, d)")
    made = inserted(model, {"x": 0.1, "a": 0.2, "b": 0.3})
    assert (made.pairs, reasons(made)) == ({"x": 0.1, "a": 0.2}, {"y": "no scale: j"})


@pytest.mark.parametrize(
    "tail", ["y = Relu(j)", "i = BatchNormalization(j, g8, g8, g8, g8) r = Relu(i) y = Conv(r, d)"]
)
def test_a_concat_that_nobody_quantizes_forces_nothing(tail: str) -> None:
    """At the end of a network, or before the float BatchNormalization of a DenseNet."""
    weights = {"g8": np.ones(8, np.float32)} if "g8" in tail else {}
    model = net(f"a = Conv(x, w) b = Conv(a, v) e = Conv(b, u) j = Concat<axis = 1>(a, e) {tail}", ANY, **weights)
    made = inserted(model)
    assert made.pairs["a"] == every_scale(model)["a"]


def test_a_concat_whose_reader_is_kept_in_float_forces_nothing() -> None:
    model = net("a = Conv(x, w) b = Conv(a, v) j = Concat<axis = 1>(a, b) y = Conv(j, d)")
    assert inserted(model).pairs["a"] == every_scale(model)["j"]
    assert inserted(model, choices=Choices(exclude=frozenset("y"))).pairs["a"] == every_scale(model)["a"]


UNET = (
    "a = Conv(x, w) r = Relu(a) p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r) b = Conv(p, v) s = Relu(b)"
    " i = ConvTranspose<strides = [2, 2]>(s, k) j = Concat<axis = 1>(i, r) y = Conv(j, d)"
)


def test_the_skips_of_a_unet_share_the_scale_of_their_concat() -> None:
    model = net(UNET, k=noise(4, 4, 2, 2))
    made = inserted(model)
    assert placed(made) == ["x", "p", "s", "j"]
    assert shared(made, "p", "j") == every_scale(model)["j"]
    assert (pair(made.proto, "k").axis, made.left) == (1, {})


@pytest.mark.parametrize(("scale", "own"), [(0.3, True), (0.21, True), (0.19, False), (0.04, True)])
def test_the_pool_before_a_skip_keeps_its_scale_where_the_concats_is_far_from_it(scale: float, own: bool) -> None:
    model = net(UNET, k=noise(4, 4, 2, 2))
    scales = dict.fromkeys(every_scale(model), 0.1) | {"j": scale}
    made = inserted(model, scales)
    assert placed(made) == ["x", "p", "s", "j"]
    assert (made.pairs["p"], made.pairs["j"]) == (0.1 if own else scale, scale)


@pytest.mark.parametrize(
    "text",
    [
        UNET.replace("y = Conv(j, d)", "q = Conv(r, u) z = Conv(j, d) y = Add(q, z)"),
        "b = Conv(x, w) a = Conv(b, v) c = Concat<axis = 1>(a, b) p = MaxPool<kernel_shape = [1, 1]>(c) e = Conv(p, d)"
        " j = Concat<axis = 1>(e, c) y = Conv(j, t)",
        "c = Conv(x, w) o = MaxPool<kernel_shape = [1, 1]>(c) p = MaxPool<kernel_shape = [1, 1]>(o) e = Conv(p, v)"
        " j = Concat<axis = 1>(o, e) z = Conv(j, d) q = Conv(c, u) y = Add(q, z)",
    ],
    ids=["the skip has a pair", "the skip is a concat", "what the skip is pooled from has a pair"],
)
def test_what_is_quantized_before_the_pool_has_the_pools_scale(text: str) -> None:
    model = net(text, **({"k": noise(4, 4, 2, 2)} if ", k)" in text else {}))
    scales = dict.fromkeys(every_scale(model), 0.1) | {"j": 1.0}
    made = inserted(model, scales)
    assert shared(made, "p", "j") == 1.0


@given(
    st.lists(st.sampled_from(["conv", "concat", "pool", "relu", "concat"]), min_size=1, max_size=8),
    st.randoms(),
    st.sampled_from([0.001, 0.5]),
)
def test_what_a_quantized_concat_joins_has_one_scale(steps: list[str], random: Any, spread: float) -> None:
    """Whatever the network looks like, and however far its scales are apart."""
    channels, nodes, weights = {"x": 4}, [], {}
    for number, step in enumerate([*steps, "conv"]):
        source, new = random.choice(list(channels)), f"t{number}"
        channels[new] = channels[source]
        if step == "conv":
            weights[f"w{number}"] = noise(4, channels[source], 1, 1)
            channels[new] = 4
            nodes.append(f"{new} = Conv({source}, w{number})")
        elif step == "concat":
            other = random.choice(list(channels)[:-1])
            channels[new] += channels[other]
            nodes.append(f"{new} = Concat<axis = 1>({source}, {other})")
        else:
            kind = "Relu" if step == "relu" else "MaxPool<kernel_shape = [1, 1]>"
            nodes.append(f"{new} = {kind}({source})")
    outputs = ", ".join(f"float[1, {channels[f't{k}']}, 8, 8] t{k}" for k in range(len(nodes)))
    model = model_of(f"(float[1, 4, 8, 8] x) => ({outputs}) {{ {' '.join(nodes)} }}", **weights)
    ranges = {name: 0.1 * 10 ** (spread * k) for k, name in enumerate(every_scale(model))}
    made = inserted(model, ranges)
    for node in model.proto.graph.node:
        joined = {*node.input, node.output[0]} & made.pairs.keys()
        if node.op_type == "MaxPool" or (node.op_type == "Concat" and node.output[0] in made.pairs):
            assert len({made.pairs[name] for name in joined}) <= 1
    assert all(scale in ranges.values() for scale in made.pairs.values())


# Residuals --------------------------------------------------------------------------------------------------------


def test_a_residual_whose_sum_is_an_output_stays_float() -> None:
    assert placed(inserted(net("r = Relu(x) c = Conv(r, w) y = Add(c, r)"))) == ["r"]


@pytest.mark.parametrize("silu", ["s = Sigmoid(a) f = Mul(a, s)", "s = HardSigmoid(a) f = Mul(s, a)"])
def test_silu_behind_a_residual_hands_int8_on(silu: str) -> None:
    made = inserted(net(f"r = Relu(x) c = Conv(r, w) a = Add(c, r) {silu} y = Conv(f, v)"))
    assert placed(made) == ["r", "f"]
    assert behind_pairs(made, "a") == [False, True]


def test_a_product_with_another_tensor_does_not() -> None:
    made = inserted(net("r = Relu(x) c = Conv(r, w) a = Add(c, r) s = Sigmoid(c) f = Mul(a, s) y = Conv(f, v)"))
    assert behind_pairs(made, "a") == [False, False]


@pytest.mark.parametrize("between", ["Relu(a)", "Clip(a)", "MaxPool<kernel_shape = [1, 1]>(a)", "HardSwish(a)"])
def test_a_residual_gets_a_pair_where_int8_goes_on(between: str) -> None:
    made = inserted(net(f"r = Relu(x) c = Conv(r, w) a = Add(c, r) f = {between} y = Conv(f, v)"))
    assert placed(made) == ["r", "f"]
    assert behind_pairs(made, "a") == [False, True]


def test_a_chain_of_residuals_hands_int8_on() -> None:
    """MobileNetV2: blocks end without an activation, so that each sum is the next skip."""
    made = inserted(net("c = Conv(x, w) b = Conv(c, v) a = Add(c, b) e = Conv(a, u) f = Add(a, e) y = Conv(f, w)"))
    assert placed(made) == ["x", "c", "a", "f"]
    assert (behind_pairs(made, "a"), behind_pairs(made, "f")) == ([True, False], [True, False])


GATED = (
    "c = Conv(x, w) i = GlobalAveragePool(c) j = Conv(i, v) k = Sigmoid(j) l = Mul(k, c) b = Conv(l, u)"
    " d1 = Conv(b, w) p = GlobalAveragePool(d1) o = Conv(p, v) n = Sigmoid(o) z = Mul(n, d1) e = Conv(z, u)"
)


@pytest.mark.parametrize(("add", "expected"), [("Add(e, b)", [False, True]), ("Add(b, e)", [True, False])])
def test_an_identity_is_the_skip_however_short_the_other_way_looks(add: str, expected: list[bool]) -> None:
    """EfficientNet: along the gate, which torchvision multiplies first, both ways look equally long."""
    made = inserted(net(f"{GATED} a = {add} y = Conv(a, w)"))
    assert behind_pairs(made, "a") == expected


@pytest.mark.parametrize("swap", [False, True])
def test_a_bottleneck_with_a_projection_quantizes_the_projection(swap: bool) -> None:
    add = "Add(s, m)" if swap else "Add(m, s)"
    text = (
        "i = Relu(x) s = Conv(i, u) a = Conv(i, w) b = Relu(a) c = Conv(b, v) e = Relu(c) m = Conv(e, w)"
        f" k = {add} o = Relu(k) y = Conv(o, w)"
    )
    made = inserted(net(text))
    assert behind_pairs(made, "k") == [swap, not swap]
    assert "s" in placed(made)


@pytest.mark.parametrize("swap", [False, True])
def test_a_projection_is_the_skip_of_branches_that_are_joined(swap: bool) -> None:
    """Res2Net: the way through the block parts and meets again, while the projection's goes on into the stem."""
    add = "Add(s, m)" if swap else "Add(m, s)"
    text = (
        "o = Conv(x, w) i = Relu(o) s = Conv(i, u) e = Conv(i, v) a, b = Split<axis = 1>(e, h) c = Conv(a, v2)"
        f" j = Concat<axis = 1>(c, b) m = Conv(j, w) k = {add} y = Conv(k, w)"
    )
    made = inserted(net(text, v2=noise(2, 2, 1, 1)))
    assert behind_pairs(made, "k") == [swap, not swap]


def test_a_sum_of_two_tensors_that_no_convolution_makes_gets_both() -> None:
    """A feature pyramid: what is resized, and a lateral tensor behind its activation."""
    text = (
        "a = Conv(x, w) r = Relu(a) p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r) b = Conv(p, v)"
        " s = Resize<mode = 'nearest'>(b, , z) k = Add(s, r) y = Conv(k, u)"
    ).replace("'", '"')
    made = inserted(net(text, z=np.array([1, 1, 2, 2], np.float32)))
    assert behind_pairs(made, "k") == [True, True]


def test_a_yolo_bottleneck_behind_silu_gets_both() -> None:
    silu = "{0}s = Sigmoid({0}) {0}m = Mul({0}, {0}s)"
    text = f"c = Conv(x, w) {silu.format('c')} e = Conv(cm, v) {silu.format('e')} k = Add(cm, em) y = Conv(k, u)"
    made = inserted(net(text))
    assert placed(made) == ["x", "cm", "em", "k"]
    assert behind_pairs(made, "k") == [True, True]


def test_the_branches_of_repvgg() -> None:
    """A sum of two convolutions and a BatchNormalization."""
    text = "i = Relu(x) a = Conv(i, w) b = Conv(i, v) c = BatchNormalization(i, g, g, g, g)"
    made = inserted(net(f"{text} k = Add(a, b) l = Add(k, c) r = Relu(l) y = Conv(r, u)"))
    assert behind_pairs(made, "k") == [False, True]
    assert behind_pairs(made, "l") == [True, True]


def test_what_is_added_to_a_constant_gets_none() -> None:
    model = net("c = Conv(x, w) a = Add(c, k) y = Conv(a, v)", k=noise(1, 4, 8, 8))
    assert placed(inserted(model)) == ["x", "a"]


# Pools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pools", [2, 3])
def test_pools_of_one_tensor_do_not_wait_for_each_other(pools: int) -> None:
    """PSPNet's pyramid: one tensor, pooled at several sizes, and each of them convolved."""
    outs = ", ".join(f"float[1, 4, {8 - k}, {8 - k}] y{k}" for k in range(pools))
    text = " ".join(
        f"p{k} = AveragePool<kernel_shape = [{k + 1}, {k + 1}]>(r) y{k} = Conv(p{k}, v)" for k in range(pools)
    )
    model = net(f"c = Conv(x, w) r = Relu(c) {text}", f"(float[1, 4, 8, 8] x) => ({outs})")
    assert placed(inserted(model)) == ["x", "r", *(f"p{k}" for k in range(pools))]


@pytest.mark.parametrize("late", [False, True])
def test_the_order_of_nodes_does_not_matter_to_a_pool(late: bool) -> None:
    """The same tensor is the skip of a residual."""
    parts = ["p = AveragePool<kernel_shape = [1, 1]>(r) z = Conv(p, v)", "b = Conv(r, w) a = Add(b, r) y = Conv(a, u)"]
    text = " ".join(parts if late else parts[::-1])
    model = net(
        f"c = Conv(x, w) r = Relu(c) {text}", "(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y, float[1, 4, 8, 8] z)"
    )
    made = inserted(model)
    assert behind_pairs(made, "p") == [True]
    assert behind_pairs(made, "a") == [False, True]


def test_one_pool_that_stays_float_keeps_the_others() -> None:
    text = "r = Relu(x) p = AveragePool<kernel_shape = [1, 1]>(r) q = AveragePool<kernel_shape = [1, 1]>(r)"
    model = net(f"{text} z = Conv(p, w) y = Sigmoid(q)",
                "(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y, float[1, 4, 8, 8] z)")  # fmt: skip
    assert placed(inserted(model)) == ["p"]


def test_the_pool_of_an_inception_block() -> None:
    """Its input is convolved as well, and what it makes is convolved and joined."""
    text = (
        "c = Conv(x, w) r = Relu(c) a = Conv(r, v)"
        " p = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(r) b = Conv(p, u) j = Concat<axis = 1>(a, b)"
        " y = Conv(j, d)"
    )
    made = inserted(net(text))
    assert placed(made) == ["x", "r", "p", "j"]
    assert behind_pairs(made, "p") == [True]


def test_a_pool_of_a_graph_output_stays_float() -> None:
    model = net("r = Relu(x) p = AveragePool<kernel_shape = [1, 1]>(r) y = Conv(p, w)",
                "(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] r, float[1, 4, 8, 8] y)")  # fmt: skip
    assert placed(inserted(model)) == ["p"]


STEPS = (
    "{new} = Conv({old}, w)", "{new} = Conv({old}, w)", "{new} = Relu({old})", "{new} = Sigmoid({old})",
    "{new} = Add({old}, {other})", "{new} = Add({other}, {old})", "{new} = Mul({old}, {other})",
    "{new} = AveragePool<kernel_shape = [1, 1]>({old})", "{new} = MaxPool<kernel_shape = [1, 1]>({old})",
)  # fmt: skip


@given(st.data())
@settings(max_examples=150)
def test_the_order_of_nodes_does_not_matter(data: st.DataObject) -> None:
    """Any order in which everything is made before it is read gives the same places."""
    names, nodes = ["x"], []
    for number, step in enumerate(data.draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=10))):
        old, other = (data.draw(st.sampled_from(names[-4:])) for _ in range(2))
        nodes.append(step.format(new=f"t{number}", old=old, other=other))
        names.append(f"t{number}")
    read = set(re.findall(r"\w+", " ".join(node.partition("=")[2] for node in nodes)))
    outputs = ", ".join(f"float[1, 4, 8, 8] {name}" for name in names[1:] if name not in read)
    model = net(" ".join([*nodes, "y = Conv(x, w)"]), f"(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y, {outputs})")
    other_order = Model(model.path, onnx.ModelProto(), "")
    other_order.proto.CopyFrom(model.proto)
    waiting, made = list(model.proto.graph.node), {"x", "w"}
    del other_order.proto.graph.node[:]
    while waiting:
        node = data.draw(st.sampled_from([k for k, node in enumerate(waiting) if made.issuperset(node.input)]))
        other_order.proto.graph.node.append(waiting[node])
        made.update(waiting.pop(node).output)
    choices = data.draw(st.sampled_from([Choices(), Choices(tensorrt=8)]))
    first, second = inserted(model, choices=choices), inserted(other_order, every_scale(model), choices)
    assert first.pairs == second.pairs
    assert first.left == second.left
    reads = {
        tuple(sorted((node.output[0], *behind_pairs(one, node.output[0])) for node in model.proto.graph.node))
        for one in (first, second)
    }
    assert len(reads) == 1


# Shapes, outputs, subgraphs ---------------------------------------------------------------------------------------


def test_several_outputs_keep_their_names() -> None:
    outputs = ", ".join(f"float[1, 4, 8, 8] {name}" for name in "cry")
    made = inserted(net("c = Conv(x, w) r = Relu(c) y = Conv(r, v)", f"(float[1, 4, 8, 8] x) => ({outputs})"))
    assert placed(made) == ["x", "r"]
    assert [value.name for value in made.proto.graph.output] == ["c", "r", "y"]


def test_a_subgraph_reads_the_float_tensor() -> None:
    branches = ", ".join(
        f"{branch}_branch = {branch} () => (float[1, 4, 8, 8] {name}) {{ {name} = {kind}(c) }}"
        for branch, name, kind in (("then", "t", "Relu"), ("else", "e", "Neg"))
    )
    text = f"c = Conv(x, w) i = If(b)<{branches}> y = Conv(c, v)"
    head = "(float[1, 4, 8, 8] x, bool b) => (float[1, 4, 8, 8] i, float[1, 4, 8, 8] y)"
    made = inserted(net(text, head))
    assert placed(made) == ["x", "c"]
    (conditional,) = (node for node in made.proto.graph.node if node.op_type == "If")
    assert [a.g.node[0].input[0] for a in conditional.attribute] == ["c", "c"]


BLOCK = "r = Relu(x) c = Conv(r, w) a = Add(c, r) p = AveragePool<kernel_shape = [1, 1]>(a) y = Conv(p, v)"


def test_shapes_do_not_matter_to_places() -> None:
    """Fixed, dynamic, or unknown because an operator in front is."""
    fixed = placed(inserted(net(BLOCK)))
    assert fixed == ["r", "a", "p"]
    assert placed(inserted(net(BLOCK, "(float[N, 4, H, W] x) => (float[N, 4, H, W] y)"))) == fixed
    unknown = net(BLOCK.replace("Relu(x)", "Mystery(x)"))
    unknown.proto.graph.node[0].domain = "somebody"
    unknown.proto.opset_import.add(domain="somebody", version=1)
    assert "r" not in index_graph(unknown.proto).shapes
    assert placed(inserted(unknown, dict.fromkeys("xrcap", 0.1))) == fixed


def test_operators_of_other_domains_get_none() -> None:
    model = net("c = Conv(x, w) y = Conv(c, v)")
    model.proto.graph.node[1].domain = "somebody"
    model.proto.opset_import.add(domain="somebody", version=1)
    assert placed(inserted(model)) == ["x"]


# Wiring -----------------------------------------------------------------------------------------------------------


def test_the_wiring_knows_who_makes_and_who_reads() -> None:
    model = net("c = Conv(x, w) m = MaxPool<kernel_shape = [1, 1]>(c) j = Concat<axis = 1>(x, m) a, b = Split<axis = 1>"
                "(j, h4) y = Add(a, b)", h4=np.array([4, 4]))  # fmt: skip
    wires = index_graph(model.proto)
    assert [node.op_type for _, node in wires.uses_through("c")] == ["Add", "Add"]
    assert sorted(node.op_type for _, node in wires.uses_through("x")) == ["Add", "Add", "Conv"]
    assert [node.op_type for _, node in wires.uses_through("c", frozenset())] == ["MaxPool"]
    assert (wires.maker("x"), wires.maker("w")) == (None, None)
    assert wires.maker("b") == wires.maker("a") == model.proto.graph.node[3]
    assert wires.activations(0) == ["x"]
    assert (wires.shapes["a"], wires.types["a"], wires.outputs) == ((1, 4, 8, 8), "float32", {"y"})
    assert [wires.name(k) for k in range(5)] == ["c", "m", "j", "a", "y"]


def test_what_is_read_as_a_shape_is_not_behind() -> None:
    """A Reshape passes on what it moves, not what says how."""
    model = model_of("(float[4] x, int64[1] k) => (float[N] y) { i = Identity(k) y = Reshape(x, i) }")
    assert [(reader.place, node.op_type) for reader, node in index_graph(model.proto).uses_through("k")] == [
        (1, "Reshape")
    ]


def test_weights_are_known_by_every_name_that_they_have() -> None:
    text = (
        "a = Constant<value = float[2] {1.0, 2.0}>() b = Constant<value_float = 3.0>()"
        " c = Constant<value_floats = [4.0, 5.0]>() e = Identity(k) f = Identity(e) z = Cast<to = 3>(b) y = Identity(x)"
    )
    model = model_of(f"(float[1] x) => (float[1] y) {{ {text} }}", k=np.array([6.0], np.float32))
    found = {name: numpy_helper.to_array(tensor) for name, tensor in stored_tensors(model.proto.graph).items()}
    expected = {"a": [1, 2], "b": 3, "c": [4, 5], "e": [6], "f": [6], "k": [6], "z": 3}
    assert {name: value.tolist() for name, value in found.items()} == expected
    assert (found["z"].dtype, found["b"].dtype) == (np.int8, np.float32)


def test_the_model_is_not_edited() -> None:
    model = attention()
    before = onnx.ModelProto()
    before.CopyFrom(model.proto)
    inserted(model, choices=Choices(Policy.ALL))
    assert model.proto == before


def test_operators_inside_subgraphs_are_told() -> None:
    branches = ", ".join(
        f"{branch}_branch = {branch} () => (float[N, 4, 8, 8] {name}) {{ {name} = Conv(c, v) }}"
        for branch, name in (("then", "p"), ("else", "q"))
    )
    text = f"(float[N, 4, 8, 8] x, bool b) => (float[N, 4, 8, 8] y) {{ c = Conv(x, w) y = If(b)<{branches}> }}"
    made = inserted(model_of(text, w=noise(4, 4, 1, 1), v=noise(4, 4, 1, 1)))
    assert placed(made) == ["x"]
    assert reasons(made) == {"p": "inside If: y", "q": "inside If: y"}


@pytest.mark.parametrize("layer", ["Conv(x, e)", "ConvTranspose(x, t)", "MatMul(f, m)", "Gemm(f, m)"])
def test_weights_without_values_stay_float(layer: str) -> None:
    """A layer without channels makes nothing; the others of its network are quantized."""
    empty = {"e": np.zeros((0, 4, 1, 1)), "t": np.zeros((4, 0, 1, 1)), "m": np.zeros((256, 0))}
    used = {name: array.astype(np.float32) for name, array in empty.items() if f" {name})" in layer}
    model = model_of(
        f"(float[2, 4, 8, 8] x) => (float z, float y) {{ z = Conv(x, w) f = Flatten(x) y = {layer} }}",
        w=noise(4, 4, 1, 1),
        **used,
    )
    made = insert_qdq(model, every_scale(model))
    assert reasons(made) == {"y": "its weights are empty"}
    assert list(made.weights) == ["w"]
    editor, skipped = WeightEditor(model), dict[str, str]()
    assert [layer.name for layer in weighted_layers(editor, skipped)] == ["z"]
    assert skipped == {"y": "its weights are empty"}


# Kernels that write INT8 alone -------------------------------------------------------------------------------------

EIGHT = Choices(tensorrt=8)
FLOAT_OUTPUT = "TensorRT 8 has no INT8 kernel for it that writes float"
DEEP = "a = Conv(x, w) b = Conv<group = 4, pads = [1, 1, 1, 1]>(a, deep) c = {} y = Conv({}, v)"


def deep_net(behind: str, last: str = "c") -> Model:
    """A depthwise convolution between others, with something behind it."""
    return net(DEEP.format(behind, last), deep=noise(4, 1, 3, 3))


@pytest.mark.parametrize("behind", ["Relu(b)", "MaxPool<kernel_shape = [1, 1]>(b)", "Concat<axis = 1>(b, b)"])
def test_a_depthwise_convolution_that_writes_int8_is_quantized(behind: str) -> None:
    model = net(DEEP.format(behind, "c").replace("v)", "d)" if "Concat" in behind else "v)"), deep=noise(4, 1, 3, 3))
    for choices in (Choices(), EIGHT):
        assert set(placed(inserted(model, choices=choices))) == {"x", "a", "c"}


@pytest.mark.parametrize("behind", ["Elu(b)", "Softmax(b)", "InstanceNormalization(b, g, g)", "Add(b, x)"])
def test_a_depthwise_convolution_that_writes_float_stays_float_for_tensorrt_8(behind: str) -> None:
    model = deep_net(behind)
    made = inserted(model, choices=EIGHT)
    assert reasons(made) == {"b": f"{FLOAT_OUTPUT} (depthwise)"} or behind.startswith("Add")
    if behind.startswith("Add"):  # the skip is quantized, and the convolution writes INT8 through the Add
        assert set(placed(made)) == {"x", "a", "c"}
    else:
        assert set(placed(made)) == {"x", "c"}
    for newer in (Choices(), Choices(tensorrt=10)):
        assert not reasons(inserted(model, choices=newer))


def test_a_depthwise_convolution_behind_silu_lets_it_write_int8() -> None:
    model = net("a = Conv(x, w) s = Sigmoid(a) m = Mul(a, s) b = Conv<group = 4, pads = [1, 1, 1, 1]>(m, deep) "
                "c = Softmax(b) y = Conv(c, v)", deep=noise(4, 1, 3, 3))  # fmt: skip
    assert set(placed(inserted(model, choices=EIGHT))) == {"x", "m", "c"}
    alone = Choices(tensorrt=8, exclude=frozenset("a"))
    assert reasons(inserted(model, choices=alone)) == {"a": "excluded", "b": f"{FLOAT_OUTPUT} (depthwise)"}


def test_what_the_user_wants_is_quantized_all_the_same() -> None:
    model = deep_net("Softmax(b)")
    assert "a" in placed(inserted(model, choices=Choices(tensorrt=8, include=frozenset("b"))))
    assert "a" in placed(inserted(model, choices=Choices(Policy.ALL, tensorrt=8)))


def test_a_convolution_of_few_channels_needs_an_int8_reader_too() -> None:
    head = "(float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y)"
    stem = noise(4, 3, 1, 1)
    written = inserted(net("a = Conv(x, stem) b = Relu(a) y = Conv(b, w)", head, stem=stem), choices=EIGHT)
    assert set(placed(written)) == {"x", "b"}
    floats = inserted(net("a = Conv(x, stem) b = Softmax(a) y = Conv(b, w)", head, stem=stem), choices=EIGHT)
    assert reasons(floats) == {"a": f"{FLOAT_OUTPUT} (3 input channels)"}


def test_an_add_whose_reader_became_float_loses_its_pairs() -> None:
    text = (
        "a = Conv(x, w) r = Add(a, x) b = Conv<group = 4, pads = [1, 1, 1, 1]>(r, deep) s = Softmax(b) y = Conv(s, v)"
    )
    model = net(text, deep=noise(4, 1, 3, 3))
    assert node_of(inserted(model).proto, "r").input[1].startswith("x_deq")
    made = inserted(model, choices=EIGHT)
    assert list(node_of(made.proto, "r").input) == ["a", "x"]

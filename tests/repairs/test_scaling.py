"""Equalization and smoothing: the function stays, the channels become even, and what cannot be scaled is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from quantkit.errors import ModelError, UsageError
from quantkit.graph import Model, load_model
from quantkit.qdq.insert import insert_qdq
from quantkit.repairs import ChannelFigures, equalize_channels, smooth_channels
from tests.support.repairing import again, figures_of, model_of, outputs_of, weight_of

RANDOM = np.random.default_rng(5)
UNEVEN = np.exp2(np.array([-5, -3, -2, 0, 2, 3])).astype(np.float32)
IMAGE = RANDOM.normal(size=(2, 6, 8, 8)).astype(np.float32)
HEAD = "(float[N, 6, 8, 8] x) => (float[N, 6, 8, 8] y)"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same numbers whichever tests ran before."""
    RANDOM.bit_generator.state = np.random.default_rng(5).bit_generator.state


def normal(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


def uneven(*shape: int) -> NDArray[np.float32]:
    """Weights whose output channels differ a lot."""
    return normal(*shape) * UNEVEN.reshape(-1, *(1,) * (len(shape) - 1))


WEIGHTS = {
    "w": uneven(6, 6, 3, 3), "v": uneven(6, 6, 1, 1), "depth": uneven(6, 1, 3, 3), "three": uneven(6, 2, 1, 1),
    "up": normal(6, 6, 3, 3), "up_two": normal(6, 3, 1, 1), "bias": uneven(6), "plain": normal(6),
    "positive": np.abs(normal(6)) + 0.5, "column": uneven(6, 1, 1), "one": np.float32([0.5]), "slope": normal(6, 1, 1),
}  # fmt: skip
PADDED = "pads = [1, 1, 1, 1]"
STEPS = (
    f"{{new}} = Conv<{PADDED}>({{old}}, w, bias)", "{new} = Conv({old}, v)",
    f"{{new}} = Conv<{PADDED}, group = 6>({{old}}, depth)",
    "{new} = Conv<group = 3>({old}, three, plain)", f"{{new}} = ConvTranspose<{PADDED}>({{old}}, up, bias)",
    "{new} = ConvTranspose<group = 2>({old}, up_two)",
    "{new} = Relu({old})", "{new} = LeakyRelu<alpha = 0.25>({old})",
    "{new} = PRelu({old}, slope)", "{new} = Identity({old})", "{new} = Add({old}, {other})",
    "{new} = Sub({other}, {old})",
    "{new} = Add({old}, column)", "{new} = Add(one, {old})", "{new} = Sub(column, {old})", "{new} = Mul({old}, column)",
    "{new} = Div({old}, one)", "{new} = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>({old})",
    "{new} = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>({old})", "{new} = Sigmoid({old})",
    "{new} = BatchNormalization({old}, positive, bias, plain, positive)", "{new} = Mul({old}, {other})",
)  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> Model:
    """A network over tensors of one shape; weights are shared."""
    tensors, nodes = ["x"], []
    for index in range(draw(st.integers(2, 9))):
        step = draw(st.sampled_from(STEPS[:6])) if index == 0 else draw(st.sampled_from(STEPS))
        nodes.append(step.format(new=f"t{index}", old=tensors[-1], other=draw(st.sampled_from(tensors))))
        tensors.append(f"t{index}")
    nodes.append(f"y = Conv({tensors[-1]}, v)")
    return model_of(f"{HEAD} {{ {' '.join(nodes)} }}", **WEIGHTS)


@given(networks())
@settings(max_examples=60)
def test_powers_of_two_keep_every_bit(model: Model) -> None:
    before = model.proto.SerializeToString(deterministic=True)
    figures = figures_of(model, x=IMAGE)
    made = equalize_channels(model, figures, exact=True)
    assert model.proto.SerializeToString(deterministic=True) == before, "nobody edits a model"
    assert made.proto.SerializeToString() == equalize_channels(model, figures, exact=True).proto.SerializeToString()
    new = again(model, made.proto)
    np.testing.assert_array_equal(outputs_of(new.proto, x=IMAGE)[0], outputs_of(model.proto, x=IMAGE)[0])
    assert set(made.amounts) == set(made.gains)
    assert not set(made.amounts) & set(made.skipped)
    for tensor, factors in made.amounts.items():
        np.testing.assert_array_equal(np.exp2(np.rint(np.log2(factors))), factors)
        ours, theirs = (outputs_of(proto, tensor, x=IMAGE)[0] for proto in (new.proto, model.proto))
        np.testing.assert_array_equal(ours * factors.astype(np.float32)[:, None, None], theirs)


@given(networks())
@settings(max_examples=30)
def test_free_factors_keep_the_function(model: Model) -> None:
    (theirs,) = outputs_of(model.proto, x=IMAGE)
    made = equalize_channels(model, figures_of(model, x=IMAGE))
    (ours,) = outputs_of(again(model, made.proto).proto, x=IMAGE)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-5 * np.abs(theirs).max())


TAILS = {
    "pooled": "g = GlobalAveragePool(r) f = Flatten(g) y = Gemm<transB = 1>(f, m, n)",
    "flat": "p = MaxPool<kernel_shape = [4, 4], strides = [4, 4]>(r) f = Flatten(p) y = MatMul(f, k)",
    "reshaped": "p = MaxPool<kernel_shape = [4, 4], strides = [4, 4]>(r) f = Reshape(p, to) y = Gemm<beta = 2.0>(f, k)",
    "mean": "g = ReduceMean<axes = [2, 3], keepdims = 0>(r) y = Gemm<transB = 1>(g, m, n)",
}


@pytest.mark.parametrize("tail", TAILS)
def test_factors_pass_to_a_classifier(tail: str) -> None:
    model = model_of(f"(float[N, 6, 8, 8] x) => (float[N, 5] y) {{ c = Conv(x, v, bias) r = Relu(c) {TAILS[tail]} }}",
                     v=WEIGHTS["v"], bias=WEIGHTS["bias"], m=normal(5, 6), n=normal(5), k=normal(24, 5),
                     to=np.array([-1, 24]))  # fmt: skip
    made = equalize_channels(model, figures_of(model, x=IMAGE), exact=True)
    assert [len(factors) for factors in made.amounts.values()] == [6]
    assert min(made.gains.values()) > 1
    np.testing.assert_array_equal(
        outputs_of(again(model, made.proto).proto, x=IMAGE)[0], outputs_of(model.proto, x=IMAGE)[0]
    )


def sqnr(model: Model, x: NDArray[Any], reference: NDArray[Any]) -> float:
    """Output SQNR in dB of the network with Q/DQ at max|x|."""
    figures = figures_of(model, x=x)
    made = insert_qdq(model, {name: float(each.amax.max()) / 127 for name, each in figures.items()})
    (output,) = outputs_of(made.proto, x=x)
    return float(10 * np.log10((reference.astype(float) ** 2).sum() / ((output - reference).astype(float) ** 2).sum()))


def test_uneven_channels_become_even_and_the_output_better() -> None:
    model = model_of(f"{HEAD} {{ c = Conv(x, v) r = Relu(c) y = Conv(r, back) }}", v=WEIGHTS["v"],
                     back=normal(6, 6, 1, 1) / UNEVEN[:, None, None])  # fmt: skip
    (reference,) = outputs_of(model.proto, x=IMAGE)
    made = equalize_channels(model, figures_of(model, x=IMAGE))
    new = again(model, made.proto)
    widths = figures_of(new, x=IMAGE)["r"].amax
    assert widths.max() / widths.min() < 8 < np.exp2(np.ptp(np.log2(UNEVEN))) / 16
    assert sqnr(new, IMAGE, reference) > sqnr(model, IMAGE, reference) + 1
    repeated = equalize_channels(new, figures_of(new, x=IMAGE))
    assert sum(repeated.gains.values()) < 0.2 * sum(made.gains.values()), "what is even stays as it is"


def test_channels_that_are_always_zero_are_no_trouble() -> None:
    weight = WEIGHTS["v"].copy()
    weight[2] = 0
    model = model_of(f"{HEAD} {{ c = Conv(x, v) r = Relu(c) y = Conv(r, w) }}", v=weight, w=normal(6, 6, 1, 1))
    made = equalize_channels(model, figures_of(model, x=IMAGE))
    assert np.isfinite(made.amounts["r"]).all()
    assert made.amounts["r"].min() < made.amounts["r"][2] < made.amounts["r"].max()
    zero = {name: ChannelFigures(1, np.zeros(6), np.zeros(6), np.zeros(6)) for name in ("x", "r")}
    assert equalize_channels(model, zero).skipped["r"] == "nothing is gained"


REASONS = {
    "r = Clip(c, low, high) y = Conv(r, v)": "Clip r does not pass on",
    "r = Sigmoid(c) y = Conv(r, v)": "Sigmoid r does not pass on",
    "r = Relu(c) s = Concat<axis = 0>(r, r) y = Conv(r, v)": "Concat s does not pass on",
    "r = Relu(x) y = Conv(r, v)": "x: it is an input of the network",
    "r = Relu(c) m = ReduceMean<axes = [1]>(r) s = Add(r, m) y = Conv(r, v)": "does not pass on",
    "m = Conv(x, single) s = Add(m, c) r = Relu(s) y = Conv(r, v)": "m is broadcast in Add s",
    "r = Relu(c) p = GlobalAveragePool(r) q = MaxPool<kernel_shape = [1, 1]>(p) s = Add(r, q) y = Conv(r, v)": None,
}


@pytest.mark.parametrize("nodes", REASONS)
def test_what_cannot_be_scaled_is_left_with_a_reason(nodes: str) -> None:
    model = model_of(f"{HEAD} {{ c = Conv(x, v) {nodes} }}", v=WEIGHTS["v"], low=np.float32(0), high=np.float32(6),
                     single=normal(1, 6, 1, 1))  # fmt: skip
    made = equalize_channels(model, figures_of(model, x=IMAGE))
    expected = REASONS[nodes]
    if expected is None:
        assert "r" in made.amounts
    else:
        assert expected in made.skipped["r"]
        assert made.proto == model.proto


def test_an_output_of_the_network_is_not_scaled() -> None:
    model = model_of("(float[N, 6, 8, 8] x) => (float[N, 6, 8, 8] y, float[N, 6, 8, 8] r)"
                     "{ c = Conv(x, v) r = Relu(c) y = Conv(r, v) }", v=WEIGHTS["v"])  # fmt: skip
    assert equalize_channels(model, figures_of(model, x=IMAGE)).skipped["r"] == "r: it is an output of the network"


def test_a_weight_that_others_read_is_copied() -> None:
    model = model_of(f"{HEAD} {{ c = Conv(x, v) r = Relu(c) d = Conv(r, v) s = Conv(x, v) y = Add(d, s) }}",
                     v=WEIGHTS["v"])  # fmt: skip
    made = equalize_channels(model, figures_of(model, x=IMAGE), exact=True)
    assert made.amounts
    np.testing.assert_array_equal(weight_of(made.proto, "v"), WEIGHTS["v"])
    assert len(made.proto.graph.initializer) == 3
    np.testing.assert_array_equal(
        outputs_of(again(model, made.proto).proto, x=IMAGE)[0], outputs_of(model.proto, x=IMAGE)[0]
    )


CHAIN = f"{HEAD} {{ c = Conv(x, v) r = Relu(c) y = Conv(r, w) }}"


def test_weights_in_constant_nodes() -> None:
    model = model_of(CHAIN, w=normal(6, 6, 1, 1))
    tensor = numpy_helper.from_array(WEIGHTS["v"], "v")
    nodes = [helper.make_node("Constant", [], ["u"], value=tensor), helper.make_node("Identity", ["u"], ["v"])]
    nodes += list(model.proto.graph.node)
    del model.proto.graph.node[:]
    model.proto.graph.node.extend(nodes)
    made = equalize_channels(model, figures_of(model, x=IMAGE), exact=True)
    assert made.amounts
    assert [node.op_type for node in made.proto.graph.node] == ["Conv", "Relu", "Conv"], "nobody reads them any more"
    np.testing.assert_array_equal(
        outputs_of(again(model, made.proto).proto, x=IMAGE)[0], outputs_of(model.proto, x=IMAGE)[0]
    )


def test_a_weight_that_is_not_finite_is_refused() -> None:
    weight = normal(6, 6, 1, 1)
    weight[1, 2] = np.nan
    model = model_of(CHAIN, v=WEIGHTS["v"], w=weight)
    ones = {"r": ChannelFigures(1, np.ones(6), np.ones(6), np.ones(6))}
    with pytest.raises(ModelError, match="'w' holds NaN or Inf"):
        equalize_channels(model, ones)


# Smoothing --------------------------------------------------------------------------------------------------------

TOKENS = (RANDOM.normal(size=(2, 5, 16)) * 3).astype(np.float32)
ROW = np.exp2(RANDOM.uniform(-4, 4, size=16)).astype(np.float32)
SEQUENCE = "(float[N, 5, 16] x) => (float[N, 5, 16] y)"
SQUARE = {name: normal(16, 16) / ROW[:, None] for name in "qkv"}
NORM = "n = LayerNormalization<axis = -1>(x, g, b)"
GELU = "d = Div(c, root) e = Erf(d) f = Add(e, unit) h = Mul(c, f) n = Mul(h, half)"
SMOOTH = {
    "three readers": f"{NORM} l = MatMul(n, q) m = MatMul(n, k) o = MatMul(n, v) p = Mul(l, m) y = Add(p, o)",
    "no bias": "n = LayerNormalization(x, g) y = MatMul(n, q)",
    "decomposed": "m = Mul(x, g) n = Add(m, b) y = MatMul(n, q)",
    "gelu": f"c = MatMul(x, k) {GELU} y = MatMul(n, q)",
    "pooled": f"{NORM} z = ReduceMean<axes = [1], keepdims = 0>(n) y = MatMul(z, q)",
    "shared scale": f"{NORM} y0 = MatMul(n, q) o = LayerNormalization<axis = -1>(y0, g, b) y = Relu(o)",
}


def smooth_model(nodes: str) -> Model:
    head = SEQUENCE.replace("[N, 5, 16] y", "[N, 16] y") if "ReduceMean" in nodes else SEQUENCE
    return model_of(f"{head} {{ {nodes} }}", **SQUARE, g=ROW, b=normal(16), root=np.float32(2**0.5),
                    unit=np.float32(1), half=np.float32(0.5))  # fmt: skip


@pytest.mark.parametrize("kind", SMOOTH)
@pytest.mark.parametrize("alpha", [None, 0.5])
def test_smoothing_keeps_the_function_and_evens_channels(kind: str, alpha: float | None) -> None:
    model = smooth_model(SMOOTH[kind])
    before = model.proto.SerializeToString(deterministic=True)
    made = smooth_channels(model, figures_of(model, x=TOKENS), alpha=alpha)
    assert model.proto.SerializeToString(deterministic=True) == before
    new = again(model, made.proto)
    (theirs,), (ours,) = (outputs_of(proto, x=TOKENS) for proto in (model.proto, new.proto))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * np.abs(theirs).max())
    if kind != "gelu":
        (name,) = made.gains
        assert name == ("z" if kind == "pooled" else "n")
        assert made.gains[name] > 0.1
        old, smooth = (figures_of(each, x=TOKENS)[name].amax for each in (model, new))
        assert np.std(np.log2(smooth)) < np.std(np.log2(old))
    if kind == "shared scale":
        np.testing.assert_array_equal(weight_of(made.proto, "g"), ROW)


def test_what_is_read_by_something_else_is_not_smoothed() -> None:
    model = smooth_model(f"{NORM} l = MatMul(n, q) y = Add(l, n)")
    made = smooth_channels(model, figures_of(model, x=TOKENS))
    assert made.skipped == {"n": "y: it is an output of the network"}
    assert made.proto == model.proto
    with pytest.raises(UsageError, match="alpha 2 is not in"):
        smooth_channels(model, {}, alpha=2)


def test_only_what_a_normalization_makes_is_smoothed() -> None:
    model = smooth_model("c = MatMul(x, q) r = Relu(c) y = MatMul(r, k)")
    made = smooth_channels(model, figures_of(model, x=TOKENS))
    assert (made.amounts, made.skipped) == ({}, {})
    assert isinstance(made.proto, onnx.ModelProto)


# A trained network ------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_a_face_detector_is_equalized_to_the_bit(shared: Path) -> None:
    model = load_model(shared / "models" / "ultraface.onnx")
    x = RANDOM.normal(size=(1, 3, 240, 320)).astype(np.float32)
    made = equalize_channels(model, figures_of(model, input=x), exact=True)
    assert len(made.amounts) > 30
    assert "input of the network" in made.skipped["input"]
    for ours, theirs in zip(outputs_of(made.proto, input=x), outputs_of(model.proto, input=x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_groups_of_a_transposed_convolution_share_their_scales() -> None:
    model = model_of(
        """(float[N, 6, 8, 8] x) => (float[N, 5, 16, 16] y) {
        c = Conv(x, v) r = Relu(c) t = ConvTranspose<group = 6, strides = [2, 2]>(r, d) u = Relu(t) y = Conv(u, w) }""",
        v=uneven(6, 6, 1, 1), d=uneven(6, 1, 2, 2), w=normal(5, 6, 1, 1),
    )  # fmt: skip
    made = equalize_channels(model, figures_of(model, x=IMAGE))
    assert made.skipped["u"] == "the groups of d share their scales"


def test_one_channel_that_a_constant_spreads_stays_one() -> None:
    model = model_of(
        """(float[N, 6, 8, 8] x) => (float[N, 5, 8, 8] y) {
        c = Conv(x, v) r = Relu(c) m = Mul(r, k) y = Conv(m, w) }""",
        v=normal(1, 6, 1, 1), k=np.exp2(normal(6, 1, 1)), w=normal(5, 6, 1, 1),
    )  # fmt: skip
    made = equalize_channels(model, figures_of(model, x=IMAGE))
    assert not made.amounts
    again(model, made.proto)

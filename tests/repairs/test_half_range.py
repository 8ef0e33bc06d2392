"""Repairs of float16 networks: what they compute stays, codes are found again, and the range of float16 is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantkit.graph import Model
from quantkit.qdq.insertion import channel_scales, weight_codes
from quantkit.repairs import (
    ChannelFigures,
    correct_biases,
    equalize_channels,
    round_weights,
    smooth_channels,
)
from quantkit.repairs.half_range import BEYOND, FINE, LEAST_ROW
from tests.support.repairing import again, figures_of, model_of, outputs_of, weight_of

HALF = np.float16
UNEVEN = np.exp2(np.array([-5, -3, -2, 0, 2, 3]))


def normal(*shape: int, seed: int = 0, spread: NDArray[Any] | float = 1.0) -> NDArray[np.float16]:
    values = np.random.default_rng([seed, *shape]).normal(size=shape)
    return np.asarray(values * np.reshape(spread, (-1, *(1,) * (len(shape) - 1))), HALF)


IMAGE = normal(2, 6, 8, 8)
NODES = "{ c = Conv<pads = [1, 1, 1, 1]>(x, w, b) r = Relu(c) y = Conv(r, v) }"
TEXT = f"(float16[N, 6, 8, 8] x) => (float16[N, 6, 8, 8] y) {NODES}"


def twin_weights(spread: NDArray[Any] | float = UNEVEN, size: float = 1.0) -> dict[str, NDArray[np.float16]]:
    return {
        "w": normal(6, 6, 3, 3, spread=spread * size),
        "b": normal(6, spread=spread * size),
        "v": normal(6, 6, 1, 1),
    }


def network_of(weights: dict[str, NDArray[Any]], text: str = TEXT) -> Model:
    return model_of(text, **weights)


def widened(weights: dict[str, NDArray[Any]]) -> Model:
    return model_of(TEXT.replace("float16", "float"), **{n: w.astype(np.float32) for n, w in weights.items()})


def close(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    """Sums of sixty products, each with up to four roundings to float16 of 2⁻¹¹: 2⁻⁸ of the largest is ample."""
    scale = float(np.abs(theirs.astype(np.float32)).max())
    np.testing.assert_allclose(ours.astype(np.float32), theirs.astype(np.float32), rtol=0, atol=2**-8 * scale)


def seen(model: Model, x: NDArray[Any] = IMAGE) -> Any:
    def observe(names: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
        made = [name for name in names if name != "x"]
        yield {"x": x, **dict(zip(made, outputs_of(model.proto, *made, x=x), strict=True))} if made else {"x": x}

    return observe


# What a float32 twin gets ------------------------------------------------------------------------------------------


def test_factors_are_those_of_the_float32_twin() -> None:
    half, single = network_of(twin_weights()), widened(twin_weights())
    figures = figures_of(single, x=IMAGE.astype(np.float32))
    ours, theirs = equalize_channels(half, figures), equalize_channels(single, figures)
    assert min(theirs.gains.values()) > 1
    assert (ours.gains, ours.skipped) == (theirs.gains, theirs.skipped)
    for name, factors in theirs.amounts.items():
        np.testing.assert_array_equal(ours.amounts[name], factors)
    for name in ("w", "b", "v"):
        exact = weight_of(theirs.proto, name)
        stored = weight_of(ours.proto, name)
        assert stored.dtype == HALF
        np.testing.assert_allclose(
            stored, exact, rtol=2**-10, atol=2**-24, err_msg="more than one unit in the last place"
        )
        assert not np.array_equal(exact, weight_of(single.proto, name)), "it was changed"
    close(outputs_of(again(half, ours.proto).proto, x=IMAGE)[0], outputs_of(half.proto, x=IMAGE)[0])


def test_biases_lose_the_shift_that_float16_grids_cause() -> None:
    """The codes are not those of the twin: a scale in float16 is another by up to 2⁻¹¹, which moves some."""
    model = network_of(twin_weights())
    figures = figures_of(model, x=IMAGE)
    made = correct_biases(model, figures)
    assert list(made.gains) == list(correct_biases(widened(twin_weights()), figures).gains) == ["c", "y"]
    v = weight_of(model.proto, "v")
    scales = channel_scales(v, 0)
    grid = weight_codes(v, scales, 0) * scales.astype(np.float64).reshape(-1, 1, 1, 1)
    shift = -(grid - v)[:, :, 0, 0] @ figures["r"].mean
    np.testing.assert_allclose(made.amounts["y"], shift, rtol=1e-6, atol=1e-9)
    (name,) = made.proto.graph.node[-1].input[2:]
    np.testing.assert_array_equal(weight_of(made.proto, name), made.amounts["y"].astype(HALF))
    assert np.abs(weight_of(made.proto, "b") - weight_of(model.proto, "b")).max() > 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.02, 1.0, 300.0]))
@settings(max_examples=25, deadline=None)
def test_rounded_weights_keep_their_codes_in_float16(seed: int, size: float) -> None:
    weight = normal(5, 7, seed=seed, spread=size)
    x = normal(20, 7, seed=seed + 1)
    model = model_of("(float16[N, 7] x) => (float16[N, 5] y) { y = Gemm<transB = 1>(x, w) }", w=weight)
    made = round_weights(model, seen(model, x))
    stored = weight_of(made.proto, "w")
    assert stored.dtype == HALF
    codes, scales = weight_codes(stored, channel_scales(stored, 0), 0), channel_scales(weight, 0).astype(np.float64)
    assert np.abs(stored.astype(np.float64) / scales[:, None] - codes).max() < 0.2, "far from the next code"
    wide = x.astype(np.float64)
    gram = wide.T @ wide + np.diag(np.square(wide).sum(0)) * 7 / (8 * 20)  # shrunk as the repair does it
    nearest = weight_codes(weight, channel_scales(weight, 0), 0)
    errors = [weight.astype(np.float64) - each * scales[:, None] for each in (codes, nearest)]
    ours, theirs = (np.einsum("ok,kj,oj->o", error, gram, error) for error in errors)
    assert (ours <= theirs * 1.001).all()


# Mixed types ------------------------------------------------------------------------------------------------------

MIXED = (
    "(float[N, 6, 8, 8] x) => (float[N, 6, 8, 8] y) { c = Conv<pads = [1, 1, 1, 1]>(x, w, b) r = Relu(c) "
    "h = Cast<to = 10>(r) z = Conv(h, v) y = Cast<to = 1>(z) }"
)


def test_factors_pass_a_cast_and_each_weight_keeps_its_type() -> None:
    weights: dict[str, NDArray[Any]] = {**twin_weights()}
    weights |= {name: weights[name].astype(np.float32) for name in ("w", "b")}
    model, x = network_of(weights, MIXED), IMAGE.astype(np.float32)
    made = equalize_channels(model, figures_of(model, x=x))
    assert list(made.amounts) == ["h"]
    kinds = {tensor.name: weight_of(made.proto, tensor.name).dtype for tensor in made.proto.graph.initializer}
    assert kinds == {"w": np.float32, "b": np.float32, "v": HALF}
    close(outputs_of(again(model, made.proto).proto, x=x)[0], outputs_of(model.proto, x=x)[0])


def test_a_cast_to_integers_forbids_factors() -> None:
    text = (
        "(float16[N, 6, 8, 8] x) => (float16[N, 6, 8, 8] y, int32[N, 6, 8, 8] i) "
        "{ c = Conv<pads = [1, 1, 1, 1]>(x, w, b) r = Relu(c) i = Cast<to = 6>(r) y = Conv(r, v) }"
    )
    model = network_of({**twin_weights()}, text)
    made = equalize_channels(model, figures_of(model, x=IMAGE))
    assert made.skipped["r"] == "Cast i does not pass on a factor per channel"


def test_smoothing_reaches_through_the_cast_behind_a_float32_layer_norm() -> None:
    text = (
        "(float[N, 4, 6] x) => (float16[N, 4, 5] y) "
        "{ n = LayerNormalization(x, g, s) h = Cast<to = 10>(n) y = MatMul(h, m) }"
    )
    g = np.exp2(np.array([-3, 0, 0, 1, 0, 5], np.float32))
    model = model_of(text, g=g, s=np.zeros(6, np.float32), m=normal(6, 5))
    x = np.random.default_rng(3).normal(size=(64, 4, 6)).astype(np.float32)
    made = smooth_channels(model, figures_of(model, x=x))
    assert list(made.gains) == ["h"]
    close(outputs_of(again(model, made.proto).proto, x=x)[0], outputs_of(model.proto, x=x)[0])


def test_a_clip_at_the_end_of_float16_is_no_bound() -> None:
    text = TEXT.replace("Relu(c)", "Clip(c, low, high)")
    ends = {"low": np.array(0, HALF), "high": np.array(65504, HALF)}
    model = network_of({**twin_weights(), **ends}, text)
    assert list(equalize_channels(model, figures_of(model, x=IMAGE)).amounts) == ["r"]
    narrow = network_of({**twin_weights(), **ends, "high": np.array(6, HALF)}, text)
    assert not equalize_channels(narrow, figures_of(narrow, x=IMAGE)).amounts


# The range of float16 ---------------------------------------------------------------------------------------------


def first_figures(size: float) -> dict[str, ChannelFigures]:
    """Figures of the network with a first layer `size` times as large, which float16 need not be able to run."""
    plain = figures_of(network_of(twin_weights()), x=IMAGE)["r"]
    return {"r": ChannelFigures(1, plain.amax * size, plain.mean * size, plain.square * size**2)}


def test_a_common_factor_keeps_a_group_in_the_range() -> None:
    """Rows of a first layer this small would fall below the least scale; a power of two more, and none does."""
    weights = twin_weights(size=0.004)
    model = network_of(weights)
    figures = first_figures(0.004)
    single = equalize_channels(widened(weights), figures)
    ours = equalize_channels(model, figures)
    rows = [np.abs(weight_of(made.proto, "w")).max(axis=(1, 2, 3)) for made in (single, ours)]
    before = np.abs(weights["w"]).max(axis=(1, 2, 3))
    assert (rows[1] >= np.minimum(before, LEAST_ROW)).all()
    shift = np.log2(ours.amounts["r"] / single.amounts["r"])
    assert abs(shift[0]) >= 1
    np.testing.assert_allclose(shift, np.rint(shift[0]), atol=1e-9)
    assert ours.gains == single.gains


ENDS = {
    BEYOND: {"w": np.full((6, 6, 3, 3), 50000, HALF), "b": np.zeros(6, HALF), "v": np.full((6, 6, 1, 1), 50000, HALF)},
    FINE: {
        "w": np.full((6, 6, 3, 3), 1.2 * LEAST_ROW, HALF),
        "b": np.zeros(6, HALF),
        "v": np.asarray(np.eye(6)[..., None, None] * 1.2 * LEAST_ROW, HALF),
    },
}


@pytest.mark.parametrize("reason", ENDS)
def test_a_group_that_does_not_fit_stays_as_it_is(reason: str) -> None:
    """Both of its sides are as large, or as small, as float16 allows, so that no common factor suits both."""
    weights, figures = ENDS[reason], first_figures(1.0)
    assert list(equalize_channels(widened(weights), figures).amounts) == ["r"], "its twin is scaled"
    made = equalize_channels(network_of(weights), figures)
    assert made.skipped["r"] == reason
    for name, values in weights.items():
        np.testing.assert_array_equal(weight_of(made.proto, name), values)


def test_a_bias_at_the_end_of_float16_stays() -> None:
    weights = {**twin_weights(), "b": np.full(6, 65504, HALF)}
    model = network_of(weights)
    plain = figures_of(network_of(twin_weights()), x=IMAGE)["r"]
    x = ChannelFigures(1, plain.amax * 1e4, plain.mean * 1e4, plain.square * 1e8)
    made = correct_biases(model, {"x": x})
    assert made.skipped["c"] == BEYOND
    np.testing.assert_array_equal(weight_of(made.proto, "b"), weights["b"])
    assert "c" in correct_biases(widened(weights), {"x": x}).gains


def test_a_grid_beyond_float16_is_not_stored() -> None:
    """65504/127 rounds up to 516 in float16, and 127 of these are more than it has."""
    weight = normal(5, 7)
    weight[0, 0] = 65504
    model = model_of("(float16[N, 7] x) => (float16[N, 5] y) { y = Gemm<transB = 1>(x, w) }", w=weight)
    made = round_weights(model, seen(model, normal(20, 7) / HALF(1e4)))
    assert made.skipped == {"y": BEYOND}
    np.testing.assert_array_equal(weight_of(made.proto, "w"), weight)

"""Adaptive rounding and bias correction: errors never larger, means as they were, weights as Q/DQ takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantkit.errors import DataError, ModelError, UsageError
from quantkit.graph import Model
from quantkit.repairs import GramAccumulator, code_search, correct_biases, find_codes, round_weights, rounding
from quantkit.repairs.editing import WeightEditor
from quantkit.repairs.grams import gather_patches
from quantkit.repairs.weighted_layers import weighted_layers
from tests.support.repairing import again, figures_of, model_of, outputs_of, weight_of

RANDOM = np.random.default_rng(11)


def normal(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


def correlated(samples: int, size: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Data in few directions, not around zero, like activations behind ReLU."""
    mixed = random.normal(size=(samples, max(size // 2, 1))) @ random.normal(size=(max(size // 2, 1), size))
    return np.maximum(mixed + 0.3 * random.normal(size=(samples, size)), 0)


def energy(codes: NDArray[Any], weight: NDArray[Any], scales: NDArray[Any], gram: NDArray[Any]) -> NDArray[Any]:
    error = codes.astype(np.float64) - weight.astype(np.float64) / scales.astype(np.float64)[:, None]
    return np.einsum("ok,kj,oj->o", error, gram, error)


def scales_of(weight: NDArray[Any]) -> NDArray[np.float32]:
    return np.maximum(np.abs(weight).max(axis=1) / np.float32(127), np.finfo(np.float32).tiny)


def nearest(weight: NDArray[Any], scales: NDArray[Any]) -> NDArray[Any]:
    return np.clip(np.rint(weight.astype(np.float64) / scales.astype(np.float64)[:, None]), -127, 127)


# The pure function ------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([1, 2, 5, 63, 65, 130]), st.booleans())
@settings(max_examples=40)
def test_the_error_is_never_larger_and_codes_stay_near(seed: int, outputs: int, size: int, dead: bool) -> None:
    random = np.random.default_rng(seed)
    weight = (random.normal(size=(outputs, size)) * np.exp(random.normal(size=(outputs, 1)))).astype(np.float32)
    x = correlated(50, size, random)
    if dead:
        weight[0], x[:, 0] = 0, 0
    gram, scales = x.T @ x, scales_of(weight)
    codes = find_codes(weight, scales, gram)
    assert (codes.dtype, codes.shape) == (np.int8, weight.shape)
    simple = nearest(weight, scales)
    assert (energy(codes, weight, scales, gram) <= energy(simple, weight, scales, gram) * (1 + 1e-9) + 1e-9).all()
    assert np.abs(codes).max() <= 127
    assert np.abs(codes - simple).max() <= 2
    np.testing.assert_array_equal(codes, find_codes(weight, scales, gram))
    alive = np.abs(weight).max(axis=1) > 0
    assert (np.abs(codes).max(axis=1)[alive] == 127).all(), "the scale can be read from what was rounded"
    best = np.abs(weight).argmax(axis=1)[alive]
    assert (np.abs(codes[alive, best]) == 127).all()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_no_single_step_makes_it_better(seed: int) -> None:
    random = np.random.default_rng(seed)
    weight, x = random.normal(size=(4, 7)).astype(np.float32), correlated(40, 7, random)
    scales, gram = scales_of(weight), x.T @ x
    codes = find_codes(weight, scales, gram).astype(int)
    error = energy(codes, weight, scales, gram)
    for k in range(7):
        for step in (-1, 1):
            other = codes.copy()
            other[:, k] += step
            allowed = (np.abs(other[:, k]) <= 127) & (np.abs(codes[:, k]) < 127)
            allowed &= np.abs(other[:, k] - nearest(weight, scales)[:, k]) <= 2
            assert (energy(other, weight, scales, gram)[allowed] >= error[allowed] * (1 - 1e-9)).all()


def test_rows_may_be_rounded_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = normal(33, 20), correlated(60, 20, RANDOM)
    scales, gram = scales_of(weight), x.T @ x
    whole = find_codes(weight, scales, gram)
    monkeypatch.setattr(code_search, "VALUES", 7 * 20 + 3)
    assert [part.stop - part.start for part in code_search.row_blocks(weight.shape)] == [7] * 5
    np.testing.assert_array_equal(find_codes(weight, scales, gram), whole)


def test_it_is_far_better_than_nearest_where_inputs_are_correlated() -> None:
    weight, x = normal(32, 144), correlated(400, 144, RANDOM)
    scales, gram = scales_of(weight), x.T @ x
    ours = energy(find_codes(weight, scales, gram), weight, scales, gram).sum()
    assert ours < 0.4 * energy(nearest(weight, scales), weight, scales, gram).sum()


@pytest.mark.parametrize("gram", [np.diag([1.0, 2, 3, 4]), np.zeros((4, 4))])
def test_without_correlation_nearest_is_best(gram: NDArray[Any]) -> None:
    weight = normal(3, 4)
    np.testing.assert_array_equal(find_codes(weight, scales_of(weight), gram), nearest(weight, scales_of(weight)))


def test_what_lies_on_the_grid_stays() -> None:
    weight, x = normal(8, 20), correlated(60, 20, RANDOM)
    scales = scales_of(weight)
    codes = find_codes(weight, scales, x.T @ x)
    on_grid = codes * scales[:, None]
    np.testing.assert_array_equal(find_codes(on_grid, scales_of(on_grid), x.T @ x), codes)


# Gram matrices ----------------------------------------------------------------------------------------------------

OPERATORS = {
    "y = Conv(x, w)": (6, 6, 3, 3),
    "y = Conv<pads = [1, 0, 2, 1], strides = [2, 1]>(x, w)": (4, 6, 3, 2),
    "y = Conv<dilations = [2, 1], group = 3, pads = [1, 1, 1, 1]>(x, w)": (6, 2, 2, 3),
    "y = Conv<group = 6>(x, w)": (12, 1, 3, 3),
    'y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w)': (4, 6, 3, 4),
    'y = Conv<auto_pad = "SAME_LOWER">(x, w)': (4, 6, 2, 2),
    "y = ConvTranspose<strides = [2, 2]>(x, w)": (6, 4, 2, 2),
    "y = ConvTranspose<strides = [2, 3], group = 2>(x, w)": (6, 4, 2, 2),
    "f = Flatten(x) y = Gemm(f, w)": (294, 5),
    "f = Flatten(x) y = Gemm<transB = 1>(f, w)": (5, 294),
    "f = Flatten(x) y = Gemm<transB = 1, transA = 1>(w, f)": (294, 5),
    "y = MatMul(x, w)": (7, 5),
    "y = MatMul(w, x)": (5, 7),
}
X = "(float[N, 6, 7, 7] x) => (float[A, B, C, D] y)"
FLAT = "(float[N, 6, 7, 7] x) => (float[A, B] y)"


@pytest.mark.parametrize("nodes", OPERATORS)
def test_rows_times_patches_are_what_the_operator_computes(nodes: str) -> None:
    weight, x = normal(*OPERATORS[nodes]), normal(2, 6, 7, 7)
    model = model_of(f"{FLAT if 'Gemm' in nodes else X} {{ {nodes} }}", w=weight)
    skipped: dict[str, str] = {}
    (layer,) = weighted_layers(WeightEditor(model), skipped)
    data = x if layer.tensor == "x" else x.reshape(2, -1)
    rows, patches = layer.rows(weight), gather_patches(data, layer.geometry)
    assert (rows.shape, skipped) == (layer.rows_shape(weight.shape), {})
    assert layer.scales(weight).shape == rows.shape[:2]
    np.testing.assert_array_equal(layer.back(rows, weight.shape), weight)
    products = np.sort((rows @ patches.transpose(0, 2, 1)).ravel())
    (output,) = outputs_of(model.proto, x=x)
    output = np.sort(output.ravel())
    if "[2, 3]" in nodes:  # nothing reaches some outputs
        output = output[output != 0]
    np.testing.assert_allclose(products, output, rtol=1e-4, atol=1e-5)


def test_sums_do_not_depend_on_the_batches() -> None:
    model = model_of(f"{X} {{ y = Conv(x, w) }}", w=normal(4, 6, 3, 3))
    (layer,) = weighted_layers(WeightEditor(model), {})
    x = normal(8, 6, 7, 7)
    grams = []
    for parts in (1, 4):
        gram = GramAccumulator(layer.geometry)
        for part in np.split(x, parts):
            gram.add(part)
        grams.append(gram.value)
    np.testing.assert_allclose(grams[0], grams[1], rtol=1e-4, atol=1e-3)
    patches = gather_patches(x, layer.geometry)[0].astype(np.float64)
    np.testing.assert_allclose(grams[0][0], patches.T @ patches, rtol=1e-4, atol=1e-3)


def test_few_patches_say_little_about_pairs() -> None:
    (layer,) = weighted_layers(
        WeightEditor(model_of(f"{FLAT} {{ f = Flatten(x) y = Gemm(f, w) }}", w=normal(294, 5))), {}
    )
    few, many = (GramAccumulator(layer.geometry) for _ in range(2))
    few.add(normal(1, 294))
    many.add(normal(4096, 294))
    for gram, kept in ((few, 0.03), (many, 0.99)):
        np.testing.assert_allclose(gram.shrunk[0].diagonal(), gram.value[0].diagonal())
        off = ~np.eye(294, dtype=bool)
        share = gram.shrunk[0][off] / gram.value[0][off]
        np.testing.assert_allclose(share, share[0], rtol=1e-6)
        assert share[0] == pytest.approx(kept, abs=0.01)


def test_a_gram_matrix_of_nothing_or_of_nan_is_refused() -> None:
    (layer,) = weighted_layers(WeightEditor(model_of(f"{X} {{ y = Conv(x, w) }}", w=normal(4, 6, 3, 3))), {})
    gram = GramAccumulator(layer.geometry)
    with pytest.raises(DataError, match="no activations were seen"):
        _ = gram.value
    gram.add(np.full((1, 6, 7, 7), np.nan, np.float32))
    with pytest.raises(DataError, match="NaN or Inf"):
        _ = gram.value


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("groups", [1, 2])
def test_squares_beyond_float32_are_added_up(groups: int) -> None:
    text = f"{X} {{ y = Conv<group = {groups}>(x, w) }}"
    (layer,) = weighted_layers(WeightEditor(model_of(text, w=normal(4, 6 // groups, 3, 3))), {})
    x = normal(2, 6, 7, 7)
    plain, huge = (GramAccumulator(layer.geometry) for _ in range(2))
    plain.add(x)
    huge.add(x * np.float32(2.0**90))
    np.testing.assert_allclose(huge.value, plain.value * 2.0**180, rtol=1e-4, atol=2.0**170)


# Networks ---------------------------------------------------------------------------------------------------------

IMAGES = np.repeat(np.repeat(np.maximum(normal(12, 6, 4, 4) + 0.5, 0), 2, 2), 2, 3)
TEXT = "(float[N, 6, 8, 8] x) => (float[N, 5] y)"
NODES = (
    "c = Conv<pads = [1, 1, 1, 1]>(x, w, a) r = Relu(c) d = Conv<group = 6>(r, depth) g = GlobalAveragePool(d) "
    "f = Flatten(g) h = MatMul(f, m) i = Add(h, b) y = Gemm<transB = 1, alpha = 2.0, beta = 0.5>(i, n, p)"
)
WEIGHTS = {
    "w": normal(6, 6, 3, 3), "a": normal(6), "depth": normal(6, 1, 3, 3), "m": normal(6, 7), "b": normal(7),
    "n": normal(5, 7), "p": normal(5),
}  # fmt: skip


def observer(model: Model, x: NDArray[Any], calls: list[Sequence[str]] | None = None) -> Any:
    def observe(names: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
        if calls is not None:
            calls.append(names)
        made = [name for name in names if name != "x"]
        for part in np.split(x, 3):
            values = outputs_of(model.proto, *made, x=part) if made else []
            yield {"x": part, **dict(zip(made, values, strict=True))}

    return observe


def test_a_network_is_rounded_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(f"{TEXT} {{ {NODES} }}", **WEIGHTS)
    before = model.proto.SerializeToString(deterministic=True)
    calls: list[Sequence[str]] = []
    made = round_weights(model, observer(model, IMAGES, calls))
    assert calls == [("x", "r", "f", "i")]
    assert model.proto.SerializeToString(deterministic=True) == before
    assert (list(made.gains), made.skipped) == (["c", "d", "h", "y"], {})
    assert min(made.gains.values()) >= 0
    assert made.gains["c"] > 3
    new = again(model, made.proto)
    for name, axis in (("w", 0), ("depth", 0), ("m", 1), ("n", 0)):
        weight, old = (
            np.moveaxis(weight_of(p, name), axis, 0).reshape(WEIGHTS[name].shape[axis], -1)
            for p in (new.proto, model.proto)
        )
        np.testing.assert_allclose(scales_of(weight), scales_of(old), rtol=3e-7)
        codes = nearest(weight, scales_of(weight))
        np.testing.assert_allclose(codes * scales_of(weight)[:, None], weight, rtol=1e-6)
        assert np.abs(codes - nearest(old, scales_of(old))).max() <= 2
    monkeypatch.setattr(rounding, "MEMORY", 1)
    calls.clear()
    assert round_weights(model, observer(model, IMAGES, calls)).proto == made.proto
    assert calls == [("x",), ("r",), ("f",), ("i",)]


def test_the_first_layers_output_is_nearer() -> None:
    model = model_of(f"{TEXT} {{ {NODES} }}", **WEIGHTS)
    made = round_weights(model, observer(model, IMAGES))
    copy = model_of(f"{TEXT} {{ {NODES} }}", **WEIGHTS)
    flat = WEIGHTS["w"].reshape(6, -1)
    simple = (nearest(flat, scales_of(flat)) * scales_of(flat)[:, None]).reshape(6, 6, 3, 3).astype(np.float32)
    copy.proto.graph.initializer[0].raw_data = simple.tobytes()
    truth, ours, theirs = (outputs_of(p, "c", x=IMAGES)[0] for p in (model.proto, made.proto, copy.proto))
    gain = 10 * np.log10(((theirs - truth) ** 2).sum() / ((ours - truth) ** 2).sum())
    assert gain == pytest.approx(made.gains["c"], abs=0.5)


def test_what_is_not_rounded_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("(float[N, 6, 8, 8] x) => (float[N, 6, 8, 8] y)"
                     "{ c = ConvTranspose<pads = [1, 1, 1, 1]>(x, u) d = Conv(c, v) e = MatMul(d, d) f = Conv(e, v)"
                     "y = Conv(f, z) }",
                     u=normal(6, 6, 3, 3), v=normal(6, 6, 1, 1), z=normal(6, 6, 1, 1))  # fmt: skip
    monkeypatch.setattr(rounding, "LARGEST", 6)
    made = round_weights(model, observer(model, IMAGES), exclude={"f"})
    assert list(made.gains) == ["d", "y"]
    assert {name: reason.split(":")[0] for name, reason in made.skipped.items()} == {
        "c": "its kernel overlaps itself", "e": "its weights are not known", "f": "excluded",
    }  # fmt: skip
    np.testing.assert_array_equal(weight_of(made.proto, "v"), weight_of(model.proto, "v"))
    monkeypatch.setattr(rounding, "LARGEST", 5)
    assert "more than 5" in round_weights(model, observer(model, IMAGES)).skipped["d"]


def test_float64_weights_say_so() -> None:
    wide = {name: array.astype(np.float64) for name, array in WEIGHTS.items()}
    model = model_of(f"{TEXT.replace('float', 'double')} {{ {NODES} }}", **wide)
    skipped: dict[str, str] = {}
    assert not list(weighted_layers(WeightEditor(model), skipped))
    assert set(skipped.values()) == {"its weights are float64, repairs need float32 or float16"}


def test_a_weight_that_is_not_finite_is_refused() -> None:
    model = model_of(f"{TEXT} {{ {NODES} }}", **WEIGHTS | {"w": np.full((6, 6, 3, 3), np.inf, np.float32)})
    with pytest.raises(ModelError, match="'w' holds NaN or Inf"):
        round_weights(model, observer(model_of(f"{TEXT} {{ {NODES} }}", **WEIGHTS), IMAGES))


# Bias correction --------------------------------------------------------------------------------------------------

CONSTANT = np.broadcast_to(normal(1, 6, 1, 1), (2, 6, 8, 8)).copy()
NOISE = normal(9, 6, 8, 8) + normal(6, 1, 1)
LINEAR = {
    "y = Conv(x, v)": ("y", (5, 6, 1, 1), NOISE),
    "y = Conv<strides = [2, 2]>(x, v, a)": ("y", (5, 6, 1, 1), CONSTANT),
    "y = Conv<pads = [1, 1, 2, 2], strides = [2, 1], dilations = [1, 2]>(x, v)": ("y", (5, 6, 3, 3), CONSTANT),
    'y = Conv<auto_pad = "SAME_UPPER", group = 3>(x, v, c)': ("y", (6, 2, 3, 3), CONSTANT),
    "m = MatMul(x, v) y = Add(b, m)": ("m", (8, 4), NOISE),
}


def on_grid(model: Model) -> Model:
    """The network with the weight `v` rounded to nearest; a coarse grid would not change the law."""
    (layer,) = weighted_layers(WeightEditor(model), {})
    weight = weight_of(model.proto, "v")
    rows, scales = layer.rows(weight), layer.scales(weight)[..., None]
    editor = WeightEditor(model)
    editor.replace(
        editor.proto.graph.node[layer.node], layer.place, layer.back(np.rint(rows / scales) * scales, weight.shape)
    )
    return again(model, editor.finished())


@pytest.mark.parametrize("nodes", LINEAR)
def test_the_mean_of_a_linear_layer_is_as_it_was(nodes: str) -> None:
    name, shape, x = LINEAR[nodes]
    model = model_of(f"(float[N, 6, 8, 8] x) => (float[N, A, B, C] y) {{ {nodes} }}", v=normal(*shape), a=normal(5),
                     b=normal(4), c=normal(6))  # fmt: skip
    figures = figures_of(model, x=x)
    made = correct_biases(model, figures)
    assert list(made.amounts) == [name]
    assert made.skipped == {}
    assert made.gains[name] >= 0
    axis = -1 if "MatMul" in nodes else 1

    def means(proto: Any) -> NDArray[Any]:
        (output,) = outputs_of(on_grid(again(model, proto)).proto, x=x)
        return np.moveaxis(output.astype(np.float64), axis, 0).reshape(output.shape[axis], -1).mean(1)

    (output,) = outputs_of(model.proto, x=x)
    truth = np.moveaxis(output.astype(np.float64), axis, 0).reshape(output.shape[axis], -1).mean(1)
    assert np.abs(means(model.proto) - truth).max() > 1e-4, "rounding alone moves it"
    np.testing.assert_allclose(means(made.proto), truth, atol=2e-6)
    same = correct_biases(on_grid(model), figures, reference=model)
    np.testing.assert_allclose(same.amounts[name], made.amounts[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("gemm", ["Gemm<alpha = 2.0, beta = 0.5>(x, v, p)", "Gemm<alpha = 3.0, beta = 0.0>(x, v)"])
def test_the_factors_of_a_gemm_are_minded(gemm: str) -> None:
    model = model_of(f"(float[N, 8] x) => (float[N, 4] y) {{ y = {gemm} }}", v=normal(8, 4), p=normal(1, 4))
    x = normal(50, 8) + 1
    made = correct_biases(model, figures_of(model, x=x))
    outputs = [outputs_of(p, x=x)[0].mean(0) for p in (model.proto, on_grid(again(model, made.proto)).proto)]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=2e-6)


def test_a_bias_that_switches_a_class_off_still_does() -> None:
    bias = np.array([0.5, -np.inf, 0, 1], np.float32)
    model = model_of("(float[N, 8] x) => (float[N, 4] y) { y = Gemm(x, v, p) }", v=normal(8, 4), p=bias)
    made = correct_biases(model, figures_of(model, x=normal(50, 8) + 1))
    (name,) = (made.proto.graph.node[0].input[2],)
    np.testing.assert_array_equal(np.isinf(weight_of(made.proto, name)), np.isinf(bias))
    assert made.skipped == {}


def test_what_is_not_corrected_has_a_reason() -> None:
    model = model_of("(float[N, 6, 8, 8] x) => (float[N, 6, 8, 8] y)"
                     "{ c = ConvTranspose<strides = [1, 1]>(x, v) d = Conv(c, v) e = MatMul(d, m) f = MatMul(m, e)"
                     "y = Conv(f, v) }",
                     v=normal(6, 6, 1, 1), m=normal(8, 8))  # fmt: skip
    figures = figures_of(model, x=IMAGES)
    made = correct_biases(model, {k: v for k, v in figures.items() if k != "f"}, exclude={"d"})
    assert made.amounts == {}
    assert made.proto == model.proto
    assert {name: reason[:16] for name, reason in made.skipped.items()} == {
        "c": "the taps of a Co", "d": "excluded", "e": "no Add of a cons", "f": "its weights are ",
        "y": "no statistics of",
    }  # fmt: skip
    other = model_of("(float[N, 6, 8, 8] x) => (float[N, 6, 8, 8] y) { y = Conv(x, v) }", v=normal(6, 6, 1, 1))
    with pytest.raises(UsageError, match="the reference has no node 'd'"):
        correct_biases(model, figures, reference=other)


def test_a_shared_bias_is_copied() -> None:
    bias = normal(6)
    model = model_of("(float[N, 6, 8, 8] x) => (float[N, 6, 8, 8] y)"
                     "{ c = Conv(x, v, b) r = Relu(c) d = Conv(r, v, b) y = Add(d, b4) }",
                     v=normal(6, 6, 1, 1), b=bias, b4=normal(1))  # fmt: skip
    made = correct_biases(model, figures_of(model, x=IMAGES))
    new = again(model, made.proto)
    first, second = (weight_of(new.proto, node.input[2]) for node in new.proto.graph.node if node.op_type == "Conv")
    np.testing.assert_allclose(first, bias + made.amounts["c"], rtol=1e-5)
    np.testing.assert_allclose(second, bias + made.amounts["d"], rtol=1e-5)

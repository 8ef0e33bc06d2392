"""Q/DQ in FP8: what onnxruntime computes against onnx's reference evaluator, and the places of pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from quantkit.backends.session import open_session
from quantkit.graph import Model
from quantkit.graph.model import default_opset
from quantkit.graph.weights import stored_tensors, weight_values
from quantkit.linting.registry import lint_model
from quantkit.numerics import e4m3_codes, round_to_e4m3
from quantkit.qdq.float_reason import FloatCause
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import QuantizedNetwork, WeightForm
from quantkit.qdq.layer_counts import count_fp8_layers, count_int8_layers
from quantkit.qdq.pairs import find_pairs
from quantkit.qdq.placement import Choices, Policy
from quantkit.qdq.removal import remove_qdq
from quantkit.values import QuantizedType
from tests.support.qdq import every_scale, model_of, noise

FP8 = Choices(type=QuantizedType.FP8)
NET = (
    "(float[2, 16, 4, 4] x) => (float[2, 8] y)"
    " { c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g) y = MatMul(f, u) }"
)
WEIGHTS = {"w": noise(16, 16, 3, 3), "u": noise(16, 8)}


def quantized(form: WeightForm = WeightForm.FP8, choices: Choices = FP8, opset: int = 17) -> QuantizedNetwork:
    model = model_of(NET, opset, **WEIGHTS)
    made = insert_qdq(model, dict.fromkeys(every_scale(model), 0.01), choices, form)
    onnx.checker.check_model(made.proto, full_check=True)
    return made


def on_quantkit(proto: onnx.ModelProto, x: Any) -> Any:
    model = Model(Path("net.onnx"), proto, "")
    return open_session(model, model.outputs).runner()({"x": x})["y"].copy()


@pytest.mark.parametrize("form", [WeightForm.FLOAT, WeightForm.FP8])
@pytest.mark.parametrize("opset", [17, 21])
def test_onnxruntime_computes_what_the_reference_does(form: WeightForm, opset: int) -> None:
    """Values below zero before the Relu count: onnxruntime's optimizer would take the Relu away."""
    proto = quantized(form, opset=opset).proto
    assert default_opset(proto) == max(opset, 19)
    x = 3 * noise(2, 16, 4, 4)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    np.testing.assert_allclose(on_quantkit(proto, x), expected, rtol=1e-4, atol=1e-4)


def test_a_clip_before_a_pair_is_computed() -> None:
    text = (
        NET.replace("Relu(c)", "Clip(c, low, high)")
        .replace("GlobalAveragePool(r)", "Conv(r, v)")
        .replace("f = Flatten(g) y = MatMul(f, u)", "e = GlobalAveragePool(g) y = Flatten(e)")
        .replace("[2, 8] y", "[2, 16] y")
    )
    weights = {"w": WEIGHTS["w"], "v": noise(16, 16, 1, 1), "low": np.float32(0), "high": np.float32(6)}
    model = model_of(text, 19, **{name: np.asarray(value) for name, value in weights.items()})
    proto = insert_qdq(model, dict.fromkeys(every_scale(model), 0.01), FP8).proto
    x = 3 * noise(2, 16, 4, 4)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    np.testing.assert_allclose(on_quantkit(proto, x), expected, rtol=1e-4, atol=1e-4)


def test_weights_are_stored_on_their_channels_grids() -> None:
    made = quantized()
    stored = stored_tensors(made.proto.graph)
    scale = np.abs(WEIGHTS["w"]).max(axis=(1, 2, 3)) / np.float32(448)
    model = Model(Path("net.onnx"), made.proto, "")
    np.testing.assert_array_equal(weight_values(stored["w_scale_0"], model), scale)
    quotients = WEIGHTS["w"] / scale[:, None, None, None]
    np.testing.assert_array_equal(weight_values(stored["w_quantized_0"], model), round_to_e4m3(quotients))
    assert stored["w_quantized_0"].raw_data == e4m3_codes(quotients).tobytes()
    zero = stored["w_zero_point_0"]
    assert (zero.data_type, zero.dims, set(zero.raw_data)) == (onnx.TensorProto.FLOAT8E4M3FN, [16], {0})


def test_layers_are_counted_by_type() -> None:
    model = Model(Path("net.onnx"), quantized().proto, "")
    assert (count_fp8_layers(model), count_int8_layers(model)) == (2, (0, 2))
    assert lint_model(model) == ()
    int8 = Model(Path("net.onnx"), quantized(WeightForm.INT8, Choices()).proto, "")
    assert (count_fp8_layers(int8), count_int8_layers(int8)) == (0, (2, 2))


def test_pairs_can_be_removed_but_fill_no_table() -> None:
    model = Model(Path("net.onnx"), quantized().proto, "")
    assert not find_pairs(model).left
    stripped = remove_qdq(model)
    assert stripped.scales == {}
    assert set(stripped.unscaled.values()) == {"it is quantized to FP8, and a table holds scales of INT8"}


def test_average_pools_have_no_fp8() -> None:
    assert "r" in quantized(WeightForm.INT8, Choices()).pairs
    assert set(quantized().pairs) == {"x", "f"}


KERNELS = {
    "three channels": ("(float[1, 3, 8, 8] x) => (float[1, A, B, C] y) { y = Conv(x, w) }", (16, 3, 3, 3), "3 input"),
    "few outputs": ("(float[1, 16, 8, 8] x) => (float[1, A, B, C] y) { y = Conv(x, w) }", (10, 16, 1, 1), "10 output"),
    "depthwise": (
        "(float[1, 16, 8, 8] x) => (float[1, A, B, C] y) { y = Conv<group = 16>(x, w) }", (16, 1, 3, 3), "depthwise",
    ),
    "remainders": (
        "(float[1, 24, 8, 8] x) => (float[1, A, B, C] y) { y = Conv(x, w) }", (32, 24, 1, 1), "24 and 32 channels",
    ),
    "large": ("(float[1, 16, 9, 9] x) => (float[1, A, B, C] y) { y = Conv(x, w) }", (16, 16, 7, 7), "49 taps"),
    "transposed": (
        "(float[1, 16, 8, 8] x) => (float[1, A, B, C] y) { y = ConvTranspose(x, w) }", (16, 16, 2, 2), "ConvTranspose",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KERNELS)
def test_convolutions_without_an_fp8_kernel_stay_float_unless_named(kind: str) -> None:
    text, shape, detail = KERNELS[kind]
    text = text.replace("} ", "}").replace("{ y", "{ h = MatMul(x, m) y").replace("(x, w)", "(h, w)")
    size = 9 if kind == "large" else 8
    model = model_of(text, 19, w=noise(*shape), m=noise(size, size))
    made = insert_qdq(model, {"x": 0.1, "h": 0.1}, FP8)
    (reason,) = made.left.values()
    assert reason.cause is FloatCause.FP8_KERNEL
    assert detail in reason.detail
    named = insert_qdq(model, {"x": 0.1, "h": 0.1}, replace(FP8, include=frozenset({"y"})))
    assert named.left == {}
    (found,) = lint_model(Model(Path("net.onnx"), named.proto, ""))
    assert (found.rule, detail in found.problem) == ("fp8-kernel", True)


def test_inputs_of_two_types_are_found() -> None:
    text = (
        "(float[N, 8] x) => (float[N, 8] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
        " k = DequantizeLinear(w, s, i) y = MatMul(d, k) }"
    )
    model = model_of(text, 19, s=np.float32(0.1), w=np.ones((8, 8), np.int8), i=np.int8(0))
    zero = onnx.helper.make_tensor("z", onnx.TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    model.proto.graph.initializer.append(zero)
    assert "unequal-types" in {found.rule for found in lint_model(model)}
    assert (count_fp8_layers(model), count_int8_layers(model)) == (0, (0, 1))


def test_policy_all_adds_products_and_no_curves() -> None:
    text = (
        "(float[1, 16, 16] x, float[1, 16, 16] z) => (float[1, 16, 16] y)"
        " { p = MatMul(x, z) s = Softmax(p) y = MatMul(s, z) }"
    )
    model = model_of(text, 19)
    made = insert_qdq(model, every_scale(model), replace(FP8, policy=Policy.ALL))
    assert set(made.pairs) == {"x", "z", "s"}

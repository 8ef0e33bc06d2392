"""Lint rules: one small network for every rule, and fixes that change no number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser, version_converter
from onnx.reference import ReferenceEvaluator
from onnxruntime import InferenceSession

from quantkit.graph import Model, load_model
from quantkit.graph.operators import DEQUANTIZED_BEFORE
from quantkit.linting.finding import Finding
from quantkit.linting.fix import fix_model
from quantkit.linting.registry import lint_model, lint_rules
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.placement import Choices
from quantkit.table import read_table
from tests.support.qdq import behind_pairs, inserted, model_of, noise

SEVERITY = {rule.name: rule.severity for rule in lint_rules()}
RANDOM = np.random.default_rng(11)
TINY = np.finfo(np.float32).tiny
INT8 = RANDOM.integers(-127, 128, size=(4, 3, 3, 3)).astype(np.int8)
SQUARE = RANDOM.integers(-127, 128, size=(3, 3, 1, 1)).astype(np.int8)
FLOAT = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)
IMAGE = "(float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y)"
SAME = "(float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y)"
PAIR = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
WEIGHT = "k = DequantizeLinear<axis = 0>(w, t, o)"
BEHIND = "q = QuantizeLinear(c, s, z) y = DequantizeLinear(q, s, z)"
CLEAN = f"{PAIR} {WEIGHT} y = Conv(d, k)"
ONES = np.ones(3, np.float32)
DEFAULTS: dict[str, NDArray[Any]] = {
    "s": np.float32(0.05),
    "z": np.int8(0),
    "w": INT8,
    "t": np.linspace(0.01, 0.02, 4, dtype=np.float32),
    "o": np.zeros(4, np.int8),
    "u": SQUARE,
    "r": np.linspace(0.01, 0.02, 3, dtype=np.float32),
    "i": np.zeros(3, np.int8),
    "f": np.float32(0.07),
    "g": ONES,
}  # fmt: skip


def network(text: str, opset: int = 17, domain: str = "", **weights: Any) -> Model:
    """A network from ONNX's text, with the stored tensors that it reads."""
    imports = f'"": {opset}' + (f', "{domain}": 1' if domain else "")
    proto = parser.parse_model(f"<ir_version: 8, opset_import: [{imports}]> net {text}")
    read = {name for node in proto.graph.node for name in node.input} | {v.name for v in proto.graph.output}
    made = {name for node in proto.graph.node for name in node.output} | {v.name for v in proto.graph.input}
    for name in sorted(read - made - {""}):
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray({**DEFAULTS, **weights}[name]), name))
    return Model(Path("net.onnx"), proto, "")


def found(model: Model) -> list[str]:
    return [f.rule for f in lint_model(model)]


def only(model: Model) -> Finding:
    (one,) = lint_model(model)
    return one


def evaluated(proto: onnx.ModelProto, seed: int = 3) -> list[NDArray[Any]]:
    """What ONNX's reference computes for a random input that reaches beyond the scales."""
    random = np.random.default_rng(seed)
    feeds = {}
    stored = {t.name for t in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name not in stored:
            shape = [d.dim_value or 2 for d in value.type.tensor_type.shape.dim]
            feeds[value.name] = (random.normal(size=shape) * 4).astype(np.float32)
    newer = onnx.ModelProto()
    newer.CopyFrom(proto)
    newer.opset_import[0].version = max(newer.opset_import[0].version, 19)  # the reference has no older Q/DQ
    return list(ReferenceEvaluator(newer).run(None, feeds))


def check_fixed(model: Model, like: Model | None = None) -> onnx.ModelProto:
    """Check what every fix has to keep; return the fixed network. like: an equivalent that the reference accepts."""
    before = model.proto.SerializeToString(deterministic=True)
    promised = [f for f in lint_model(model) if f.fixable]
    proto, fixed = fix_model(model)
    again, _ = fix_model(model)
    assert model.proto.SerializeToString(deterministic=True) == before, "nobody edits a model"
    assert proto.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    left = lint_model(replace(model, proto=proto))
    assert set(promised) <= set(fixed)
    assert not {(f.rule, f.where) for f in fixed} & {(f.rule, f.where) for f in left}
    assert not any(f.fixable for f in left)
    onnx.checker.check_model(proto, full_check=True)
    for ours, theirs in zip(evaluated(proto), evaluated((like or model).proto), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    return proto


# Rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"{IMAGE} {{ {CLEAN} }}",
        f"{IMAGE} {{ {PAIR} k = QuantizeLinear<axis = 0>(v, t, o) l = DequantizeLinear<axis = 0>(k, t, o)"
        " y = Conv(d, l) }",
        f"{IMAGE} {{ {PAIR} {WEIGHT} c = Conv(d, k, b) n = BatchNormalization(c, a, b, b, a) y = Relu(n) }}",
        f"{SAME} {{ {PAIR} {WEIGHT} c = Conv(d, k) y = Add(c, d) }}",
        "(float[N, 3] x) => (float[N, 4] y)"
        f" {{ {PAIR} k = DequantizeLinear<axis = -1>(w, t, o) y = MatMul(d, k) }}",
        f"{IMAGE} {{ q = QuantizeLinear(x, s, z) m = Transpose<perm = [0, 1, 3, 2]>(q)"
        f" d = DequantizeLinear(m, s, z) {WEIGHT} y = Conv(d, k) }}",
    ],
    ids=["stored", "float weights", "fused", "residual", "negative axis", "moved in INT8"],
)  # fmt: skip
def test_what_tensorrt_wants_has_no_findings(text: str) -> None:
    weights: dict[str, Any] = {"v": FLOAT, "b": np.ones(4, np.float32), "a": np.ones(4, np.float32)}
    if "MatMul" in text:
        weights["w"] = INT8[:, :, 0, 0].T
    if "Add" in text:
        weights |= {"w": SQUARE, "t": DEFAULTS["r"], "o": DEFAULTS["i"]}
    model = network(text, **weights)
    assert lint_model(model) == ()
    assert fix_model(model) == (model.proto, ())


@pytest.mark.parametrize("version", [None, 8, 10])
def test_what_quantize_places_has_no_findings(version: int | None) -> None:
    """A HardSwish behind a depthwise convolution, and a tensor that a convolution and a Concat read."""
    text = (
        "(float[1, 8, 6, 6] x) => (float[1, 8, 6, 6] y) { a = Conv(x, w) b = Conv<group = 8, pads = [1, 1, 1, 1]>(a, d)"
        " c = HardSwish(b) e = Conv(c, w) l = Concat<axis = 1>(c, e) y = Conv(l, v) }"
    )
    model = model_of(text, w=noise(8, 8, 1, 1), d=noise(8, 1, 3, 3), v=noise(8, 16, 1, 1))
    made = inserted(model, choices=Choices(tensorrt=version))
    assert behind_pairs(made, "l") == [version == 8, False]
    assert behind_pairs(made, "c") == [version == 8]
    assert lint_model(replace(model, proto=made.proto)) == ()


def test_weights_may_use_the_whole_of_int8() -> None:
    assert lint_model(network(f"{IMAGE} {{ {CLEAN} }}", w=np.full_like(INT8, -128))) == ()


PARAMETERS: dict[str, tuple[str, str, bool, dict[str, Any]]] = {
    "zero point": ("zero-point", "zero point 14;", False, {"z": np.int8(14)}),
    "zero points of weights": ("zero-point", "zero point -3 … 2;", False, {"o": np.array([0, -3, 2, 0], np.int8)}),
    "uint8 from 0": ("uint8", "zero point 0", False, {"z": np.uint8(0)}),
    "uint8 from 128": ("uint8", "zero point 128", True, {"z": np.uint8(128)}),
    "uint8 from 3": ("zero-point", "uint8 with zero point 3", False, {"z": np.uint8(3)}),
    "16 bits": ("not-int8", "int16", False, {"z": np.int16(0)}),
    "scale 0": ("scale-value", "the scale: 0;", False, {"s": np.float32(0)}),
    "negative": ("scale-value", "1 of 4 scales: -1;", False, {"t": np.array([1, -1, 1, 1], np.float32)}),
    "NaN": ("scale-value", "1 of 4 scales: nan;", False, {"t": np.array([1, np.nan, 1, 1], np.float32)}),
    "infinite": ("scale-value", "the scale: inf;", False, {"s": np.float32(np.inf)}),
    "subnormal": ("subnormal-scale", "subnormal", False, {"s": np.float32(1e-40)}),
    "few scales": ("scale-shape", "3 scales for 4 channels along axis 0", False,
                   {"t": DEFAULTS["r"], "o": DEFAULTS["i"]}),
    "per channel": ("activation-per-channel", "3 scales on an activation", False,
                    {"s": DEFAULTS["r"], "z": DEFAULTS["i"]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", PARAMETERS)
def test_parameters(kind: str) -> None:
    rule, expected, fixable, weights = PARAMETERS[kind]
    opset = 21 if kind == "16 bits" else 17
    one = only(network(f"{IMAGE} {{ {CLEAN} }}", opset, **weights))
    assert (one.rule, one.severity, one.fixable) == (rule, SEVERITY[rule], fixable)
    assert expected in one.problem
    assert one.where == ("k" if set(weights) & set("wto") else "q")


STRUCTURES: dict[str, tuple[str, str, str]] = {
    "computed scale": ("scale-constant", f"{IMAGE} {{ m = ReduceMax<keepdims = 0>(x) q = QuantizeLinear(x, m, z)"
                       f" d = DequantizeLinear(q, m, z) {WEIGHT} y = Conv(d, k) }}", "'m'"),
    "axis of Conv": ("weight-axis", f"{SAME} {{ {PAIR} k = DequantizeLinear<axis = 1>(u, r, i) y = Conv(d, k) }}",
                     "axis 1, its output channels along axis 0"),
    "axis of Gemm": ("weight-axis", f"(float[N, 3] x) => (float[N, 3] y) {{ {PAIR}"
                     " k = DequantizeLinear<axis = 0>(m, r, i) y = Gemm(d, k) }", "along axis 0, its output channels"),
    "axis of transposed Gemm": ("weight-axis", f"(float[N, 3] x) => (float[N, 3] y) {{ {PAIR}"
                                " k = DequantizeLinear(m, r, i) y = Gemm<transB = 1>(d, k) }", "along axis 0"),
    "axis of MatMul": ("weight-axis", f"(float[N, 3] x) => (float[N, 3] y) {{ {PAIR}"
                       " k = DequantizeLinear<axis = -2>(m, r, i) y = MatMul(d, k) }", "along axis 1"),
    "axis of ConvTranspose": ("weight-axis", f"{SAME} {{ {PAIR} k = DequantizeLinear<axis = 0>(u, r, i)"
                              " y = ConvTranspose(d, k) }", "along axis 0, its output channels along axis 1"),
    "no dequantize": ("lone-quantize", f"{SAME} {{ q = QuantizeLinear(x, s, z) y = Cast<to = 1>(q) }}", "Cast"),
    "no quantize": ("lone-dequantize", f"{SAME} {{ q = Cast<to = 3>(x) y = DequantizeLinear(q, s, z) }}", "Cast"),
    "half, weights": ("half-quantized", f"{IMAGE} {{ {WEIGHT} y = Conv(x, k) }}", "none before its activation"),
    "half, activation": ("half-quantized", f"{IMAGE} {{ {PAIR} r0 = Relu(d) y = Conv(r0, v) }}",
                         "none before its weights"),
    "half, product": ("half-quantized", f"(float[3, 3] x) => (float[3, 3] y) {{ {PAIR} y = MatMul(d, x) }}",
                      "Q/DQ before its first input, none before its second"),
    "before Relu": ("blocked-fusion", f"{IMAGE} {{ c = Conv(x, v) q = QuantizeLinear(c, s, z)"
                    " d = DequantizeLinear(q, s, z) y = Relu(d) }", "Conv 'c' and Relu"),
    "before SiLU": ("blocked-fusion", f"{IMAGE} {{ c = Conv(x, v) q = QuantizeLinear(c, s, z)"
                    " d = DequantizeLinear(q, s, z) e = Sigmoid(d) y = Mul(d, e) }", "Sigmoid and Mul"),
    "behind normalization": ("blocked-fusion", f"{SAME} {{ c = Conv(x, p) n = BatchNormalization(c, g, g, g, g)"
                             " q = QuantizeLinear(n, s, z) d = DequantizeLinear(q, s, z) y = Clip(d) }", "Clip"),
    "residual": ("residual-pairs", f"{SAME} {{ {PAIR} c = Conv(x, p) q2 = QuantizeLinear(c, f, z)"
                 " e = DequantizeLinear(q2, f, z) y = Add(e, d) }", "does not fuse into 'c'"),
    "unequal Concat": ("concat-scales", "(float[1, 3] x, float[1, 3] a) => (float[1, 6] y)"
                       f" {{ {PAIR} q2 = QuantizeLinear(a, f, z) e = DequantizeLinear(q2, f, z)"
                       " c = Concat<axis = 1>(d, e) q3 = QuantizeLinear(c, s, z) y = DequantizeLinear(q3, s, z) }",
                       "2 scales (0.05 … 0.07)"),
    "half Concat": ("concat-scales", "(float[1, 3] x, float[1, 3] a) => (float[1, 6] y)"
                    f" {{ {PAIR} c = Concat<axis = 1>(d, a) q3 = QuantizeLinear(c, f, z)"
                    " y = DequantizeLinear(q3, f, z) }", "1 of 2 inputs"),
    "around MaxPool": ("commuting-scales", f"{SAME} {{ {PAIR} m = MaxPool<kernel_shape = [1, 1]>(d)"
                       " q2 = QuantizeLinear(m, f, z) y = DequantizeLinear(q2, f, z) }", "0.05 before it and 0.07"),
    "two scales": ("tensor-scales", f"{SAME} {{ {PAIR} q2 = QuantizeLinear(x, f, z) e = DequantizeLinear(q2, f, z)"
                   " y = Add(d, e) }", "2 scales"),
    "integer operator": ("integer-operator", f"{SAME} {{ {PAIR} a, b, c = DynamicQuantizeLinear(x)"
                         " y = Add(d, x) }", "DynamicQuantizeLinear"),
    "integer output": ("integer-boundary", "(float[N, 3] x) => (int8[N, 3] q) { q = QuantizeLinear(x, s, z) }", "'q'"),
    "integer input": ("integer-boundary", "(int8[N, 3] q) => (float[N, 3] y) { y = DequantizeLinear(q, s, z) }", "'q'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STRUCTURES)
def test_structures(kind: str) -> None:
    rule, text, expected = STRUCTURES[kind]
    one = only(network(text, v=FLOAT, p=FLOAT[:3, :, :1, :1], m=SQUARE[:, :, 0, 0]))
    assert (one.rule, one.severity, one.fixable) == (rule, SEVERITY[rule], False)
    assert expected in one.problem


def test_every_rule_has_its_network() -> None:
    seen = {rule for rule, *_ in (*PARAMETERS.values(), *STRUCTURES.values(), *FIXES.values())}
    elsewhere = {"opset", "scale-type", "weights-per-tensor", "contrib-pair", "unequal-types", "fp8-kernel"}
    assert seen | elsewhere == set(SEVERITY)


@pytest.mark.parametrize(
    ("kind", "opset", "fixable"),
    [("int8", 17, True), ("uint8", 10, True), ("int16", 21, False), ("uint16", 21, False), ("int8", 9, False)],
)
def test_pairs_of_onnxruntime_become_those_of_onnx(kind: str, opset: int, fixable: bool) -> None:
    """Renamed, 8-bit pairs compute what onnxruntime's own compute; TensorRT has no others."""
    text = f"{SAME} {{ q = com.microsoft.QuantizeLinear(x, s, z) y = com.microsoft.DequantizeLinear(q, s, z) }}"
    zero = np.asarray(128 if kind == "uint8" else 0, kind)
    model = network(text, opset, domain="com.microsoft", z=zero)
    findings = lint_model(model)
    assert [(f.rule, f.severity, f.fixable) for f in findings] == [("contrib-pair", "error", fixable)] * 2
    assert all("UseQDQContribOps=False" in f.remedy and kind in f.problem for f in findings)
    proto, fixed = fix_model(model)
    if not fixable:
        assert (proto, fixed) == (model.proto, ())
        return
    assert lint_model(replace(model, proto=proto)) == ()
    image = (np.random.default_rng(0).normal(size=(2, 3, 8, 8)) * 4).astype(np.float32)
    before, after = (
        InferenceSession(each.SerializeToString()).run(None, {"x": image})[0] for each in (model.proto, proto)
    )
    np.testing.assert_array_equal(before, after)


def test_operators_of_onnxruntime_are_no_pair_before_a_layer() -> None:
    pair = "q = com.microsoft.QuantizeLinear(x, s, z) d = com.microsoft.DequantizeLinear(q, s, z)"
    plain = network(f"{IMAGE} {{ {pair} y = Conv(d, v) }}", domain="com.microsoft", v=FLOAT)
    mixed = network(f"{IMAGE} {{ {pair} {WEIGHT} y = Conv(d, k) }}", domain="com.microsoft")
    assert found(plain) == ["contrib-pair"] * 2
    assert found(mixed) == ["contrib-pair", "contrib-pair", "half-quantized"]


MOVED = {
    "Concat": "m = Concat<axis = 1>(d)",
    "DepthToSpace": "m = DepthToSpace<blocksize = 1>(d)",
    "Dropout": "m = Dropout(d)",
    "Expand": "m = Expand(d, ones)",
    "Flatten": "f = Flatten<axis = 2>(d) m = Reshape(f, back)",
    "Gather": "m = Gather<axis = 1>(d, order)",
    "GatherElements": "m = GatherElements<axis = 1>(d, places)",
    "GatherND": "m = GatherND<batch_dims = 1>(d, pairs)",
    "Identity": "m = Identity(d)",
    "MaxPool": "m = MaxPool<kernel_shape = [1, 1]>(d)",
    "Relu": "m = Relu(d)",
    "Reshape": "m = Reshape(d, back)",
    "ReverseSequence": "m = ReverseSequence<batch_axis = 0, time_axis = 1>(d, long)",
    "Slice": "m = Slice(d, from, to, axes)",
    "SpaceToDepth": "m = SpaceToDepth<blocksize = 1>(d)",
    "Split": "m, rest = Split<axis = 2>(d, halves)",
    "Squeeze": "f = Unsqueeze(d, axes) m = Squeeze(f, axes)",
    "Tile": "m = Tile(d, once)",
    "Transpose": "m = Transpose<perm = [0, 1, 3, 2]>(d)",
    "Unsqueeze": "f = Unsqueeze(d, axes) m = Squeeze(f, axes)",
}
MOVING: dict[str, Any] = {
    "ones": np.array([1, 1, 1, 1]),
    "back": np.array([2, 3, 8, 8]),
    "order": np.array([2, 0, 1]),
    "places": np.zeros((2, 3, 8, 8), np.int64),
    "pairs": np.zeros((2, 3, 1), np.int64),
    "long": np.array([3, 3]),
    "from": np.array([0]),
    "to": np.array([3]),
    "axes": np.array([1]),
    "halves": np.array([4, 4]),
    "once": np.array([1, 1, 1, 1]),
}


def test_every_operator_that_moves_values_has_its_network() -> None:
    assert MOVED.keys() == DEQUANTIZED_BEFORE


@pytest.mark.parametrize("operator", MOVED)
def test_rules_see_through_what_moves_values(operator: str) -> None:
    """INT8 goes on behind it: the layer is quantized, one scale before and behind is one scale."""
    image = "(float[2, 3, 8, 8] x) => (float[A, B, C, D] y)"
    network_text = f"{image} {{ {PAIR} {MOVED[operator]} {WEIGHT} y = Conv(m, k) }}"
    assert found(network(network_text, **MOVING)) == []
    joined = "n = Relu(d) c = Concat<axis = 2>(m, n) q3 = QuantizeLinear(c, s, z) y = DequantizeLinear(q3, s, z)"
    assert found(network(f"{image} {{ {PAIR} {MOVED[operator]} {joined} }}", **MOVING)) == []


def test_a_concat_needs_a_pair_on_all_inputs_to_be_in_int8() -> None:
    text = f"{{ {PAIR} m = Concat<axis = 2>(d, x) {WEIGHT} y = Conv(m, k) }}"
    assert found(network(f"(float[2, 3, 8, 8] x) => (float[A, B, C, D] y) {text}")) == ["half-quantized"]


FORMS: dict[str, tuple[str, tuple[int, ...], int, int]] = {
    "Transpose": ("m = Transpose<perm = [1, 0]>(k)", (4, 3), 0, 1),
    "two transposes": ("l = Transpose(k) m = Transpose(l) ", (3, 4), 1, 0),
    "Reshape": ("m = Reshape(k, matrix)", (1, 3, 4), 2, 1),
    "Squeeze": ("m = Squeeze(k, none)", (1, 3, 4), 2, 1),
    "Unsqueeze": ("m = Unsqueeze(k, none)", (3, 4), 1, 0),
    "Identity": ("m = Identity(k)", (3, 4), 1, 0),
    "Slice": ("m = Slice(k, from, to, none)", (4, 4), 1, 0),
    "Gather": ("l = Transpose(k) m = Gather<axis = 1>(l, order)", (4, 3), 0, 1),
}
"""Name → steps from the weight k to m [3, N], the shape of k, the axis of its output channels, another axis."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("right", [True, False])
def test_channels_are_found_behind_what_moves_a_weight(form: str, right: bool) -> None:
    steps, shape, outputs, inputs = FORMS[form]
    axis = outputs if right else inputs
    weights: dict[str, Any] = {
        "w": np.random.default_rng(0).integers(-127, 128, shape, dtype=np.int8),
        "t": np.linspace(0.01, 0.02, shape[axis], dtype=np.float32),
        "o": np.zeros(shape[axis], np.int8),
        **MOVING,
        "matrix": np.array([3, 4]),
        "none": np.array([0]),
    }
    weight = f"k = DequantizeLinear<axis = {axis}>(w, t, o) {steps}"
    model = network(f"(float[N, 3] x) => (float y) {{ {PAIR} {weight} y = MatMul(d, m) }}", **weights)
    assert found(model) == ([] if right else ["weight-axis"])


def test_channels_that_are_no_axis_of_the_weight() -> None:
    weights = {"w": np.arange(12, dtype=np.int8), "t": np.ones(12, np.float32), "o": np.zeros(12, np.int8)}
    weight = "k = DequantizeLinear<axis = 0>(w, t, o) m = Reshape(k, matrix)"
    text = f"(float[N, 3] x) => (float y) {{ {PAIR} {weight} y = MatMul(d, m) }}"
    one = only(network(text, **weights, matrix=np.array([3, 4])))
    assert (one.rule, "along none of its axes before Reshape" in one.problem) == ("weight-axis", True)


def test_coarse_weights_are_found_behind_what_moves_them() -> None:
    weights = np.full((4, 3), 127, np.int8)
    weights[1] = 7
    text = f"(float[N, 3] x) => (float y) {{ {PAIR} k = DequantizeLinear(w, s, z) m = Transpose(k) y = MatMul(d, m) }}"
    assert "1 of 4 output channels" in only(network(text, w=weights)).problem
    stacked = text.replace("m = Transpose(k)", "m = Transpose<perm = [0, 2, 1]>(k)").replace("[N, 3]", "[2, N, 3]")
    assert found(network(stacked, w=np.stack([weights] * 2))) == [], "a stack of matrices has one scale"


def test_a_weight_that_is_computed_is_found_but_not_fixed() -> None:
    """Sums differ in the last bit from one evaluator to another."""
    text = f"{IMAGE} {{ {PAIR} n = ReduceL2(v) u = Div(v, n) e = QuantizeLinear<axis = 0>(u, t, o)"
    one = only(network(f"{text} k = DequantizeLinear<axis = 0>(e, t, o) y = Conv(d, k) }}", v=FLOAT))
    assert (one.rule, one.fixable) == ("weight-behind-node", False)


def test_old_operator_sets() -> None:
    assert found(network(f"{IMAGE} {{ {CLEAN} }}", 12)) == ["opset"]
    half = {"s": np.float16(0.05), "t": DEFAULTS["t"].astype(np.float16)}
    assert found(network(f"{IMAGE} {{ {CLEAN} }}", 17, **half)) == ["opset", "opset"]
    assert found(network(f"{IMAGE} {{ {CLEAN} }}", 19, **half)) == []


@pytest.mark.parametrize(("opset", "kind", "least"), [(12, np.float32, 13), (17, np.float16, 19)])
def test_raising_the_opset_helps(opset: int, kind: type, least: int) -> None:
    weights = {name: np.asarray(DEFAULTS[name], kind) for name in "st"}
    image = IMAGE if kind is np.float32 else IMAGE.replace("float[", "float16[")
    old = network(f"{image} {{ {CLEAN} }}", opset, **weights)
    assert {(f.rule, f"raise the opset to {least}" in f.remedy) for f in lint_model(old)} == {("opset", True)}
    raised = version_converter.convert_version(old.proto, least)
    assert lint_model(replace(old, proto=raised)) == ()


def test_a_scale_of_another_type() -> None:
    assert only(network(f"{IMAGE} {{ {CLEAN} }}", s=np.float64(0.1))).rule == "scale-type"


def test_coarse_weights_are_counted() -> None:
    weights = np.full((4, 3, 3, 3), 127, np.int8)
    weights[1], weights[2], weights[3] = 7, 8, 0
    model = network(f"{IMAGE} {{ {PAIR} k = DequantizeLinear(w, s, z) y = Conv(d, k) }}", w=weights)
    one = only(model)
    assert one.rule == "weights-per-tensor"
    assert "1 of 4 output channels have fewer than 8" in one.problem
    scaled = weights.astype(np.float32) * np.float32(0.05)
    text = f"{IMAGE} {{ {PAIR} k = QuantizeLinear(v, s, z) l = DequantizeLinear(k, s, z) y = Conv(d, l) }}"
    assert only(network(text, v=scaled)).problem == one.problem


def test_what_something_else_reads_as_well_cannot_fuse() -> None:
    blocked = "c = Conv(x, v) q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z) e = Relu(d)"
    assert lint_model(network(f"{IMAGE} {{ {blocked} y = Mul(e, c) }}", v=FLOAT)) == ()
    assert lint_model(network(f"{IMAGE} {{ {blocked} y = Mul(e, d) }}", v=FLOAT)) == ()


@pytest.mark.parametrize(
    ("shape", "group", "blocked"),
    [((8, 1, 3, 3), 8, False), ((8, 3, 3, 3), 1, False), ((8, 4, 3, 3), 2, True), ((8, 8, 3, 3), 1, True)],
)
def test_a_hardswish_fuses_behind_kernels_that_write_float(shape: tuple[int, ...], group: int, blocked: bool) -> None:
    """Behind others `quantize` places such a pair itself, for TensorRT 8."""
    head = f"(float[1, {shape[1] * group}, 8, 8] x) => (float[1, 8, 6, 6] y)"
    pairs = f"{PAIR} k = DequantizeLinear(w8, s, z) c = Conv<group = {group}>(d, k) q2 = QuantizeLinear(c, f, z)"
    text = f"{head} {{ {pairs} e = DequantizeLinear(q2, f, z) y = HardSwish(e) }}"
    assert ("blocked-fusion" in found(network(text, w8=np.full(shape, 5, np.int8)))) == blocked


def test_a_concat_of_one_scale_in_front_and_behind_needs_no_pair_on_each_input() -> None:
    """So `quantize` writes it for TensorRT 8, where it is faster."""
    text = STRUCTURES["half Concat"][1].replace("(c, f, z)", "(c, s, z)").replace("(q3, f, z)", "(q3, s, z)")
    assert lint_model(network(text)) == ()


def test_a_concat_that_stays_float_may_have_any_scales() -> None:
    text = STRUCTURES["unequal Concat"][1].replace("q3 = QuantizeLinear(c, s, z) y = DequantizeLinear(q3, s, z)",
                                                   "y = Softmax(c)")  # fmt: skip
    assert lint_model(network(text)) == ()


def test_findings_are_in_graph_order() -> None:
    model = network(f"{IMAGE} {{ {CLEAN} }}", s=np.float32(0), t=np.array([1, 2, 0, 1], np.float32), z=np.int8(3))
    assert [(f.where, f.rule) for f in lint_model(model)] == [
        ("q", "scale-value"),
        ("q", "zero-point"),
        ("k", "scale-value"),
    ]


INNER = (
    "(float[N, 4] x, bool c) => (float[N, 4] y) { [choice] y = If(c) <"
    "then_branch = yes () => (float[N, 4] t) { q = QuantizeLinear(x, s, u) [odd] t = DequantizeLinear(q, s, u) }, "
    "else_branch = no () => (float[N, 4] e) { e = Neg(x) }> }"
)


def test_subgraphs_are_looked_into() -> None:
    findings = [f for f in lint_model(network(INNER, s=np.float32(0.1), u=np.uint8(128))) if f.where == "odd"]
    assert findings
    assert all("inside If 'choice'" in finding.problem and not finding.fixable for finding in findings)


def test_a_node_goes_by_its_name() -> None:
    model = network(f"{IMAGE} {{ {CLEAN} }}", z=np.int8(3))
    model.proto.graph.node[0].name = "/stem/QuantizeLinear"
    assert only(model).where == "/stem/QuantizeLinear"


def test_constant_nodes_are_constants() -> None:
    text = f"{IMAGE} {{ e = Constant<value_float = 0.05>() q = QuantizeLinear(x, e, z) d = DequantizeLinear(q, e, z)"
    assert lint_model(network(f"{text} {WEIGHT} y = Conv(d, k) }}")) == ()
    vector = "e = Constant<value_floats = [0.1, 0.2, -0.1, 0.3]>() k = DequantizeLinear<axis = 0>(w, e, o)"
    assert found(network(f"{IMAGE} {{ {PAIR} {vector} y = Conv(d, k) }}")) == ["scale-value"]


# Repairs ----------------------------------------------------------------------------------------------------------

ZEROED = INT8.copy()
ZEROED[1] = 0
FIXES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bias per channel": ("int32-bias", f"{IMAGE} {{ {PAIR} {WEIGHT} b = DequantizeLinear<axis = 0>(e, t, j)"
                         " y = Conv(d, k, b) }",
                         {"e": np.array([2**31 - 1, -7, 0, 123456789], np.int32), "j": np.zeros(4, np.int32)}),
    "bias per tensor": ("int32-bias", f"{IMAGE} {{ {PAIR} {WEIGHT} b = DequantizeLinear(e, s) y = Conv(d, k, b) }}",
                        {"e": np.array([9, -7, 0, 2**24 + 1], np.int32)}),
    "uint8 activation": ("uint8", f"{IMAGE} {{ {CLEAN} }}", {"z": np.uint8(128)}),
    "uint8 weights": ("uint8", f"{IMAGE} {{ {CLEAN} }}", {"o": np.full(4, 128, np.uint8),
                      "w": (INT8.astype(int) + 128).astype(np.uint8)}),
    "no zero point": ("zero-point-type", f"{IMAGE} {{ {PAIR} k = DequantizeLinear<axis = 0>(w, t) y = Conv(d, k) }}",
                      {}),
    "zero point of another type": ("zero-point-type", f"{IMAGE} {{ {CLEAN} }}", {"o": np.zeros(4, np.uint8)}),
    "one zero point": ("zero-point-type", f"{IMAGE} {{ {CLEAN} }}", {"o": np.int8(0)}),
    "zero channel": ("scale-value", f"{IMAGE} {{ {CLEAN} }}", {"w": ZEROED, "t": np.array([1, 0, 2, 3], np.float32)}),
    "equal pairs": ("duplicate-pair", f"{SAME} {{ {PAIR} q2 = QuantizeLinear(x, s, z)"
                    " e = DequantizeLinear(q2, s, z) y = Add(d, e) }", {}),
    "equal pairs, late": ("duplicate-pair", f"{SAME} {{ q = QuantizeLinear(x, s, z) q2 = QuantizeLinear(x, s2, z2)"
                          " e = DequantizeLinear(q2, s2, z2) a = Relu(e) d = DequantizeLinear(q, s, z)"
                          " y = Sub(a, d) }", {"s2": np.array([0.05], np.float32), "z2": np.zeros(1, np.int8)}),
    "weight behind Identity": ("weight-behind-node", f"{IMAGE} {{ {PAIR} h = Identity(w)"
                               " k = DequantizeLinear<axis = 0>(h, t, o) y = Conv(d, k) }", {}),
    "float weight behind Transpose": ("weight-behind-node", f"{IMAGE} {{ {PAIR} h = Transpose<perm = [1, 0, 2, 3]>(e)"
                                      " j = QuantizeLinear<axis = 0>(h, t, o) k = DequantizeLinear<axis = 0>(j, t, o)"
                                      " y = Conv(d, k) }", {"e": FLOAT.transpose(1, 0, 2, 3)}),
    "weight behind a product": ("weight-behind-node", f"{IMAGE} {{ {PAIR} h = Mul(e, j)"
                                " l = QuantizeLinear<axis = 0>(h, t, o) k = DequantizeLinear<axis = 0>(l, t, o)"
                                " y = Conv(d, k) }", {"e": FLOAT, "j": np.float32(0.3)}),
    "bias behind Identity": ("weight-behind-node", f"{IMAGE} {{ {PAIR} {WEIGHT} h = Identity(e) y = Conv(d, k, h) }}",
                             {"e": np.ones(4, np.float32)}),
    "halves of a weight": ("weight-behind-node", f"{IMAGE} {{ {PAIR} h, j = Split<axis = 0>(e)"
                           " k = DequantizeLinear<axis = 0>(h, t, o) l = DequantizeLinear<axis = 0>(j, t, o)"
                           " m = Conv(d, k) n = Conv(d, l) y = Add(m, n) }", {"e": np.concatenate([INT8, INT8 // 2])}),
    "Clip apart": ("clip-apart", f"{SAME} {{ a = Mul(x, h) c = Clip(a, l, h) {BEHIND} }}",
                   {"l": np.float32(0), "h": np.float32(3)}),
    "Clip apart, two sides": ("clip-apart", f"{SAME} {{ a = Mul(x, h) c = Clip(a, l, h) {BEHIND} }}",
                              {"l": np.float32(-1), "h": np.float32(3)}),
    "Clip apart, read in float too": ("clip-apart", "(float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y,"
                                      " float[N, 3, 8, 8] c) { c = Clip(x, l, h)"
                                      " m = Transpose<perm = [0, 1, 3, 2]>(c)"
                                      " q = QuantizeLinear(m, s, z) y = DequantizeLinear(q, s, z) }",
                                      {"l": np.float32(-1), "h": np.float32(3)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FIXES)
def test_fixes_change_no_number(kind: str) -> None:
    rule, text, weights = FIXES[kind]
    model = network(text, **weights)
    assert {(f.rule, f.fixable) for f in lint_model(model)} == {(rule, True)}
    proto = check_fixed(model, network(text) if kind == "zero point of another type" else None)
    assert lint_model(replace(model, proto=proto)) == ()
    read = {name for node in proto.graph.node for name in node.input}
    assert {t.name for t in proto.graph.initializer} <= read, "nothing is left over"


def test_a_bias_becomes_what_its_dequantize_made() -> None:
    _, text, weights = FIXES["bias per channel"]
    proto = check_fixed(network(text, **weights))
    (bias,) = (numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "b")
    np.testing.assert_array_equal(bias, weights["e"].astype(np.float32) * DEFAULTS["t"])
    assert bias.dtype == np.float32


def test_the_scale_of_a_zero_channel_is_the_least() -> None:
    _, text, weights = FIXES["zero channel"]
    proto = check_fixed(network(text, **weights))
    (step,) = (node for node in proto.graph.node if node.output[0] == "k")
    (scale,) = (numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == step.input[1])
    np.testing.assert_array_equal(scale, np.array([1, TINY, 2, 3], np.float32))


NOT_EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "a zero scale of numbers": (CLEAN, {"t": np.array([1, 0, 2, 3], np.float32)}),
    "a zero scale of shifted zeros": (CLEAN, {"t": np.array([1, 0, 2, 3], np.float32), "w": ZEROED,
                                              "o": np.full(4, 5, np.int8)}),
    "a bias with a zero point": (f"{PAIR} {WEIGHT} b = DequantizeLinear<axis = 0>(e, t, j) y = Conv(d, k, b)",
                                 {"e": np.arange(4, dtype=np.int32), "j": np.ones(4, np.int32)}),
    "a bias with an infinite scale": (f"{PAIR} {WEIGHT} b = DequantizeLinear(e, h) y = Conv(d, k, b)",
                                      {"e": np.arange(4, dtype=np.int32), "h": np.float32(np.inf)}),
    "uint8 that something else reads": (f"{CLEAN} c = Cast<to = 1>(q)", {"z": np.uint8(128)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_EXACT)
def test_what_is_not_exact_is_not_offered(kind: str) -> None:
    nodes, weights = NOT_EXACT[kind]
    model = network(f"{IMAGE} {{ {nodes} }}", **weights)
    assert lint_model(model)
    assert not any(f.fixable for f in lint_model(model))
    assert fix_model(model) == (model.proto, ())


@pytest.mark.parametrize("kind", ["equal pairs", "equal pairs, late"])
def test_equal_pairs_become_one(kind: str) -> None:
    _, text, weights = FIXES[kind]
    proto = check_fixed(network(text, **weights))
    steps = [node.op_type for node in proto.graph.node if node.op_type.endswith("Linear")]
    assert steps == ["QuantizeLinear", "DequantizeLinear"]


def test_pairs_of_one_scale_are_equal_whatever_their_axis() -> None:
    _, text, _ = FIXES["equal pairs"]
    model = network(text.replace("q2 = QuantizeLinear", "q2 = QuantizeLinear<axis = 2>"))
    assert only(model).rule == "duplicate-pair"
    check_fixed(model)


def test_weights_may_be_quantized_twice() -> None:
    """TensorRT does that while it builds."""
    text = (
        f"{SAME} {{ {PAIR} k = QuantizeLinear<axis = 0>(p, r, i) l = DequantizeLinear<axis = 0>(k, r, i)"
        " k2 = QuantizeLinear<axis = 0>(p, r, i) l2 = DequantizeLinear<axis = 0>(k2, r, i)"
        " a = Conv(d, l) b = Conv(d, l2) y = Mul(a, b) }"
    )
    assert lint_model(network(text, p=FLOAT[:3, :, :1, :1])) == ()


def test_what_an_inner_graph_reads_keeps_its_type() -> None:
    branches = ", ".join(
        f"{branch}_branch = {branch} () => (uint8[N, 3, 8, 8] {name}) {{ {name} = Identity(q) }}"
        for branch, name in (("then", "m"), ("else", "n"))
    )
    text = f"(float[N, 3, 8, 8] x, bool c) => (float[N, 3, 8, 8] d) {{ {PAIR} e = If(c)<{branches}> }}"
    assert not only(network(text, z=np.uint8(128))).fixable


def test_types_that_are_written_down_wrongly_do_not_mislead() -> None:
    model = network(f"{IMAGE} {{ {CLEAN} }}")
    model.proto.graph.value_info.append(helper.make_tensor_value_info("q", onnx.TensorProto.UINT8, ["N", 3, 8, 8]))
    assert lint_model(model) == ()


def test_parameters_that_follow_from_constants_are_constants() -> None:
    text = f"{IMAGE} {{ h = Cast<to = 3>(f) e = Exp(f) q = QuantizeLinear(x, e, h) d = DequantizeLinear(q, e, h)"
    assert lint_model(network(f"{text} {WEIGHT} y = Conv(d, k) }}")) == ()


def test_outputs_of_the_network_keep_their_type() -> None:
    """A uint8 output would become int8, and a DequantizeLinear's output has to be made by a node."""
    text = "(float[N, 3] x) => (uint8[N, 3] q, float[3] b) { q = QuantizeLinear(x, s, z) b = DequantizeLinear(e, s) }"
    model = network(text, z=np.uint8(128), e=np.arange(3, dtype=np.int32))
    assert not any(f.fixable for f in lint_model(model))


def test_types_that_are_written_down_follow() -> None:
    model = network(f"{IMAGE} {{ {CLEAN} }}", z=np.uint8(128))
    model.proto.graph.value_info.append(helper.make_tensor_value_info("q", onnx.TensorProto.UINT8, ["N", 3, 8, 8]))
    check_fixed(model)


# Laws -------------------------------------------------------------------------------------------------------------


@st.composite
def networks(draw: st.DrawFn) -> Model:
    """A chain of quantized operators in the forms that tools write, with what can be fixed in many of them."""
    nodes: list[str] = []
    weights: dict[str, Any] = {}
    tensors = ["x"]

    def pair(source: str, tag: str) -> str:
        kind = draw(st.sampled_from(["int8", "uint8", "shared", "vector"]))
        zero = {"uint8": np.uint8(128), "vector": np.zeros(1, np.int8)}.get(kind, np.int8(0))
        scale = draw(st.sampled_from([0.03, 0.5]))
        weights[f"zp{tag}"] = zero
        weights[f"sc{tag}"] = np.asarray([scale] if kind == "vector" else scale, np.float32)
        q, d = f"q{tag}", f"d{tag}"
        nodes.append(f"{q} = QuantizeLinear({source}, sc{tag}, zp{tag})")
        nodes.append(f"{d} = DequantizeLinear({q}, sc{tag}, zp{tag})")
        return d

    def weight(tag: str) -> str:
        values = draw(st.sampled_from([SQUARE, np.roll(SQUARE, 1)])).copy()
        scale = np.array([0.01, 0.02, 0.03], np.float32)
        if draw(st.booleans()):
            values[1], scale[1] = 0, 0
        unsigned = draw(st.booleans()) and scale.all()
        weights[f"w{tag}"] = (values.astype(int) + 128).astype(np.uint8) if unsigned else values
        weights[f"ws{tag}"], weights[f"wz{tag}"] = scale, np.full(3, 128, np.uint8) if unsigned else DEFAULTS["i"]
        zero = f", wz{tag}" if unsigned or draw(st.booleans()) else ""
        nodes.append(f"k{tag} = DequantizeLinear<axis = 0>(w{tag}, ws{tag}{zero})")
        return f"k{tag}"

    for index in range(draw(st.integers(1, 5))):
        old = draw(st.sampled_from(tensors))
        left, tag = pair(old, f"{index}a"), f"{index}"
        kind = draw(st.sampled_from(["conv", "bias", "add", "pool"]))
        if kind == "add":
            nodes.append(f"t{tag} = Add({left}, {pair(draw(st.sampled_from(tensors)), f'{index}b')})")
        elif kind == "pool":
            nodes.append(f"t{tag} = MaxPool<kernel_shape = [1, 1]>({left})")
        else:
            bias = ""
            if kind == "bias":
                weights[f"b{tag}"] = np.array([5, -123456789, 2**31 - 1], np.int32)
                nodes.append(f"fb{tag} = DequantizeLinear<axis = 0>(b{tag}, bs{tag})")
                weights[f"bs{tag}"], bias = np.array([1e-3, 1e-8, 1e-9], np.float32), f", fb{tag}"
            nodes.append(f"t{tag} = Conv({left}, {weight(tag)}{bias})")
        tensors.append(f"t{tag}")
    text = f"(float[2, 3, 4, 4] x) => (float[2, 3, 4, 4] y) {{ {' '.join(nodes)} y = Identity({tensors[-1]}) }}"
    return network(text, **weights)


@given(networks())
def test_fixing_is_exact_and_complete(model: Model) -> None:
    proto = check_fixed(model)
    assert not {f.rule for f in lint_model(replace(model, proto=proto)) if f.severity == "error"}
    assert fix_model(replace(model, proto=proto)) == (proto, ())


# Real networks ----------------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "vit"])
def test_our_own_pairs_have_no_findings(shared: Path, name: str) -> None:
    model = load_model(shared / "models" / f"{name}.onnx")
    table = read_table(shared / "golden" / "networks" / f"{name}_entropy2.cache")
    made = insert_qdq(model, table.scales)
    assert lint_model(replace(model, proto=made.proto)) == ()


def test_names_of_split_clips_are_fresh_and_long_chains_are_read() -> None:
    text = f"{SAME} {{ [act_Relu] n = Neg(x) [act] c = Clip(n, l, h) {BEHIND} }}"
    proto, _ = fix_model(network(text, l=np.float32(0), h=np.float32(3)))
    names = [node.name for node in proto.graph.node if node.name]
    assert len(names) == len(set(names)) == 3
    chain = " ".join(f"a{k + 1} = Add(a{k}, a{k})" for k in range(1500))
    long = network(f"{SAME} {{ a0 = Neg(x) {chain} c = Clip(a1500, l, h) {BEHIND} }}", l=np.float32(0), h=np.float32(3))
    assert found(long) == ["clip-apart"]


@pytest.mark.parametrize("text", [
    "(int32[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) { c = Clip(x, i0, i6) q = QuantizeLinear(c, s, z)"
    " y = DequantizeLinear(q, s, z) }",
    f"(float[N, 3, 8, 8] x, float l, float h) => (float[N, 3, 8, 8] y) {{ c = Clip(x, l, h) {BEHIND} }}",
    f"{IMAGE} {{ {PAIR} c = Clip(v, l, h) k = QuantizeLinear(c, s, z) m = DequantizeLinear(k, s, z) y = Conv(d, m) }}",
])  # fmt: skip
def test_clips_that_are_left_alone(text: str) -> None:
    weights = {"l": np.float32(0), "h": np.float32(3), "i0": np.int32(0), "i6": np.int32(6), "v": FLOAT}
    assert "clip-apart" not in found(network(text, **weights))

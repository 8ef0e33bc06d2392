"""Networks in FP16: types, Casts, what stays float32, Q/DQ pairs; what they compute."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from quantkit.graph import Model, load_model
from quantkit.graph.shape_inference import element_types, infer_types
from quantkit.numerics import scale_of
from quantkit.preprocess import PRESETS
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.layer_counts import count_int8_layers
from quantkit.rewrites.fp16 import Fp16Network, convert_to_fp16
from quantkit.rewrites.fp32_exceptions import fp16_scale
from quantkit.table import read_table

RANDOM = np.random.default_rng(13)
SAME = "(float[2, 4, 8, 8] x) => (float[2, 4, 8, 8] y)"
POINT = RANDOM.normal(size=(4, 4, 1, 1)).astype(np.float32) / 2
ROW = RANDOM.normal(size=(8, 8)).astype(np.float32) / 3
ONES = np.ones(4, np.float32)


def network(text: str, opset: int = 19, **weights: Any) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: 9, opset_import: ["": {opset}, "my": 1]> net {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    return proto


def loaded(proto: onnx.ModelProto) -> Model:
    with TemporaryDirectory() as folder:
        onnx.save(proto, f"{folder}/net.onnx")
        return load_model(f"{folder}/net.onnx")


def halved(proto: onnx.ModelProto, *, keep_io: bool = True, ranges: Mapping[str, float] | None = None) -> Fp16Network:
    """Put into FP16, and look whether the result is a model, whole and in order."""
    model = loaded(proto)
    before = model.proto.SerializeToString(deterministic=True)
    made = convert_to_fp16(model, keep_io=keep_io, ranges=ranges)
    assert model.proto.SerializeToString(deterministic=True) == before
    assert (
        convert_to_fp16(model, keep_io=keep_io, ranges=ranges).proto.SerializeToString()
        == made.proto.SerializeToString()
    )
    onnx.checker.check_model(made.proto, full_check=True)
    assert [o.name for o in made.proto.graph.output] == [o.name for o in proto.graph.output]
    assert [i.name for i in made.proto.graph.input] == [i.name for i in model.proto.graph.input]
    return made


def computed(proto: onnx.ModelProto, **feeds: NDArray[Any]) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def types(proto: onnx.ModelProto) -> dict[str, str]:
    found = element_types(infer_types(proto).graph)
    kinds = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.INT8: "int8"}
    return found | {t.name: kinds.get(t.data_type, "other") for t in proto.graph.initializer}


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


# Types and Casts --------------------------------------------------------------------------------------------------


def test_inputs_and_outputs_stay_float32_behind_casts() -> None:
    made = halved(network(f"{SAME} {{ c = Conv(x, w, b) d = Relu(c) e = Add(d, x) y = Relu(e) }}", w=POINT, b=ONES))
    assert kinds(made.proto) == ["Cast", "Conv", "Relu", "Add", "Relu", "Cast"], "one Cast for both readers of x"
    found = types(made.proto)
    assert {name: found[name] for name in "xywbcde"} == dict.fromkeys("xy", "float32") | dict.fromkeys(
        "wbcde", "float16"
    )
    assert (made.kept, made.saturated) == ({}, {})


def test_inputs_and_outputs_can_be_float16() -> None:
    made = halved(network(f"{SAME} {{ c = Conv(x, w) y = Relu(c) }}", w=POINT), keep_io=False)
    assert kinds(made.proto) == ["Conv", "Relu"]
    assert set(types(made.proto).values()) == {"float16"}


def test_weights_of_both_kinds_of_readers_are_there_twice() -> None:
    text = "(float[2, 4] x) => (float[2, 4] y, float[4] z) { a = Add(x, w) p = Pow(x, w) b = Div(p, a)"
    text += " y = Add(b, w) z = Abs(w) }"
    for keep_io in (True, False):
        made = halved(network(text, w=2 * ONES), keep_io=keep_io)
        assert {t.name: t.data_type for t in made.proto.graph.initializer} == {"w": 1, "w_float16": 10}
        assert list(made.kept) == ["p", "b"]


@pytest.mark.parametrize("keep_io", [True, False])
def test_a_weight_and_an_input_that_are_outputs(keep_io: bool) -> None:
    text = "(float[4] x) => (float[4] y, float[4] w, float[4] k, float[4] p) {"
    text += "k = Constant<value = float[4] {1.0, 2.0, 3.0, 4.0}>() y = Add(x, w) p = Exp(k) }"
    proto = network(text, w=ONES)
    made = halved(proto, keep_io=keep_io).proto
    x = RANDOM.normal(size=4).astype(np.float32)
    dtype = np.float32 if keep_io else np.float16
    for ours, theirs in zip(computed(made, x=x.astype(dtype)), computed(proto, x=x), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)


def test_what_is_not_float32_is_not_touched() -> None:
    text = ("(float[2, 4] x, int64[2] i, float16[4] h, double[4] d) => (float[2, 4] y, int64[2] j, float16[4] k,"
            " double[4] e)"
            "{ y = Gather(x, i) j = Add(i, i) k = Add(h, h) e = Add(d, d) }")  # fmt: skip
    proto = network(text)
    made = halved(proto).proto
    assert made.graph.output == proto.graph.output
    assert [n for n in made.graph.node if n.op_type == "Add"] == list(proto.graph.node[1:])


def test_old_operator_sets_are_raised() -> None:
    made = halved(network(f"{SAME} {{ c = Conv(x, w) y = Clip<min = 0.0, max = 6.0>(c) }}", 9, w=POINT))
    assert made.proto.opset_import[0].version == 19
    assert kinds(made.proto).count("Cast") == 2


def test_casts_of_the_network_itself() -> None:
    made = halved(network("(float[4] x, bool[4] b, int64[4] i) => (float[4] y, int64[4] j) { m = Cast<to = 1>(b)"
                          " f = Cast<to = 1>(i) g = Mul(f, f) a = Mul(x, m) y = Add(a, g)"
                          " j = Cast<to = 7>(a) }"))  # fmt: skip
    assert made.kept == {"f": "it converts integers to floats", "g": "it computes with integers in floats"}
    feeds = {"x": ONES, "b": np.array([True, False] * 2), "i": np.array([1, 2, 3, 211])}
    np.testing.assert_allclose(computed(made.proto, **feeds)[0], [2, 4, 10, 211**2], rtol=2**-11)


def test_external_weights(tmp_path: Path) -> None:
    proto = network(f"{SAME} {{ y = Conv(x, w) }}", w=POINT)
    inside = halved(proto).proto
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    assert convert_to_fp16(load_model(tmp_path / "net.onnx")).proto == inside


def test_weights_that_are_listed_as_inputs() -> None:
    proto = network("(float[2, 4, 8, 8] x, float[4, 4, 1, 1] w) => (float[2, 4, 8, 8] y) { y = Conv(x, w) }", w=POINT)
    made = halved(proto).proto
    assert [i.type.tensor_type.elem_type for i in made.graph.input] == [TensorProto.FLOAT], "no weight is an input"
    assert [t.data_type for t in made.graph.initializer] == [TensorProto.FLOAT16]
    computed(made, x=np.ones((2, 4, 8, 8), np.float32))


# What stays float32 -----------------------------------------------------------------------------------------------

KEPT: dict[str, tuple[str, set[str]]] = {
    "LayerNormalization in pieces": ("m = ReduceMean(x, i) d = Sub(x, m) p = Pow(d, two) v = ReduceMean(p, i)"
                                     " e = Add(v, eps) s = Sqrt(e) q = Div(d, s) y = Relu(q)", set("pvesq")),
    "RMS by Mul": ("p = Mul(x, x) v = ReduceMean(p, i) s = Sqrt(v) q = Div(x, s) y = Relu(q)", set("pvsq")),
    "GELU by tanh": ("p = Pow(x, two) a = Mul(p, two) t = Tanh(a) y = Mul(x, t)", set("pat")),
    "boxes": ("e = Exp(x) y = Mul(e, two)", set("ey")),
    "Softmax": ("y = Softmax(x)", set()),
    "LayerNormalization": ("y = LayerNormalization(x, g)", set()),
    "pools": ("a = GlobalAveragePool(x) y = Mul(a, x)", set()),
    "GELU": ("d = Div(x, two) e = Erf(d) a = Add(e, two) y = Mul(a, x)", set()),
    "epsilon": ("a = Add(x, fine) l = Log(a) y = Relu(l)", set("al")),
    "coarser epsilon": ("a = Add(x, eps) y = Log(a)", set()),
    "a tensor of small weights": ("y = Add(x, many)", set()),
    "other domains": ("a = my.Odd(x) y = Relu(a)", set("ay")),
    "no float16 form": ("y = Resize(x, , s2)", set()),
    "random": ("r = RandomNormalLike(x) y = Add(x, r)", set("r")),
    "grids": ("y = GridSample(x, grid)", set("y")),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEPT)
def test_what_stays_float32(kind: str) -> None:
    nodes, expected = KEPT[kind]
    weights = {
        "two": np.float32(2), "eps": np.float32(1e-5), "fine": np.float32(1e-9),
        "many": np.full((4, 1, 1), 1e-9, np.float32),
        "i": np.array([-1]), "g": np.ones(8, np.float32), "s2": np.array([1, 1, 1, 1], np.float32),
        "grid": np.zeros((2, 8, 8, 2), np.float32),
    }  # fmt: skip
    used = {name: value for name, value in weights.items() if any(f" {name}{end}" in nodes for end in ",)")}
    made = halved(network(f"{SAME} {{ {nodes} }}", **used))
    assert set(made.kept) == expected
    outputs = {name for node in made.proto.graph.node for name in node.output}
    if kind not in ("other domains", "boxes", "grids"):
        found = types(made.proto)
        assert {n for n in outputs - {"y"} if found[n] == "float32" and not n.endswith("_float32")} >= expected
        assert all(found[n] == "float16" for n in outputs - {"y"} - expected if "_float32" not in n)


def test_integers_and_masks() -> None:
    """A mask of integers is float32 until it meets activations."""
    made = halved(network("(float[2, 8] x, int64[2, 8] m) => (float[2, 8] y) { f = Cast<to = 1>(m) n = Sub(one, f)"
                          " k = Mul(n, low) a = Add(x, k) y = Softmax(a) }",
                          one=np.float32(1), low=np.float32(-3e38)))  # fmt: skip
    assert list(made.kept) == ["f", "n", "k"]
    assert made.saturated == {}


def test_weights_beyond_float16_saturate_and_are_listed() -> None:
    weight = np.array([1e6, -2e6, 3.0, -np.inf], np.float32)
    made = halved(network("(float[4] x) => (float[4] y) { y = Min(x, w) }", w=weight))
    assert made.saturated == {"w": 2e6}
    (half,) = (numpy_helper.to_array(t) for t in made.proto.graph.initializer)
    assert half.tolist() == [65504, -65504, 3, -np.inf]


def test_measured_tensors_stay_float32() -> None:
    proto = network(f"{SAME} {{ a = Conv(x, w) b = Relu(a) c = Conv(b, w) y = Relu(c) }}", w=POINT)
    made = halved(proto, ranges={"x": 1e3, "a": 1e5, "b": 2e4, "c": 3.0})
    assert made.kept == dict.fromkeys("ab", "the values of 'a' come near 65504, or exceed it")
    x = np.full((2, 4, 8, 8), 1e5, np.float32)
    assert np.isfinite(computed(halved(proto, ranges=dict.fromkeys("xabcy", 1e6)).proto, x=x)[0]).all()


def test_what_subgraphs_read_is_cast_for_them() -> None:
    text = ("(float[2, 4, 8, 8] x, bool b) => (float[2, 4, 8, 8] y) { c = Conv(x, w) i = If(b)"
            "<then_branch = t () => (float[2, 4, 8, 8] p) { n = Not(b) p = If(n)"
            "<then_branch = t2 () => (float[2, 4, 8, 8] r) { r = Relu(c) },"
            " else_branch = e2 () => (float[2, 4, 8, 8] s) { s = Conv(c, w) }> },"
            " else_branch = e () => (float[2, 4, 8, 8] q) { q = Relu(x) }> y = Relu(i) }")  # fmt: skip
    proto = network(text, w=POINT)
    made = halved(proto)
    assert made.kept == {"i": "it has subgraphs"}
    x = RANDOM.normal(size=(2, 4, 8, 8)).astype(np.float32)
    for choice in (True, False):
        ours, theirs = (computed(p, x=x, b=np.array(choice))[0] for p in (made.proto, proto))
        np.testing.assert_allclose(ours, theirs, atol=1e-2)


# Q/DQ -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opset", "dtype", "checks", "refers", "runs"),
    [
        (13, np.float16, False, False, False),
        (17, np.float16, False, False, False),
        (19, np.float16, True, True, True),
        (19, np.float32, False, True, False),
        (21, np.float16, True, True, True),
        (21, np.float32, False, True, False),
    ],
)
def test_who_takes_float16_with_which_scale(opset: int, dtype: Any, checks: bool, refers: bool, runs: bool) -> None:
    """Float16 needs set 19 and, below 23, a float16 scale: for the checker, the reference and onnxruntime alike."""
    made = "float16" if dtype is np.float16 else "float"
    proto = network(f"(float16[3] x) => ({made}[3] y) {{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }}",
                    opset, s=dtype(0.5), z=np.int8(0))  # fmt: skip
    x = np.array([0.5, -1, 500], np.float16)

    def works(attempt: Any) -> bool:
        try:
            attempt()
        except Exception:
            return False
        return True

    assert works(lambda: onnx.checker.check_model(proto, full_check=True)) is checks
    assert works(lambda: ReferenceEvaluator(proto).run(None, {"x": x})) is refers
    assert works(lambda: computed(proto, x=x)) is runs


def test_pairs_become_float16() -> None:
    model = loaded(network(f"{SAME} {{ c = Conv(x, w) y = Conv(c, w) }}", 13, w=POINT))
    proto = insert_qdq(model, {"x": scale_of(3), "c": scale_of(5)}).proto
    made = halved(proto)
    found = types(made.proto)
    assert made.kept == {}
    assert kinds(made.proto).count("Cast") == 2
    for node in made.proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert found[node.input[1]] == "float16"
            assert {found[node.input[0]], found[node.output[0]]} == {"float16", "int8"}
    x = RANDOM.normal(size=(2, 4, 8, 8)).astype(np.float32)
    (ours,), (theirs,) = (computed(p, x=x) for p in (made.proto, proto))
    assert np.abs(ours - theirs).max() <= 2 * scale_of(5) * np.abs(POINT).sum(axis=1).max()
    np.testing.assert_allclose(ReferenceEvaluator(made.proto).run(None, {"x": x})[0], ours, atol=0.1)


@pytest.mark.parametrize(("scale", "kept"), [(6.2e-5, False), (5e-5, True), (1e-9, True), (7e4, True)])
def test_scales_that_float16_lacks_keep_their_pair_in_float32(scale: float, kept: bool) -> None:
    made = halved(network("(float[8] x) => (float[8] y) { r = Relu(x) q = QuantizeLinear(r, s, z) "
                          " d = DequantizeLinear(q, s, z)"
                          " y = Relu(d) }", s=np.float32(scale), z=np.int8(0)))  # fmt: skip
    reason = "its scale is subnormal in float16, or too large"
    assert made.kept == (dict.fromkeys("qd", reason) if kept else {})
    found = types(made.proto)
    assert (found["s"], found["r"]) == ("float32" if kept else "float16", "float16")
    x = np.arange(8).astype(np.float32) * np.float32(scale) * 15
    if scale < 1:
        np.testing.assert_allclose(computed(made.proto, x=x)[0], x, atol=max(0.51 * scale, 2**-25) + 1e-3 * x.max())


@pytest.mark.parametrize("form", [WeightForm.FLOAT, WeightForm.INT8])
@pytest.mark.parametrize("size", [1e-3, 1e-12, 1e-30])
def test_channels_with_scales_that_float16_lacks_get_its_least(form: WeightForm, size: float) -> None:
    """Channels that training has switched off must not keep the whole operator from INT8."""
    weight = (POINT * np.array([1, size, 1, 1]).reshape(4, 1, 1, 1)).astype(np.float32)
    proto = insert_qdq(loaded(network(f"{SAME} {{ y = Conv(x, w) }}", w=weight)), {"x": scale_of(3)}, form=form).proto
    made = halved(proto)
    assert (made.kept, made.raised) == ({}, 1)
    assert count_int8_layers(loaded(made.proto)) == (1, 1)
    x = RANDOM.normal(size=(2, 4, 8, 8)).astype(np.float32)
    (ours,), (theirs,) = (computed(p, x=x) for p in (made.proto, proto))
    assert np.abs(ours - theirs)[:, 1].max() <= 4 * np.abs(x).max() * 2**-15 + 0.1 * np.abs(theirs[:, 1]).max()
    np.testing.assert_allclose(ours, theirs, atol=0.2)  # activations may round to the neighbouring integer


def test_weights_whose_scales_float16_lacks_altogether_are_named_and_exact() -> None:
    weight = (POINT * 1e-3).astype(np.float32)
    proto = insert_qdq(loaded(network(f"{SAME} {{ y = Conv(x, w) }}", w=weight)), {"x": scale_of(3)}).proto
    made = halved(proto)
    assert list(made.kept) == ["w_Quantize_0", "w_Dequantize_0"]
    initializers = {t.name: t for t in made.proto.graph.initializer}
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("w"):
            assert initializers[tensor.name] == tensor, "weights and scales of the pair are as they were"


def test_constants_that_are_folded_are_not_told() -> None:
    assert halved(network("(float[4] x) => (float[4] y) { p = Exp(w) y = Mul(x, p) }", w=ONES)).kept == {
        "y": "it computes with values that may be too large or too small for float16"
    }


@pytest.mark.parametrize("form", ["pair", "stored"])
def test_channels_of_zeros(form: str) -> None:
    tiny = np.finfo(np.float32).tiny
    weight = np.stack([np.full(4, 0.5), np.zeros(4)], 1).astype(np.float32)
    name = "w" if form == "pair" else "codes"
    quantize = "k = QuantizeLinear<axis = 1>(w, s, z)" if form == "pair" else ""
    proto = network(f"(float[3, 4] x) => (float[3, 2] y) {{ {quantize} v = DequantizeLinear<axis = 1>"
                    f"({'k' if form == 'pair' else 'codes'}, s, z) y = MatMul(x, v) }}",
                    s=np.array([0.5 / 127, tiny], np.float32),
                    z=np.zeros(2, np.int8), **{name: weight if form == "pair" else np.int8(254 * weight)})  # fmt: skip
    made = halved(proto)
    assert made.kept == {}
    x = np.ones((3, 4), np.float32)
    np.testing.assert_allclose(computed(made.proto, x=x)[0], [[2, 0]] * 3, rtol=2e-3)


@given(st.lists(st.floats(2**-40, 1e5, width=32), min_size=1, max_size=9), st.booleans())
def test_scales_in_float16_are_exact_enough_or_none(scales: list[float], pair: bool) -> None:
    scale = np.array(scales, np.float32)
    half = fp16_scale(scale, pair)
    normal = (scale >= 2**-14) & (scale < 65520)
    vanishing = (scale * 127 <= 2**-25) if pair else np.zeros(len(scale), bool)
    edge = np.abs(scale / 2**-14 - 1) < 2**-10  # may round up to a normal number
    assert bool(half.size) == bool((normal | vanishing).all()) or edge.any()
    if half.size:
        exact = ~vanishing
        assert (np.abs(half.astype(np.float64) - scale)[exact] <= 2**-11 * scale[exact]).all()
        assert (half >= np.float16(2**-14)).all()


# Laws -------------------------------------------------------------------------------------------------------------

STEPS = (
    "{new} = Conv({old}, w)", "{new} = Relu({old})", "{new} = Add({old}, {other})", "{new} = Tanh({old})",
    "{new} = Pow({old}, two)", "{new} = Div({other}, two)", "{new} = Softmax({old})", "{new} = Concat<axis = 1>({old})",
    "{new}_ = QuantizeLinear({old}, s, z) {new} = DequantizeLinear({new}_, s, z)",
    "{new} = MaxPool<kernel_shape = [1, 1]>({old})",
    "{new} = QuantizeLinear({old}, fine, z) {new}d = DequantizeLinear({new}, fine, z) {new}e = Identity({new}d)",
)  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    tensors, nodes = ["x"], []
    for index in range(draw(st.integers(1, 8))):
        step = draw(st.sampled_from(STEPS))
        new = f"t{index}"
        nodes.append(step.format(new=new, old=tensors[-1], other=draw(st.sampled_from(tensors))))
        tensors.append(f"{new}e" if "fine" in step else new)
    # With a scale of 0.25, a Softmax over eight equal values would lie at the border of two integers.
    weights = {"w": POINT, "two": np.float32(2), "s": np.float32(0.3), "fine": np.float32(2e-5), "z": np.int8(0)}
    return network(f"{SAME} {{ {' '.join(nodes)} y = Identity({tensors[-1]}) }}", **weights)


@given(networks(), st.booleans())
@settings(max_examples=40)
def test_any_network_stays_a_network(proto: onnx.ModelProto, keep_io: bool) -> None:
    made = halved(proto, keep_io=keep_io)
    x = RANDOM.uniform(-1, 1, size=(2, 4, 8, 8)).astype(np.float32 if keep_io else np.float16)
    (ours,) = computed(made.proto, x=x)
    (theirs,) = computed(proto, x=x.astype(np.float32))
    assert ours.dtype == x.dtype
    assert np.median(np.abs(ours - theirs)) <= 0.02 * max(1.0, float(np.abs(theirs).max()))
    names = [name for node in made.proto.graph.node for name in node.output]
    assert len(set(names)) == len(names)
    assert made.proto.graph.output[0].type.tensor_type.elem_type == (1 if keep_io else 10)


@pytest.mark.shared
def test_resnet20_chooses_the_same(shared: Path) -> None:
    model = load_model(shared / "models" / "resnet20.onnx")
    table = read_table(shared / "golden" / "networks" / "resnet20_entropy2.cache")
    proto = insert_qdq(model, table.scales).proto
    made = halved(proto)
    assert (made.kept, made.saturated) == ({}, {})
    pixels = np.load(shared / "golden" / "networks" / "calibration_512.npz")["x"][:256]
    spec = PRESETS["cifar10"]
    images = ((pixels * np.float32(1 / 255) - np.float32(spec.mean)) / np.float32(spec.std)).transpose(0, 3, 1, 2)
    chosen = [computed(p, image=images)[0].argmax(1) for p in (proto, made.proto)]
    assert np.mean(chosen[0] == chosen[1]) >= 0.99


def test_it_works_without_onnxruntime_and_torch() -> None:
    code = "import sys; sys.modules['onnxruntime'] = sys.modules['torch'] = None; import quantkit.rewrites.fp16"
    subprocess.run([sys.executable, "-c", code], check=True)

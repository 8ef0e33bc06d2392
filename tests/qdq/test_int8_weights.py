"""Weights that are stored as INT8: the same network, bit for bit, in a quarter of the space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantkit.errors import ModelError, UsageError
from quantkit.graph import Model, load_model, write_model
from quantkit.graph.node_selection import node_names, select_nodes
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import QuantizedNetwork, WeightForm, weight_codes
from quantkit.qdq.placement import Choices
from quantkit.qdq.removal import remove_qdq
from tests.support.qdq import every_scale, inserted, model_of, network, node_of, noise, on_onnxruntime

INT8 = WeightForm.INT8
SAME = "(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)"
ROWS = "(float[N, 8] x) => (float[N, 8] y)"
POINT, SQUARE = noise(4, 4, 1, 1), noise(8, 8)

KINDS: dict[str, tuple[str, str, tuple[int, ...], int]] = {
    "Conv": ("(float[2, 4, 5, 5] x) => (float[A, B, C, D] y)", "Conv(x, w)", (6, 4, 3, 3), 0),
    "depthwise": ("(float[2, 4, 5, 5] x) => (float[A, B, C, D] y)", "Conv<group = 4>(x, w)", (4, 1, 3, 3), 0),
    "ConvTranspose": ("(float[2, 4, 5, 5] x) => (float[A, B, C, D] y)", "ConvTranspose(x, w)", (4, 5, 2, 2), 1),
    "Gemm": ("(float[2, 8] x) => (float[A, B] y)", "Gemm(x, w)", (8, 5), 1),
    "Gemm, transposed": ("(float[2, 8] x) => (float[A, B] y)", "Gemm<transB = 1>(x, w)", (5, 8), 0),
    "MatMul": ("(float[2, 8] x) => (float[A, B] y)", "MatMul(x, w)", (8, 5), 1),
    "MatMul on the left": ("(float[8, 2] x) => (float[A, B] y)", "MatMul(w, x)", (5, 8), 0),
}


def both(
    model: Model, scales: Mapping[str, float] | None = None, choices: Choices | None = None
) -> list[QuantizedNetwork]:
    """With float weights and with INT8 ones."""
    return [inserted(model, scales, choices, weights) for weights in (WeightForm.FLOAT, INT8)]


def stored(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Initializers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def with_outputs(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A network that tells some of its tensors, and nothing else."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return copy


def dequantized(proto: onnx.ModelProto, reader: str, place: int, **feeds: NDArray[Any]) -> NDArray[Any]:
    """What an operator reads as its weights."""
    (values,) = on_onnxruntime(with_outputs(proto, [node_of(proto, reader).input[place]]), **feeds)
    return values


# The same network ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-100, 60), zero=st.booleans())
@settings(max_examples=8)
def test_nothing_changes_for_onnxruntime_and_the_reference(kind: str, seed: int, exponent: int, zero: bool) -> None:
    random = np.random.default_rng(seed)
    head, node, shape, axis = KINDS[kind]
    weight = np.ldexp(random.standard_t(3, size=shape), exponent).astype(np.float32)
    if zero:
        np.moveaxis(weight, axis, 0)[1] = 0
    model = model_of(f"{head} {{ y = {node} }}", 19, w=weight)
    whole, small = both(model)
    (shape_of_x,) = ([d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.proto.graph.input)
    x = random.normal(size=shape_of_x).astype(np.float32)
    place = list(model.proto.graph.node[0].input).index("w")
    seen = [dequantized(made.proto, "y", place, x=x) for made in (whole, small)]
    assert seen[0].tobytes() == seen[1].tobytes()
    for run in (on_onnxruntime, lambda proto, x: ReferenceEvaluator(proto).run(None, {"x": x})):
        assert run(whole.proto, x=x)[0].tobytes() == run(small.proto, x=x)[0].tobytes()
    assert (whole.pairs, whole.weights, whole.left) == (small.pairs, small.weights, small.left)
    assert small.weights == {"w": axis}


def test_only_int8_is_left_in_the_file() -> None:
    model = model_of(f"{SAME} {{ c = Conv(x, w, b) r = Relu(c) y = Conv(r, v) }}", w=POINT, v=2 * POINT, b=noise(4))
    whole, small = both(model)
    kinds = {name: values.dtype for name, values in stored(small.proto).items() if values.shape == POINT.shape}
    assert kinds == {"w_quantized_0": np.int8, "v_quantized_0": np.int8}
    assert stored(small.proto)["b"].dtype == np.float32, "a bias stays float"
    operators = [node.op_type for node in small.proto.graph.node]
    assert (operators.count("QuantizeLinear"), operators.count("DequantizeLinear")) == (2, 4)
    assert [n.op_type for n in whole.proto.graph.node].count("QuantizeLinear") == 4


def test_a_file_takes_a_quarter() -> None:
    model = model_of("(float[1, 256] x) => (float[1, 256] y) { c = MatMul(x, w) r = Relu(c) y = MatMul(r, v) }",
                     w=noise(256, 256), v=noise(256, 255)[:, [*range(255), 0]])  # fmt: skip
    sizes = [made.proto.ByteSize() for made in both(model)]
    assert 0.25 < sizes[1] / sizes[0] < 0.27


def test_the_same_bytes_every_time_and_the_model_as_it_was() -> None:
    model = model_of(f"{SAME} {{ c = Conv(x, w) r = Relu(c) y = Conv(r, v) }}", w=POINT, v=2 * POINT)
    before = model.proto.SerializeToString(deterministic=True)
    first, second = (inserted(model, form=INT8).proto.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert model.proto.SerializeToString(deterministic=True) == before


# Who else reads them --------------------------------------------------------------------------------------------------


def test_shared_weights_are_stored_once_for_each_axis() -> None:
    model = model_of(f"{SAME} {{ a = Conv(x, w) b = Conv(a, w) y = ConvTranspose(b, w) }}", w=POINT)
    whole, small = both(model)
    kept = {name for name, values in stored(small.proto).items() if values.shape == POINT.shape}
    assert kept == {"w_quantized_0", "w_quantized_1"}
    of = [node_of(small.proto, node_of(small.proto, name).input[1]) for name in "ab"]
    assert of[0].output != of[1].output, "each reader has a DequantizeLinear of its own"
    assert of[0].input == of[1].input
    x = noise(1, 4, 8, 8)
    np.testing.assert_array_equal(*(on_onnxruntime(made.proto, x=x)[0] for made in (whole, small)))


READERS = {
    "a float operator": "(float[1, 4, 4, 4] x) => (float[1, 4, 4, 4] y)"
    "{ c = Conv(x, w) k = Neg(w) s = Reshape(k, n) y = MatMul(c, s) }",
    "a convolution that stays float": f"{SAME} {{ c = Conv(x, w) y = Conv(c, w) }}",
    "a graph output": "(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y, float[4, 4, 1, 1] w) { y = Conv(x, w) }",
    "a subgraph": "(float[1, 4, 8, 8] x, bool b) => (float[1, 4, 8, 8] y, float[4, 4, 1, 1] z) { y = Conv(x, w)"
    " z = If(b)<then_branch = t () => (float[4, 4, 1, 1] i) { i = Relu(w) },"
    " else_branch = e () => (float[4, 4, 1, 1] o) { o = Neg(w) }> }",
}


@pytest.mark.parametrize("reader", READERS)
def test_weights_that_are_read_in_float_as_well_stay(reader: str) -> None:
    text = READERS[reader]
    model = model_of(text, w=POINT, **({"n": np.array([4, 4])} if "k, n" in text else {}))
    made = inserted(
        model, every_scale(model), Choices(exclude=frozenset("y") if "stays" in reader else frozenset()), INT8
    )
    np.testing.assert_array_equal(stored(made.proto)["w"], POINT)
    assert stored(made.proto)["w_quantized_0"].dtype == np.int8


def test_an_unread_weight_stays_as_it_was() -> None:
    made = inserted(model_of(f"{SAME} {{ y = Conv(x, w) }}", w=POINT, unread=POINT), form=INT8)
    assert "unread" in stored(made.proto)
    assert "w" not in stored(made.proto)


def test_a_weight_that_is_listed_among_the_inputs_goes_from_there() -> None:
    model = model_of("(float[1, 4, 8, 8] x, float[4, 4, 1, 1] w) => (float[1, 4, 8, 8] y) { y = Conv(x, w) }", w=POINT)
    made = inserted(model, {"x": 0.1}, form=INT8)
    assert [value.name for value in made.proto.graph.input] == ["x"]
    assert "w" not in stored(made.proto)


# Where they come from -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["Constant", "Identity", "Identity of Identity", "Identity of Constant"])
def test_weights_by_other_names_leave_nothing_behind(form: str) -> None:
    constant = f"<value = float[8, 8] {{ {', '.join(map(str, SQUARE.ravel()))} }}>()"
    source = {
        "Constant": f"k = Constant{constant}",
        "Identity": "k = Identity(w)",
        "Identity of Identity": "i = Identity(w) k = Identity(i)",
        "Identity of Constant": f"i = Constant{constant} k = Identity(i)",
    }[form]
    weights = {} if "Constant" in form else {"w": SQUARE}
    model = model_of(f"{ROWS} {{ {source} y = MatMul(x, k) }}", **weights)
    whole, small = both(model)
    assert {node.op_type for node in small.proto.graph.node} == {"QuantizeLinear", "DequantizeLinear", "MatMul"}
    assert {name for name, values in stored(small.proto).items() if values.size == 64} == {"k_quantized_1"}
    x = noise(3, 8)
    np.testing.assert_array_equal(*(on_onnxruntime(made.proto, x=x)[0] for made in (whole, small)))


def test_one_of_two_names_stays_while_it_is_read() -> None:
    model = model_of(f"{ROWS} {{ k = Identity(w) a = MatMul(x, k) y = MatMul(a, w) }}", w=SQUARE)
    made = inserted(model, choices=Choices(exclude=frozenset("y")), form=INT8)
    assert "w" in stored(made.proto)
    assert "Identity" not in {node.op_type for node in made.proto.graph.node}


def test_external_weights_come_into_the_file_where_they_become_int8(tmp_path: Path) -> None:
    proto = network(
        "(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) { c = Conv(x, w) y = Conv(c, v) }", w=POINT, v=2 * POINT
    )
    onnx.save(proto, tmp_path / "inside.onnx")
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    outside, inside = (
        insert_qdq(load_model(tmp_path / name), {"x": 0.1, "c": 0.1}, Choices(exclude=frozenset("y")), INT8)
        for name in ("net.onnx", "inside.onnx")
    )
    kept = {tensor.name: tensor.data_location for tensor in outside.proto.graph.initializer}
    assert "w" not in kept
    assert kept["v"] == TensorProto.EXTERNAL
    assert kept["w_quantized_0"] == TensorProto.DEFAULT
    np.testing.assert_array_equal(*(stored_inside(made.proto)["w_quantized_0"] for made in (outside, inside)))
    (tmp_path / "out").mkdir()
    files = write_model(outside.proto, tmp_path, tmp_path / "out" / "qdq.onnx")
    assert [path.name for path in files] == ["qdq.onnx", "qdq.onnx.data"]
    x = noise(1, 4, 8, 8)
    np.testing.assert_array_equal(on_onnxruntime(files[0], x=x)[0], on_onnxruntime(inside.proto, x=x)[0])


def stored_inside(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Initializers that lie in the model."""
    inside = [t for t in proto.graph.initializer if t.data_location == TensorProto.DEFAULT]
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in inside}


def test_what_is_not_finite_is_refused() -> None:
    bad = POINT.copy()
    bad[1, 2] = np.nan
    with pytest.raises(ModelError, match="'w' holds NaN or Inf"):
        inserted(model_of(f"{SAME} {{ y = Conv(x, w) }}", w=bad), form=INT8)


# float16 --------------------------------------------------------------------------------------------------------------


def test_float16_weights_are_rounded_as_onnxruntime_rounds_them() -> None:
    """A quotient in float16 falls on the other side of a half for about one weight of a hundred."""
    weight = noise(64, 256).astype(np.float16)
    model = model_of("(float16[N, 256] x) => (float16[N, 64] y) { y = Gemm<transB = 1>(x, w) }", 19, w=weight)
    whole, small = both(model)
    scales = stored(small.proto)["w_scale_0"]
    assert (scales.dtype, whole.weights, small.weights) == (np.float16, {"w": 0}, {"w": 0})
    quantized = with_outputs(whole.proto, ["w_quantized_0"])
    keep = [node for node in quantized.graph.node if node.output[0] == "w_quantized_0"]
    del quantized.graph.node[:], quantized.graph.input[:]
    quantized.graph.node.extend(keep)
    (theirs,) = on_onnxruntime(quantized)
    np.testing.assert_array_equal(stored(small.proto)["w_quantized_0"], theirs)
    twice = np.rint(weight / scales[:, None])
    assert (twice != theirs).any(), "the case that this is about"


# Taken out again ------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["Conv", "ConvTranspose", "Gemm", "MatMul"]))
@settings(max_examples=30)
def test_taken_out_the_weights_are_those_on_the_grid(seed: int, kind: str) -> None:
    head, node, shape, axis = KINDS[kind]
    weight = np.random.default_rng(seed).standard_t(3, size=shape).astype(np.float32)
    model = model_of(f"{head} {{ y = {node} }}", w=weight)
    made = inserted(model, {"x": 0.25}, form=INT8)
    again = remove_qdq(Model(model.path, made.proto, ""))
    assert (again.scales, again.left, again.unscaled) == ({"x": 0.25}, {}, {})
    assert [(n.op_type, len(n.input)) for n in again.proto.graph.node] == [(model.proto.graph.node[0].op_type, 2)]
    ((name, values),) = stored(again.proto).items()
    assert again.weights[name][0].stored
    scales = stored(made.proto)[f"w_scale_{axis}"]
    grid = np.expand_dims(scales, tuple(d for d in range(len(shape)) if d != axis))
    assert (np.abs(values - weight) <= grid * (0.5 + 1e-4)).all(), "half a step at most"
    twice = inserted(Model(model.path, again.proto, ""), {"x": 0.25}, form=INT8)
    codes = [next(v for v in stored(proto).values() if v.shape == shape) for proto in (made.proto, twice.proto)]
    np.testing.assert_array_equal(codes[0], codes[1], "what lies on a grid stays there")


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float16, np.float32]))
def test_the_largest_of_a_channel_gets_127(seed: int, dtype: type) -> None:
    values = np.random.default_rng(seed).normal(size=(5, 7)).astype(dtype)
    scales = (np.abs(values.astype(np.float32)).max(1) / np.float32(127)).astype(dtype)
    codes = weight_codes(values, scales, 0)
    assert codes.dtype == np.int8
    assert (np.abs(codes.astype(int)).max(1) == 127).all()
    assert (np.sign(codes) * np.sign(values) >= 0).all()


# Choosing nodes -------------------------------------------------------------------------------------------------------


def test_nodes_are_chosen_by_name_first_output_pattern_or_operator() -> None:
    model = model_of(f"{SAME} {{ c = Conv(x, w) r = Relu(c) y = Conv(r, w) }}", w=POINT)
    model.proto.graph.node[0].name = "/stem/Conv"
    assert node_names(model) == {"/stem/Conv": "Conv", "r": "Relu", "y": "Conv"}
    assert select_nodes(["/stem/*", "y"], model, "--exclude") == {"/stem/Conv", "y"}
    assert select_nodes(["Conv"], model, "--exclude") == {"/stem/Conv", "y"}
    assert select_nodes([], model, "--exclude") == set()
    with pytest.raises(UsageError, match=r"exclude='c', '\[z\]': no node") as caught:
        select_nodes(["r", "c", "[z]"], model, "--exclude")
    assert "quantkit inspect" in caught.value.remedy


def test_onnxruntime_runs_int8_weights_with_all_its_optimizations() -> None:
    """It fuses them into its own INT8 operators, which round differently by a step at most."""
    model = model_of(f"{SAME} {{ c = Conv(x, w) r = Relu(c) y = Conv(r, v) }}", w=POINT, v=2 * POINT)
    made = inserted(model, {"x": 0.02, "r": 0.05}, form=INT8)
    session = onnxruntime.InferenceSession(made.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = noise(1, 4, 8, 8)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], on_onnxruntime(made.proto, x=x)[0], atol=0.5)

"""Q/DQ taken out again: the float network, the scales that a table holds, and what a table cannot hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from quantkit.errors import ModelError
from quantkit.graph import Model, load_model, watched_tensors
from quantkit.graph.identity import model_identity
from quantkit.qdq import stored_weights as restoring_module
from quantkit.qdq.grid import Grid
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.removal import StrippedNetwork, describe_way_back, remove_qdq
from quantkit.qdq.scale_propagation import propagate_scales
from quantkit.qdq.weight_scales import weight_deviations
from quantkit.table import read_table

RANDOM = np.random.default_rng(11)
POINT = RANDOM.normal(size=(3, 3, 1, 1)).astype(np.float32)
SQUARE = RANDOM.normal(size=(8, 8)).astype(np.float32)
HEAD = "(float[2, 3, 8, 8] x) => (float[2, 3, 8, 8] y)"
S = np.float32(0.1)
Z = np.int8(0)
Arrays = NDArray[Any]


def network(text: str, opset: int = 17, **weights: Any) -> onnx.ModelProto:
    """A model from ONNX's own text syntax, with weights as initializers."""
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> net {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    return proto


def model_of(proto: onnx.ModelProto) -> Model:
    return Model(Path("net.onnx"), proto, "")


def strip(text: str, opset: int = 17, **weights: Any) -> StrippedNetwork:
    """Take the pairs out of a network, and look whether the result is a model at all."""
    proto = network(text, opset, **weights)
    before = proto.SerializeToString(deterministic=True)
    made = remove_qdq(model_of(proto))
    assert proto.SerializeToString(deterministic=True) == before, "nobody edits a model"
    onnx.checker.check_model(made.proto, full_check=True)
    return made


def lines(made: StrippedNetwork) -> list[str]:
    """The nodes as text: `y = Relu(x)`."""
    return [f"{', '.join(n.output)} = {n.op_type}({', '.join(n.input)})" for n in made.proto.graph.node]


def weights_in(proto: onnx.ModelProto) -> dict[str, Arrays]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def on_onnxruntime(proto: onnx.ModelProto, **feeds: Arrays) -> list[Arrays]:
    """What onnxruntime computes, node by node."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))


# The inverse of with_qdq ------------------------------------------------------------------------------------------

STEPS: Sequence[str] = (
    "{new} = Conv({old}, {w})", "{new} = Conv({old}, {w}, bias)", "{new} = ConvTranspose({old}, {w})",
    "{new} = Relu({old})", "{new} = Add({old}, {other})", "{new} = Mul({old}, {other})",
    "{new} = Concat<axis = 1>({old}, {other}) {new}_c = Slice({new}, from, to, axis)",
    "{new} = AveragePool<kernel_shape = [1, 1]>({old})", "{new} = MaxPool<kernel_shape = [1, 1]>({old})",
    "{new} = MatMul({old}, {w}_square)", "{new} = MatMul({w}_square, {old})", "{new} = MatMul({old}, {other})",
    "{new}_f = Reshape({old}, rows) {new}_g = Gemm<transB = 1>({new}_f, {w}_square) {new} = Reshape({new}_g, image)",
    "{new} = If(flag)<then_branch = t () => (float[2, 3, 8, 8] {new}_t) {{ {new}_t = Relu({old}) }}, "
    "else_branch = e () => (float[2, 3, 8, 8] {new}_e) {{ {new}_e = Conv({other}, {w}) }}>",
)  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, float]]:
    """A network over tensors of one shape, with what exporters leave in files, and a table for some tensors."""
    tensors, nodes = ["x"], []
    for index in range(draw(st.integers(1, 8))):
        step = "{new} = Conv({old}, {w})" if index == 0 else draw(st.sampled_from(STEPS))
        new, other, w = f"t{index}", draw(st.sampled_from(tensors)), draw(st.sampled_from(["w", "v"]))
        nodes.append(step.format(new=new, old=tensors[-1], other=other, w=w))
        tensors.append(f"{new}_c" if "Concat" in step else new)
    proto = network(
        f"(float[2, 3, 8, 8] x, bool flag) => (float[2, 3, 8, 8] {tensors[-1]}) {{ {' '.join(nodes)} }}",
        w=POINT, v=2 * POINT, bias=POINT[:, 0, 0, 0], unread=POINT, w_square=SQUARE, v_square=2 * SQUARE,
        **{"from": [0], "to": [3], "axis": [1], "rows": [-1, 8], "image": [2, 3, 8, 8]},
    )  # fmt: skip
    told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, 8, 8]) for name in tensors[1:-1]]
    proto.graph.value_info.extend(told)
    proto.metadata_props.add(key="author", value="somebody")
    for number, node in enumerate(proto.graph.node):
        if draw(st.booleans()):
            node.name = f"node {number}"
    scales = {name: draw(st.sampled_from([2**-7, 0.03, 0.5])) for name in tensors[1:] if draw(st.booleans())}
    return proto, {"x": 0.1, **scales}


@given(networks())
@settings(max_examples=150)
def test_what_was_put_in_is_taken_out(case: tuple[onnx.ModelProto, dict[str, float]]) -> None:
    proto, scales = case
    with TemporaryDirectory() as folder:
        onnx.save(proto, f"{folder}/net.onnx")
        model = load_model(f"{folder}/net.onnx")
    try:
        made = insert_qdq(model, scales)
    except ModelError as error:
        assume("no operator of this network can be quantized" not in error.problem)
        raise
    again = remove_qdq(Model(model.path, made.proto, ""))
    assert again.proto == model.proto
    assert again.proto.SerializeToString(deterministic=True) == model.proto.SerializeToString(deterministic=True)
    assert model_identity(again.proto, Path(), "") == model.sha256
    assert again.scales == {name: float(np.float32(scale)) for name, scale in made.pairs.items()}
    assert (again.unscaled, again.left) == ({}, {})
    assert all(far < 1e-6 for far in weight_deviations(model_of(again.proto), again.weights).values())
    twice = remove_qdq(model_of(again.proto))
    assert (twice.proto, twice.scales, twice.weights) == (model.proto, {}, {})


WORDS = st.integers(0x00800000, 0x7F7FFFFF).map(lambda word: np.uint32(word).view(np.float32))


@given(WORDS)
def test_a_scale_is_the_word_of_the_file(word: Any) -> None:
    made = strip(f"{HEAD} {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Relu(d) }}", s=word, z=Z)
    assert np.float32(made.scales["x"]).tobytes() == word.tobytes()
    assert lines(made) == ["y = Relu(x)"]
    assert not made.proto.graph.initializer


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "vit"])
def test_trained_networks_come_back(name: str, shared: Path) -> None:
    model = load_model(shared / "models" / f"{name}.onnx")
    table = read_table(shared / "golden" / "networks" / f"{name}_entropy2.cache")
    made = insert_qdq(model, table.scales)
    again = remove_qdq(Model(model.path, made.proto, ""))
    assert again.proto.SerializeToString(deterministic=True) == model.path.read_bytes()
    assert set(again.scales) == set(made.pairs)
    assert all(np.float32(scale) == np.float32(table.scales[tensor]) for tensor, scale in again.scales.items())


# Pairs of other tools ---------------------------------------------------------------------------------------------

Q = "q = QuantizeLinear({}, s, z) d = DequantizeLinear(q, s, z)"
PAIR = Q.format("x")


def test_constant_nodes_hold_scales_too() -> None:
    """As PyTorch exports them."""
    made = strip(
        f"{HEAD} {{ s = Constant<value_float = 0.5>() z0 = Constant<value = int64 {{0}}>()"
        f" z1 = Cast<to = 3>(z0) z = Identity(z1) k = Constant<value_float = 2.0>()"
        f" c = Mul(x, k) {Q.format('c')} y = Relu(d) }}"
    )
    assert made.scales == {"c": 0.5}
    assert lines(made) == ["k = Constant()", "c = Mul(x, k)", "y = Relu(c)"]


def test_two_computed_scales_are_not_known_to_be_one() -> None:
    made = strip(
        f"{HEAD} {{ s = ReduceMax<keepdims = 0>(x) t = ReduceMax<keepdims = 0>(x) q = QuantizeLinear(x, s, z)"
        " d = DequantizeLinear(q, t, z) y = Relu(d) }", z=Z,
    )  # fmt: skip
    assert made.left["q"] == "d has a scale or zero point that the network computes"


def test_several_dequantizers_and_several_pairs_of_one_tensor() -> None:
    made = strip(
        f"{HEAD} {{ {PAIR} e = DequantizeLinear(q, s, z) r = QuantizeLinear(x, s, z) f = DequantizeLinear(r, s2, z2)"
        " a = Add(d, e) y = Add(a, f) }", s=S, s2=S, z=Z, z2=Z,
    )  # fmt: skip
    assert lines(made) == ["a = Add(x, x)", "y = Add(a, x)"]
    assert made.scales == {"x": float(S)}
    assert not made.proto.graph.initializer


def test_a_scale_that_something_else_reads_stays() -> None:
    made = strip(f"{HEAD} {{ {PAIR} y = Mul(d, s) }}", s=S, z=Z)
    assert lines(made) == ["y = Mul(x, s)"]
    assert [w.name for w in made.proto.graph.initializer] == ["s"]


def test_an_output_of_the_network_keeps_its_name() -> None:
    """onnxruntime renames what makes it."""
    made = strip(f"{HEAD} {{ y_in = Relu(x) n = Neg(y_in) {Q.format('y_in').replace('d =', 'y =')} }}", s=S, z=Z)
    assert lines(made) == ["y = Relu(x)", "n = Neg(y)"]
    assert made.scales == {"y": float(S)}


def test_an_output_that_is_an_input_as_well() -> None:
    made = strip(f"{HEAD} {{ {PAIR.replace('d =', 'y =')} }}", s=S, z=Z)
    assert lines(made) == ["y = Identity(x)"]
    both = strip(
        "(float[2] x) => (float[2] a, float[2] b, float[2] c)"
        f"{{ a = Relu(x) {Q.format('a').replace('d =', 'b =')} r = QuantizeLinear(b, s, z)"
        " c = DequantizeLinear(r, s, z) }", s=S, z=Z,
    )  # fmt: skip
    assert lines(both) == ["a = Relu(x)", "b = Identity(a)", "c = Identity(a)"]
    assert both.scales == {"a": float(S)}


def test_two_outputs_of_one_tensor() -> None:
    made = strip(
        "(float[2] x) => (float[2] a, float[2] b) { r = Relu(x) q = QuantizeLinear(r, s, z)"
        " a = DequantizeLinear(q, s, z) b = DequantizeLinear(q, s, z) }", s=S, z=Z,
    )  # fmt: skip
    assert lines(made) == ["a = Relu(x)", "b = Identity(a)"]
    assert made.scales == {"a": float(S)}


def test_what_a_subgraph_hands_on_is_renamed_too() -> None:
    proto = network(
        f"(float[2] x, bool f) => (float[2] y) {{ {PAIR} y = If(f)<then_branch = t () => (float[2] d) {{ k = Neg(x) }},"
        " else_branch = e () => (float[2] b) { b = Relu(d) }> }", s=S, z=Z,
    )  # fmt: skip
    made = remove_qdq(model_of(proto))
    assert [a.g.output[0].name for a in made.proto.graph.node[0].attribute] == ["x", "b"]


def test_subgraphs_read_the_tensor_itself() -> None:
    made = strip(
        "(float[2, 3, 8, 8] x, bool f) => (float[2, 3, 8, 8] y) { r = Relu(x) " + Q.format("r") +
        " y = If(f)<then_branch = t () => (float[2, 3, 8, 8] a) { a = Neg(d) },"
        " else_branch = e () => (float[2, 3, 8, 8] b) { b = Relu(d) }> }", s=S, z=Z,
    )  # fmt: skip
    assert made.scales == {"r": float(S)}
    inner = [graph.node[0].input[0] for a in made.proto.graph.node[1].attribute for graph in [a.g]]
    assert inner == ["r", "r"]


def test_a_chain_of_pairs_has_two_scales_for_one_tensor() -> None:
    text = f"{HEAD} {{ {PAIR} r = QuantizeLinear(d, s2, z) e = DequantizeLinear(r, s2, z) y = Relu(e) }}"
    made = strip(text, s=S, s2=np.float32(0.2), z=Z)
    assert lines(made) == ["y = Relu(x)"]
    assert made.scales == {}
    assert made.unscaled == {"x": "it has several scales: 0.1, 0.2"}
    assert strip(text, s=S, s2=S, z=Z).scales == {"x": float(S)}


def test_what_the_file_tells_of_removed_tensors_goes() -> None:
    proto = network(f"{HEAD} {{ {PAIR} c = Relu(d) y = Relu(c) }}", s=S, z=Z)
    for name in ("q", "d", "c"):
        proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, 8, 8]))
    proto.graph.input.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, []))
    made = remove_qdq(model_of(proto))
    assert [v.name for v in made.proto.graph.value_info] == ["c"]
    assert [v.name for v in made.proto.graph.input] == ["x"]


# What a table cannot hold -----------------------------------------------------------------------------------------

MANY = np.array([0.1, 0.2, 0.3], np.float32)
UNFIT: dict[str, tuple[int, dict[str, Any], str]] = {
    "zero point": (17, {"s": S, "z": np.int8(3)}, r"its zero point is 3 \(int8\)"),
    "uint8": (17, {"s": S, "z": np.uint8(0)}, r"its zero point is 0 \(uint8\)"),
    "int16": (21, {"s": S, "z": np.int16(0)}, "its integers are int16"),
    "per channel": (17, {"s": MANY, "z": np.zeros(3, np.int8)}, "it has 3 scales, one per channel"),
    "zero": (17, {"s": np.float32(0), "z": Z}, "its scale is 0.0"),
    "infinite": (17, {"s": np.float32(np.inf), "z": Z}, "its scale is inf"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_grid_that_no_table_can_hold(kind: str) -> None:
    opset, weights, reason = UNFIT[kind]
    made = strip(f"{HEAD} {{ {PAIR} y = Relu(d) }}", opset, **weights)
    assert lines(made) == ["y = Relu(x)"]
    assert made.scales == {}
    assert list(made.unscaled) == ["x"]
    assert made.unscaled["x"] == reason.replace("\\", "")
    assert made.left == {}


def test_without_a_zero_point_it_is_uint8() -> None:
    made = strip(f"{HEAD} {{ q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) y = Relu(d) }}", s=S)
    assert made.unscaled == {"x": "its zero point is 0 (uint8)"}
    made = strip(f"{HEAD} {{ q = QuantizeLinear<output_dtype = 3>(x, s) d = DequantizeLinear(q, s) y = Relu(d) }}",
                 21, s=S)  # fmt: skip
    assert made.scales == {"x": float(S)}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_uint8_around_128_is_int8(seed: int) -> None:
    """The same numbers come out, so that one table holds both."""
    x = np.random.default_rng(seed).normal(scale=9, size=(2, 3, 8, 8)).astype(np.float32)
    protos = [network(f"{HEAD} {{ {PAIR} y = Relu(d) }}", s=S, z=z) for z in (np.uint8(128), Z)]
    np.testing.assert_array_equal(*(on_onnxruntime(proto, x=x)[0] for proto in protos))
    assert [remove_qdq(model_of(proto)).scales for proto in protos] == [{"x": float(S)}] * 2


def test_channels_of_one_scale_are_one_scale() -> None:
    made = strip(f"{HEAD} {{ {PAIR} y = Relu(d) }}", s=np.full(3, S), z=np.zeros(3, np.int8))
    assert made.scales == {"x": float(S)}


def test_a_scale_that_the_network_computes() -> None:
    made = strip(
        f"{HEAD} {{ m = ReduceMax<keepdims = 0>(x) s = Div(m, k) {PAIR} y = Relu(d) }}", 17, k=np.float32(127), z=Z
    )
    assert lines(made) == ["y = Relu(x)"]
    assert made.unscaled == {"x": "its scale or zero point is computed by the network"}


# What cannot go ---------------------------------------------------------------------------------------------------

NEITHER = "is neither a weight nor made by a QuantizeLinear that can be removed"
LEFT: dict[str, tuple[str, dict[str, str]]] = {
    "integers are read": (
        f"{PAIR} m = MaxPool<kernel_shape = [1, 1]>(q) e = DequantizeLinear(m, s, z) y = Add(d, e)",
        {"q": "MaxPool m reads its integers", "d": f"q {NEITHER}", "e": f"m {NEITHER}"},
    ),
    "another scale": (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s2, z) y = Relu(d)",
        {"q": "d has another scale or zero point", "d": f"q {NEITHER}"},
    ),
    "another zero point": (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z2) y = Relu(d)",
        {"q": "d has another scale or zero point", "d": f"q {NEITHER}"},
    ),
    "inside": (
        "c = ReduceMax<keepdims = 0>(x) b = Cast<to = 9>(c) y = If(b)<then_branch = t () => (float[2, 3, 8, 8] i)"
        "{ o = QuantizeLinear(x, s, z) i = DequantizeLinear(o, s, z) },"
        " else_branch = e () => (float[2, 3, 8, 8] j) { j = Relu(x) }>",
        {"o": "inside If y", "i": "inside If y"},
    ),
}  # fmt: skip


def test_a_pair_that_changes_the_type_stays() -> None:
    half = strip(
        "(float[2] x) => (float16[2] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, h, z) y = Relu(d) }", 19,
        s=np.float32(0.5), h=np.float16(0.5), z=Z,
    )  # fmt: skip
    assert half.left["q"] == "d has another scale or zero point"
    text = f"{HEAD} {{ {PAIR.replace('DequantizeLinear', 'DequantizeLinear<output_dtype = 10>')} y = Relu(d) }}"
    assert remove_qdq(model_of(network(text, 23, s=S, z=Z))).left["q"] == "d changes the type"


def test_grids_are_the_same_where_type_axis_and_values_are() -> None:
    one, many = np.float32([0.5]), np.float32([0.5, 0.25])
    grid = Grid("int8", many, np.zeros(2, np.int64), 0, 0, ("s", "z"))
    assert grid.is_same(replace(grid, names=("t", "")))
    assert grid.is_same(replace(grid, type=""))
    assert grid.is_same(replace(grid, names=("t", "z0"), zero=np.zeros((), np.int64)))
    for other in (
        {"type": "uint8"},
        {"axis": 1},
        {"block": 2},
        {"names": ("t", "z"), "scale": many[::-1]},
        {"names": ("t", "z"), "scale": many.astype(np.float16)},
        {"names": ("t", "z"), "scale": np.float32([0.5, 0.25, 0.25])},
        {"names": ("t", "z"), "scale": None},
        {"names": ("s", "y"), "zero": np.ones(2, np.int64)},
    ):
        assert not grid.is_same(replace(grid, **other)), other  # type: ignore[arg-type]
    assert replace(grid, scale=one).is_same(replace(grid, scale=one, axis=1)), "one scale has no axis"


@pytest.mark.parametrize("kind", LEFT)
def test_nodes_that_have_to_stay(kind: str) -> None:
    text, left = LEFT[kind]
    weights = {"s": S, "s2": np.float32(0.2), "z": Z, "z2": np.int8(1)}
    made = strip(f"{HEAD} {{ {text} }}", **weights)
    assert made.left == left
    assert made.scales == {}
    assert made.proto == network(f"{HEAD} {{ {text} }}", **weights), "and all is as it was"


def test_integers_that_leave_the_network() -> None:
    made = strip("(float[2] x) => (int8[2] q, float[2] d) { " + PAIR + " }", s=S, z=Z)
    assert made.left["q"] == "q is an output of the network"
    made = strip("(int8[2] x) => (float[2] y) { d = DequantizeLinear(x, s, z) y = Relu(d) }", s=S, z=Z)
    assert made.left == {"d": f"x {NEITHER}"}


def test_a_node_without_a_scale_is_damage() -> None:
    proto = network(f"{HEAD} {{ y = Relu(x) }}")
    proto.graph.node.append(helper.make_node("QuantizeLinear", ["x"], ["q"], "broken"))
    with pytest.raises(ModelError, match=r"net\.onnx: QuantizeLinear 'broken' has no scale"):
        remove_qdq(model_of(proto))


# Weights ----------------------------------------------------------------------------------------------------------

KINDS = {"int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16, "int32": np.int32}


@given(st.sampled_from(sorted(KINDS)), st.sampled_from([None, 0, 1, -1]), st.integers(0, 2**32 - 1))
def test_stored_weights_become_what_dequantizelinear_makes_of_them(kind: str, axis: int | None, seed: int) -> None:
    random, dtype = np.random.default_rng(seed), KINDS[kind]
    limits = np.iinfo(dtype)
    w = random.integers(limits.min, limits.max, size=(3, 4, 1, 5), dtype=dtype, endpoint=True)
    channels = () if axis is None else (w.shape[axis],)
    s = random.uniform(1e-3, 1, size=channels).astype(np.float32)
    z = random.integers(0, 1 if kind == "int32" else 9, size=channels).astype(dtype)
    how = "" if axis is None else f"<axis = {axis}>"
    text = f"(float[3, 4, 1, 5] x) => (float[3, 4, 1, 5] y) {{ d = DequantizeLinear{how}(w, s, z) y = Add(x, d) }}"
    made = strip(text, 21, w=w, s=s, z=z)
    assert lines(made) == ["y = Add(x, d)"]
    assert list(weights_in(made.proto)) == ["d"]
    zeros = np.zeros((3, 4, 1, 5), np.float32)
    (expected,) = ReferenceEvaluator(network(text, 21, w=w, s=s, z=z)).run(None, {"x": zeros})
    np.testing.assert_array_equal(weights_in(made.proto)["d"] + zeros, expected)
    (theirs,) = on_onnxruntime(network(text, 21, w=w, s=s, z=z), x=zeros)
    np.testing.assert_array_equal(weights_in(made.proto)["d"] + zeros, theirs)


CODES = RANDOM.integers(-127, 128, size=(3, 3, 1, 1)).astype(np.int8)


@pytest.mark.parametrize(
    ("integers", "result", "name"),
    [
        ("w_quantized", "w_dequantized", "w"),
        ("w_quantized_0", "w_dequantized_0", "w"),
        ("w_quantized_", "w_DequantizeLinear_Output", "w"),
        ("x_quantized", "d", "d"),
        ("codes", "d", "d"),
    ],
)
def test_a_stored_weight_takes_its_own_name_where_that_is_known(integers: str, result: str, name: str) -> None:
    text = f"{HEAD} {{ {result} = DequantizeLinear({integers}, s, z) y = Conv(x, {result}, b) }}"
    made = strip(text, a=[1], **{integers: CODES}, s=S, z=Z, b=POINT[:, 0, 0, 0])
    assert lines(made) == [f"y = Conv(x, {name}, b)"]
    assert list(weights_in(made.proto)) == ["a", name, "b"], "in place of its integers"
    assert made.weights[name][0].stored
    assert made.scales == {}


def test_integers_that_two_operators_read() -> None:
    text = (
        f"{HEAD} {{ d = DequantizeLinear(w_quantized, s, z) e = DequantizeLinear(w_quantized, s, z)"
        " f = DequantizeLinear(w_quantized, s2, z) a = Conv(x, d) b = Conv(a, e) y = Conv(b, f) }"
    )
    made = strip(text, w_quantized=CODES, s=S, s2=np.float32(0.2), z=Z)
    assert lines(made) == ["a = Conv(x, w)", "b = Conv(a, w)", "y = Conv(b, f)"]
    assert list(weights_in(made.proto)) == ["w", "f"]
    np.testing.assert_array_equal(weights_in(made.proto)["f"], CODES * np.float32(0.2))


def test_a_stored_weight_that_is_an_output_keeps_that_name() -> None:
    made = strip(
        "(float[2] x) => (float[2] y, float[2] e) { d = DequantizeLinear(w_quantized, s, z)"
        " e = DequantizeLinear(w_quantized, s, z) y = Add(x, d) }", w_quantized=np.int8([5, -7]), s=S, z=Z,
    )  # fmt: skip
    assert lines(made) == ["y = Add(x, w)"]
    assert list(weights_in(made.proto)) == ["w", "e"]


def test_a_stored_weight_in_a_constant_node() -> None:
    made = strip(
        "(float[2] x) => (float[2] y, float[2] d) { c = Constant<value = int8[2] {5, -7}>()"
        " d = DequantizeLinear(c, s, z) y = Add(x, d) }", s=S, z=Z,
    )  # fmt: skip
    assert lines(made) == ["y = Add(x, d)"]
    np.testing.assert_array_equal(weights_in(made.proto)["d"], np.float32([5, -7]) * S)


STAYING: dict[str, tuple[onnx.TensorProto, dict[str, Any], str, str]] = {
    "int4": (helper.make_tensor("w", TensorProto.INT4, [2, 2], [1, 2, 3, 4]), {"s": S}, "", "its weights are int4"),
    "blocks": (
        numpy_helper.from_array(np.ones((4, 2), np.int8), "w"), {"s": np.ones((2, 2), np.float32)},
        "<axis = 0, block_size = 2>", "it has a scale for every 2 elements",
    ),
    "shape": (
        numpy_helper.from_array(np.ones((4, 2), np.int8), "w"), {"s": MANY}, "<axis = 0>",
        "its 3 scales do not fit its shape [4, 2]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STAYING)
def test_stored_weights_that_stay(kind: str) -> None:
    weight, scale, how, reason = STAYING[kind]
    proto = network(
        f"(float[4, 2] x) => (float[4, 2] y) {{ d = DequantizeLinear{how}(w, s) y = Add(x, d) }}", 21, **scale
    )
    proto.graph.initializer.append(weight)
    made = remove_qdq(model_of(proto))
    assert made.left == {"d": reason}
    assert made.proto == proto


def test_half_scales_make_half_weights() -> None:
    made = strip(
        "(float16[2, 3] x) => (float16[2, 3] y) { d = DequantizeLinear(w, s, z) q = QuantizeLinear(x, t, z)"
        " e = DequantizeLinear(q, t, z) y = Add(e, d) }", 19,
        w=np.int8([[1, 2, 3], [4, 5, 6]]), s=np.float16(0.1), t=np.float16(0.3), z=Z,
    )  # fmt: skip
    assert weights_in(made.proto)["d"].dtype == np.float16
    assert made.scales == {"x": float(np.float16(0.3))}


def test_weights_that_do_not_fit_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = network(f"{HEAD} {{ d = DequantizeLinear(w, s, z) y = Conv(x, d) }}", w=CODES, s=S, z=Z)
    monkeypatch.setattr(restoring_module, "LARGEST", proto.ByteSize() + 4 * 9)
    remove_qdq(model_of(proto))
    monkeypatch.setattr(restoring_module, "LARGEST", proto.ByteSize() + 4 * 9 - 1)
    with pytest.raises(ModelError, match=r"more than the .* GB that an ONNX file can hold"):
        remove_qdq(model_of(proto))


def test_external_weights_stay_where_they_are(tmp_path: Path) -> None:
    proto = network(f"{HEAD} {{ c = Conv(x, w) y = Conv(c, v) }}", w=POINT, v=2 * POINT)
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    model = load_model(tmp_path / "net.onnx")
    made = remove_qdq(Model(model.path, insert_qdq(model, {"x": 0.1, "c": 0.2}).proto, ""))
    assert made.proto == model.proto
    found = weight_deviations(Model(model.path, made.proto, ""), made.weights)
    assert found == {"w": pytest.approx(0, abs=1e-6), "v": pytest.approx(0, abs=1e-6)}


# Weights' own scales ----------------------------------------------------------------------------------------------


def deviations(text: str, w: Arrays, s: Any, axis: int | None = None, z: Any = None) -> dict[str, float]:
    how = "" if axis is None else f"<axis = {axis}>"
    z = np.zeros(np.shape(s), np.int8) if z is None else z
    pair = f"q = QuantizeLinear{how}(w, s, z) d = DequantizeLinear{how}(q, s, z)"
    made = remove_qdq(model_of(network(f"(float[8, 8] x) => (float[A, B] y) {{ {pair} {text} }}", w=w, s=s, z=z)))
    return weight_deviations(model_of(made.proto), made.weights)


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("y = MatMul(x, d)", 1),
        ("y = MatMul(d, x)", 0),
        ("y = Gemm(x, d)", 1),
        ("y = Gemm<transB = 1>(x, d)", 0),
        ("y = Gemm(d, x)", 0),
        ("y = Gemm<transA = 1>(d, x)", 1),
    ],
)
@given(factor=st.floats(0.5, 2.0))
@settings(max_examples=5)
def test_how_far_a_weights_scale_is_from_tensorrts(text: str, axis: int, factor: float) -> None:
    implicit = np.abs(SQUARE).max(axis=1 - axis) / np.float32(127)
    changed = implicit.copy()
    changed[3] *= np.float32(factor)
    assert deviations(text, SQUARE, changed, axis)["w"] == pytest.approx(abs(factor - 1), abs=1e-6)
    assert deviations(text, SQUARE, changed, axis - 2)["w"] == pytest.approx(abs(factor - 1), abs=1e-6)
    assert deviations(text, SQUARE, implicit, 1 - axis)["w"] == np.inf
    one = implicit.max()
    assert deviations(text, SQUARE, one)["w"] == pytest.approx((one / implicit).max() - 1, rel=1e-5)


def test_convolutions_and_their_channels() -> None:
    w = RANDOM.normal(size=(3, 4, 2, 2)).astype(np.float32)
    for op, axis in (("Conv", 0), ("ConvTranspose", 1)):
        scales = np.abs(np.moveaxis(w, axis, 0)).reshape(w.shape[axis], -1).max(1) / np.float32(127)
        text = (
            f"(float[1, {7 - w.shape[axis]}, 8, 8] x) => (float[A, B, C, D] y)"
            f" {{ q = QuantizeLinear<axis = {axis}>(w, s, z) d = DequantizeLinear<axis = {axis}>(q, s, z)"
            f" y = {op}(x, d) }}"
        )
        made = strip(text, w=w, s=scales, z=np.zeros(len(scales), np.int8))
        assert weight_deviations(model_of(made.proto), made.weights)["w"] < 1e-6


def test_a_weights_scale_that_constants_decide_is_compared_as_well() -> None:
    """PyTorch's exporter leaves the computation in the graph."""
    made = strip(
        "(float[8, 8] x) => (float[8, 8] y) { a = Abs(w) m = ReduceMax<axes = [0], keepdims = 0>(a) s = Div(m, k)"
        " q = QuantizeLinear<axis = 1>(w, s, z) d = DequantizeLinear<axis = 1>(q, s, z) y = MatMul(x, d) }",
        w=SQUARE, k=np.float32(127), z=np.zeros(8, np.int8),
    )  # fmt: skip
    assert lines(made) == ["y = MatMul(x, w)"]
    assert list(weights_in(made.proto)) == list(made.weights) == ["w"]
    assert weight_deviations(model_of(made.proto), made.weights)["w"] < 1e-6


def test_zeros_other_readers_and_zero_points() -> None:
    w = SQUARE.copy()
    w[:, 2] = 0
    scales = np.abs(w).max(axis=0) / np.float32(127)
    scales[2] = 77
    assert deviations("y = MatMul(x, d)", w, scales, 1)["w"] < 1e-6
    assert deviations("y = Add(x, d)", SQUARE, S) == {}
    assert deviations("y = MatMul(x, d)", SQUARE, S, z=np.int8(1)) == {"w": np.inf}


# Scales from neighbours -------------------------------------------------------------------------------------------


def propagated(
    text: str, scales: dict[str, float], without: set[str] | None = None, **weights: Any
) -> dict[str, float]:
    proto = network(text, **weights)
    onnx.checker.check_model(proto)
    watched = [name for name in watched_tensors(model_of(proto)).tensors if name not in (without or set())]
    return propagate_scales(proto.graph, scales, watched)


MOVES = {
    "MaxPool": "y = MaxPool<kernel_shape = [2, 2]>({})",
    "Reshape": "y = Reshape({}, shape)",
    "Flatten": "y = Flatten({})",
    "Transpose": "y = Transpose({})",
    "Unsqueeze": "y = Unsqueeze({}, axes)",
    "Identity": "y = Identity({})",
    "Slice": "y = Slice({}, axes, ends)",
    "Gather": "y = Gather({}, axes)",
    "DepthToSpace": "y = Expand({}, full)",
    "Pad": "y = Pad({}, pads)",
    "Pad with zero": "y = Pad({}, pads, nought)",
    "Pad by reflection": 'y = Pad<mode = "reflect">({}, pads)',
}
SHAPES = {
    "shape": [-1, 8], "axes": [0], "ends": [1], "full": [2, 3, 8, 8], "pads": [0, 0, 1, 1, 0, 0, 1, 1],
    "nought": np.float32(0), "one": np.float32(1),
}  # fmt: skip
ANY_SHAPE = "(float[2, 3, 8, 8] x) => (float y)"


@pytest.mark.parametrize("kind", MOVES)
def test_operators_that_move_values_keep_the_scale(kind: str) -> None:
    text = f"{ANY_SHAPE} {{ c = Sigmoid(x) {MOVES[kind].format('c')} }}"
    assert propagated(text, {"c": 0.25}, **SHAPES) == {"y": 0.25}
    assert propagated(text, {"y": 0.25}, **SHAPES) == {"c": 0.25}
    assert propagated(text, {"c": 0.5, "y": 0.25}, **SHAPES) == {}
    assert propagated(text, {"c": 0.25}, {"y"}, **SHAPES) == {}


def test_padding_with_something_else_makes_values() -> None:
    assert propagated(f"{ANY_SHAPE} {{ y = Pad(x, pads, one) }}", {"x": 0.5}, **SHAPES) == {}


@pytest.mark.parametrize("op", ["Sigmoid", "Softmax", "Neg", "ReduceMean", "GlobalAveragePool"])
def test_operators_that_make_values_tell_nothing(op: str) -> None:
    assert propagated(f"{ANY_SHAPE} {{ y = {op}(x) }}", {"x": 0.5}) == {}
    assert propagated(f"{ANY_SHAPE} {{ y = {op}(x) }}", {"y": 0.5}) == {}


def test_average_pools_follow_their_input_as_in_tensorrts_tables() -> None:
    text = f"{ANY_SHAPE} {{ y = AveragePool<kernel_shape = [2, 2]>(x) }}"
    assert propagated(text, {"x": 0.5}) == {"y": 0.5}
    assert propagated(text, {"y": 0.5}) == {}


def test_activations() -> None:
    text = f"{HEAD} {{ c = Conv(x, w) y = Relu(c) }}"
    assert propagated(text, {"y": 0.5}, w=POINT) == {"c": 0.5}
    assert propagated(text, {"c": 0.5}, w=POINT) == {"y": 0.5}
    both = (
        "(float[2, 3, 8, 8] x) => (float[2, 3, 8, 8] y, float[2, 3, 8, 8] z) { c = Conv(x, w) y = Relu(c) z = Neg(c) }"
    )
    assert propagated(both, {"y": 0.5}, w=POINT) == {}, "something else reads the input, beyond what is cut off"
    leaky = f"{HEAD} {{ c = Conv(x, w) y = LeakyRelu(c) }}"
    assert propagated(leaky, {"y": 0.5}, w=POINT) == {"c": 0.5}
    assert propagated(leaky, {"c": 0.5}, w=POINT) == {}


def test_concat_and_split() -> None:
    cat = "(float[2, 4] a, float[2, 4] b) => (float[2, 8] y) { y = Concat<axis = 1>(a, b) }"
    assert propagated(cat, {"y": 0.5, "a": 0.25}) == {"b": 0.5}
    assert propagated(cat, {"a": 0.25, "b": 0.125}) == {"y": 0.25}
    assert propagated(cat, {"a": 0.25}) == {}
    split = "(float[2, 8] x) => (float[2, 4] a, float[2, 4] b) { a, b = Split<axis = 1>(x) }"
    assert propagated(split, {"x": 0.5}) == {"a": 0.5, "b": 0.5}
    assert propagated(split, {"a": 0.5, "b": 0.25}) == {"x": 0.5}
    assert propagated(split, {"a": 0.5}) == {}, "the other part may be larger"


def test_a_part_tells_nothing_of_what_others_read() -> None:
    text = "(float[2, 8] x) => (float[1, 8] y, float[2, 8] z) {{ c = Neg(x) y = {} z = {}(c) }}"
    whole, part = "Reshape(c, shape)", "Slice(c, axes, ends)"
    assert propagated(text.format(part, "Neg"), {"y": 0.5}, **SHAPES) == {}
    assert propagated(text.format(part, "Identity"), {"y": 0.5}, **SHAPES) == {}
    assert propagated(text.format(part, "Identity"), {"y": 0.5, "z": 0.25}, **SHAPES) == {"c": 0.25}
    assert propagated(text.format(whole, "Neg"), {"y": 0.5}, **SHAPES) == {"c": 0.5}
    for scales in ({"y": 0.5, "z": 0.25}, {"y": 0.25, "z": 0.5}):
        assert propagated(text.format(whole, "Identity"), scales, **SHAPES) == {"c": 0.5}, "the largest"


def test_nothing_goes_through_a_tensor_that_wants_no_scale() -> None:
    text = f"{HEAD} {{ a = Identity(x) b = Identity(a) y = Identity(b) }}"
    assert propagated(text, {"x": 0.5}, {"b"}) == {"a": 0.5}


def test_a_long_way_in_both_directions() -> None:
    text = (
        "(float[2, 3, 8, 8] x) => (float[A, B] z, float[2, 3, 8, 8] y)"
        "{ t = Transpose(x) u = Identity(t) c = Conv(x, w) m = Identity(c) r = Relu(m) y = Identity(r) z = Flatten(u) }"
    )
    assert propagated(text, {"z": 0.5, "y": 0.25}, w=POINT) == {
        "x": 0.5,
        "t": 0.5,
        "u": 0.5,
        "c": 0.25,
        "m": 0.25,
        "r": 0.25,
    }


@given(networks())
@settings(max_examples=30)
def test_propagation_adds_and_never_changes(case: tuple[onnx.ModelProto, dict[str, float]]) -> None:
    proto, scales = case
    watched = watched_tensors(model_of(proto)).tensors
    found = propagate_scales(proto.graph, scales, watched)
    assert not found.keys() & scales.keys()
    assert list(found) == [name for name in watched if name in found]
    assert set(found.values()) <= set(scales.values())
    assert propagate_scales(proto.graph, {**scales, **found}, watched) == {}
    assert propagate_scales(proto.graph, scales, watched[::-1]) == found


# int8 −128, uint8 0: nothing negative has an integer

CUTTING = [np.int8(-128), np.uint8(0), np.int16(-32768), np.uint16(0)]
CUT = "q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z)"


def plain_of(proto: onnx.ModelProto) -> tuple[Arrays, list[str], StrippedNetwork]:
    """What the network without pairs computes, its operators, and all that was found."""
    made = remove_qdq(model_of(proto))
    onnx.checker.check_model(made.proto, full_check=True)
    x = np.random.default_rng(3).normal(size=(2, 3, 8, 8)).astype(np.float32)
    result = ReferenceEvaluator(made.proto).run(None, {"x": x})[0]
    return np.asarray(result), [node.op_type for node in made.proto.graph.node], made


@pytest.mark.parametrize("zero", CUTTING)
@pytest.mark.parametrize(
    ("rest", "plain"),
    [
        ("y = Conv(d, w)", "c = Conv(x, w) r = Relu(c) y = Conv(r, w)"),
        ("a = Conv(d, w) y = Add(a, c)", "c = Conv(x, w) r = Relu(c) a = Conv(r, w) y = Add(a, c)"),
        ("y = Identity(d)", "c = Conv(x, w) r = Relu(c) y = Identity(r)"),
        ("y = DequantizeLinear(q, s, z)", "c = Conv(x, w) y = Relu(c)"),
        ("m = MaxPool <kernel_shape = [1, 1]> (d) q2 = QuantizeLinear(m, s, z) d2 = DequantizeLinear(q2, s, z) "
         "y = Conv(d2, w)", "c = Conv(x, w) r = Relu(c) m = MaxPool <kernel_shape = [1, 1]> (r) y = Conv(r, w)"),
    ],
)  # fmt: skip
def test_a_relu_that_the_range_of_a_pair_stands_for_is_a_node_again(zero: Any, rest: str, plain: str) -> None:
    opset = 21
    proto = network(f"{HEAD} {{ c = Conv(x, w) {CUT} {rest} }}", opset, w=POINT, s=S, z=zero)
    expected, *_ = plain_of(network(f"{HEAD} {{ {plain} }}", opset, w=POINT, s=S))
    result, operators, made = plain_of(proto)
    np.testing.assert_array_equal(result, expected)
    assert operators.count("Relu") == len(made.clipped) == 1


def test_the_tensor_of_a_relu_that_comes_back_keeps_its_name_where_only_pairs_read_it() -> None:
    proto = network(f"{HEAD} {{ c = Conv(x, w) {CUT} y = Conv(d, w) }}", w=POINT, s=S, z=np.int8(-128))
    made = remove_qdq(model_of(proto))
    assert made.clipped == ("c",)
    assert "c" in made.unscaled


@pytest.mark.parametrize(
    "before",
    [
        "c = Relu(x)",
        "c = Sigmoid(x)",
        "c = Softmax(x)",
        "c = Mul(x, x)",
        "a = Relu(x) b = Sigmoid(x) c = Concat <axis = 1> (a, b)",
        "a = Abs(x) b = MaxPool <kernel_shape = [1, 1]> (a) c = Add(a, b)",
        "a = Clip(x, zero) c = Reshape(a, same)",
        "c = Max(zero, x)",
    ],
)
def test_no_relu_comes_back_where_nothing_is_negative_anyway(before: str) -> None:
    text = f"(float[2, 3, 8, 8] x) => (float[A, B, C, D] y) {{ {before} {CUT} y = Neg(d) }}"
    values = {"zero": np.float32(0), "same": np.array([2, 3, 8, 8])}
    proto = network(text, s=S, z=np.uint8(0), **{name: array for name, array in values.items() if name in before})
    assert remove_qdq(model_of(proto)).clipped == ()


@pytest.mark.parametrize(
    ("before", "clipped"),
    [
        ("c = Neg(x)", 1),
        ("c = Clip(x, low)", 1),
        ("a = Relu(x) c = Sub(a, x)", 1),
        ("a = Relu(x) c = Min(a, x)", 1),
        ("a = Relu(x) c = Add(a, low)", 1),
    ],
)
def test_a_relu_comes_back_where_something_may_be_negative(before: str, clipped: int) -> None:
    values = {"low": np.float32(-1)} if "low" in before else {}
    proto = network(f"{HEAD} {{ {before} {CUT} y = Neg(d) }}", s=S, z=np.uint8(0), **values)
    result, _, made = plain_of(proto)
    assert len(made.clipped) == clipped
    assert result.max() <= 0


@pytest.mark.parametrize("zero", [np.int8(0), np.int8(-127), np.uint8(128), np.uint8(1)])
def test_a_range_that_holds_negative_numbers_stands_for_no_relu(zero: Any) -> None:
    proto = network(f"{HEAD} {{ c = Conv(x, w) {CUT} y = Conv(d, w) }}", w=POINT, s=S, z=zero)
    assert remove_qdq(model_of(proto)).clipped == ()


def test_an_input_of_the_network_gets_no_relu() -> None:
    proto = network(f"{HEAD} {{ {CUT.replace('c,', 'x,')} y = Conv(d, w) }}", w=POINT, s=S, z=np.uint8(0))
    assert remove_qdq(model_of(proto)).clipped == ()


@pytest.mark.parametrize(
    "steps",
    [
        "j = Identity(i) k = DequantizeLinear<axis = 0>(j, t, o)",
        "j = Transpose<perm = [1, 0, 2, 3]>(p) k = DequantizeLinear<axis = 0>(j, t, o)",
        "j = Reshape(f, h) k = DequantizeLinear<axis = 0>(j, t, o)",
        "j = Identity(v) e = QuantizeLinear<axis = 0>(j, t, o) k = DequantizeLinear<axis = 0>(e, t, o)",
    ],
)
def test_weights_behind_nodes_come_back(steps: str) -> None:
    """What only passes a constant on is no obstacle on the way to the float network."""
    integers = np.random.default_rng(0).integers(-127, 128, (4, 3, 1, 1), dtype=np.int8)
    scale = np.linspace(0.01, 0.02, 4, dtype=np.float32)
    floats = integers * scale.reshape(4, 1, 1, 1)
    stored = {
        "i": integers,
        "p": integers.transpose(1, 0, 2, 3).copy(),
        "f": integers.ravel(),
        "h": np.array([4, 3, 1, 1]),
        "v": floats,
        "t": scale,
        "o": np.zeros(4, np.int8),
        "s": np.float32(0.05),
        "z": np.int8(0),
    }
    text = f"q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) {steps} y = Conv(d, k)"
    read = {name for name in stored if re.search(rf"[(, ]{name}[,)]", text)}
    head = "(float[2, 3, 8, 8] x) => (float[2, 4, 8, 8] y)"
    proto = network(f"{head} {{ {text} }}", **{name: stored[name] for name in read})
    model = Model(Path("net.onnx"), proto, "")
    made = remove_qdq(model)
    assert (dict(made.left), list(made.scales)) == ({}, ["x"])
    assert [node.op_type for node in made.proto.graph.node] == ["Conv"]
    (weight,) = made.proto.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(weight), floats)
    assert "this recovers it" in describe_way_back(model)

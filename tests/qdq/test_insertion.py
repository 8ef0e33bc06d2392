"""Q/DQ pairs in a float network: where they are, with which scales, and what the network computes with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantkit.errors import ModelError
from quantkit.graph import Model, load_model
from quantkit.preprocess import PRESETS
from quantkit.qdq.insert import insert_qdq, is_half
from quantkit.qdq.insertion import QuantizedNetwork, WeightForm
from quantkit.qdq.placement import Choices, Policy
from quantkit.qdq.reader import has_qdq
from quantkit.table import read_table
from tests.support.qdq import network, node_of, on_onnxruntime, pair, pairs, placed, reasons

RANDOM = np.random.default_rng(7)
CONV = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)
SQUARE = RANDOM.normal(size=(8, 8)).astype(np.float32)
POINT = RANDOM.normal(size=(3, 3, 1, 1)).astype(np.float32)
TINY = np.finfo(np.float32).tiny
IMAGE = "(float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y)"
SAME = "(float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y)"
ROWS = "(float[N, 8] x) => (float[N, 8] y)"
ANY = dict.fromkeys(("x", "y", "a", "b", "c", "d", "e", "r", "s"), 0.1)


@pytest.fixture
def loaded(tmp_path: Path) -> Any:
    def load(text: str, opset: int = 17, ir: int = 8, **weights: NDArray[Any]) -> Model:
        onnx.save(network(text, opset, ir, **weights), tmp_path / "net.onnx")
        return load_model(tmp_path / "net.onnx")

    return load


@pytest.fixture
def quantized(loaded: Any) -> Any:
    """Load, insert, and look whether the result is a model at all."""

    def insert(
        text: str,
        scales: Mapping[str, float] = ANY,
        exclude: Iterable[str] = (),
        opset: int = 17,
        ir: int = 8,
        **weights: NDArray[Any],
    ) -> QuantizedNetwork:
        made = insert_qdq(loaded(text, opset, ir, **weights), scales, Choices(exclude=frozenset(exclude)))
        onnx.checker.check_model(made.proto, full_check=True)
        return made

    return insert


def stripped(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The float network again: pairs and what they brought are removed, their consumers read the tensor itself."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    found = pairs(proto)
    source = {p.result: p.tensor for p in found}
    quantizers = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    brought = {name for node in quantizers for name in node.input[1:]}
    nodes = [n for n in copy.graph.node if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    for node in nodes:
        for k, name in enumerate(node.input):
            node.input[k] = source.get(name, name)
    weights = [tensor for tensor in copy.graph.initializer if tensor.name not in brought]
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend(weights)
    return copy


def through(x: NDArray[Any], scale: Any) -> NDArray[Any]:
    """Quantized and dequantized: half to even, −128 … 127."""
    steps = np.clip(np.rint(np.divide(x, scale, dtype=np.float32)), -128, 127)
    return (steps * np.asarray(scale)).astype(np.float32)


# Scales -----------------------------------------------------------------------------------------------------------

WORDS = st.integers(0x00800000, 0x7F7FFFFF).map(lambda word: float(np.uint32(word).view(np.float32)))


@given(st.tuples(WORDS, WORDS))
def test_an_activations_scale_is_the_given_float32(scales: tuple[float, float]) -> None:
    with TemporaryDirectory() as folder:
        onnx.save(network(f"{SAME} {{ c = Conv(x, w) y = Conv(c, w) }}", w=POINT), f"{folder}/net.onnx")
        made = insert_qdq(load_model(f"{folder}/net.onnx"), {"x": scales[0], "c": scales[1]})
    assert made.pairs == {"x": scales[0], "c": scales[1]}
    for name, scale in made.pairs.items():
        assert pair(made.proto, name).scale.tobytes() == np.float32(scale).tobytes()
        assert pair(made.proto, name).scale.shape == ()


def test_a_scale_that_is_no_normal_number_is_none(quantized: Any) -> None:
    """It would lose digits, and TensorRT refuses it."""
    made = quantized(f"{SAME} {{ c = Conv(x, w) y = Conv(c, w) }}", {"x": 0.1, "c": 1e-42}, w=POINT)
    assert (placed(made), reasons(made)) == (["x"], {"y": "its scale is too small for the type of the tensor: c"})


WEIGHTS: list[tuple[str, str, tuple[int, ...], int]] = [
    (IMAGE, "y = Conv(x, w)", (4, 3, 3, 3), 0),
    ("(float[N, 4, 8, 8] x) => (float[N, 6, 8, 8] y)", "y = Conv<group = 2>(x, w)", (6, 2, 1, 1), 0),
    ("(float[N, 3, 8, 8] x) => (float[N, 5, 9, 9] y)", "y = ConvTranspose(x, w)", (3, 5, 2, 2), 1),
    ("(float[N, 4, 8, 8] x) => (float[N, 6, 9, 9] y)", "y = ConvTranspose<group = 2>(x, w)", (4, 3, 2, 2), 1),
    ("(float[N, 8] x) => (float[N, 5] y)", "y = Gemm(x, w)", (8, 5), 1),
    ("(float[N, 8] x) => (float[N, 5] y)", "y = Gemm<transB = 1>(x, w)", (5, 8), 0),
    ("(float[8, N] x) => (float[5, N] y)", "y = Gemm(w, x)", (5, 8), 0),
    ("(float[8, N] x) => (float[5, N] y)", "y = Gemm<transA = 1>(w, x)", (8, 5), 1),
    ("(float[N, 8] x) => (float[N, 5] y)", "y = MatMul(x, w)", (8, 5), 1),
    ("(float[8, N] x) => (float[5, N] y)", "y = MatMul(w, x)", (5, 8), 0),
]


@pytest.mark.parametrize(("head", "node", "shape", "axis"), WEIGHTS)
def test_weights_are_quantized_per_output_channel(
    quantized: Any, head: str, node: str, shape: tuple[int, ...], axis: int
) -> None:
    weight = (RANDOM.normal(size=shape) * 3).astype(np.float32)
    np.moveaxis(weight, axis, 0)[1] = 0
    made = quantized(f"{head} {{ {node} }}", w=weight)
    found = pair(made.proto, "w")
    others = tuple(d for d in range(len(shape)) if d != axis)
    expected = np.abs(weight).max(axis=others) / np.float32(127)
    expected[1] = TINY
    assert found.axis == axis
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(found.scale, expected)
    made.proto.graph.output.append(helper.make_tensor_value_info(found.result, TensorProto.FLOAT, list(shape)))
    x = RANDOM.normal(size=[d.dim_value or 3 for d in made.proto.graph.input[0].type.tensor_type.shape.dim])
    _, there = on_onnxruntime(made.proto, x=x.astype(np.float32))
    np.testing.assert_array_equal(there, through(weight, np.expand_dims(expected, others)))


@pytest.mark.parametrize("form", [WeightForm.FLOAT, WeightForm.INT8])
@pytest.mark.parametrize("node", ["MatMul(x, w)", "MatMul(w, x)"])
def test_a_stack_of_matrices_has_one_scale(loaded: Any, node: str, form: WeightForm) -> None:
    """onnxruntime's own optimizations make operators of it that take no more than one for each matrix."""
    weight = RANDOM.normal(size=(2, 8, 8)).astype(np.float32)
    made = insert_qdq(loaded(f"(float[2, 8, 8] x) => (float[2, 8, 8] y) {{ y = {node} }}", w=weight), ANY, None, form)
    assert made.weights == {"w": None}
    x = RANDOM.normal(size=(2, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(made.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], on_onnxruntime(made.proto, x=x)[0], rtol=1e-3, atol=1e-3)


def test_a_bias_stays_float(quantized: Any) -> None:
    made = quantized(f"{IMAGE} {{ y = Conv(x, w, b) }}", w=CONV, b=np.ones(4, np.float32))
    assert [p.tensor for p in pairs(made.proto)] == ["x", "w"]
    assert node_of(made.proto, "y").input[2] == "b"


def test_a_vector_is_quantized_per_tensor_or_not_at_all(quantized: Any) -> None:
    """Its one axis is what is summed over."""
    text = "(float[N, 3, 8] x) => (float[N, 3, 4] y, float[N, 3] z) { y = MatMul(x, w) z = MatMul(x, v) }"
    made = quantized(text, w=SQUARE[:, :4], v=SQUARE[0])
    assert all(p.scale.shape == () for p in pairs(made.proto) if p.tensor == "v")


# Places -----------------------------------------------------------------------------------------------------------


def test_several_consumers_share_a_pair(quantized: Any) -> None:
    made = quantized(f"{SAME} {{ a = Conv(x, v) b = Conv(x, w) r = Conv(x, w) c = Concat<axis = 1>(a, b, r)"
                     " y = Conv(c, u) }", w=POINT, v=POINT + 1, u=np.ones((3, 9, 1, 1), np.float32))  # fmt: skip
    assert placed(made) == ["x", "c"]
    assert pair(made.proto, "x").readers == ["Conv"] * 3
    shared = [p for p in pairs(made.proto) if p.tensor == "w"]
    assert [p.readers for p in shared] == [["Conv"], ["Conv"]], "TensorRT 8.6 runs what shares a pair in float"
    scales = [
        node.input[1:] for node in made.proto.graph.node if node.op_type == "QuantizeLinear" and "w" in node.input
    ]
    assert scales[0] == scales[1], "its scales are in the file once"
    assert [p.tensor for p in pairs(made.proto)].count("v") == 1


def test_weights_that_two_operators_read_along_other_axes(quantized: Any) -> None:
    made = quantized(f"{SAME} {{ a = Conv(x, w) y = ConvTranspose(a, w) }}", w=POINT)
    assert sorted((p.tensor, p.axis) for p in pairs(made.proto) if p.axis is not None) == [("w", 0), ("w", 1)]


RESIDUALS = {
    "identity": ("a = Relu(x) b = Conv(a, w) e = Add(b, a)", "a", 1),
    "identity, swapped": ("a = Relu(x) b = Conv(a, w) e = Add(a, b)", "a", 0),
    "batch normalization": ("b = Conv(x, w) c = BatchNormalization(b, g, h, h, g) e = Add(c, x)", "x", 1),
    "projection": ("a = Conv(x, w) b = Relu(a) c = Conv(b, w) d = Conv(x, v) e = Add(c, d)", "d", 1),
    "projection, swapped": ("a = Conv(x, w) b = Relu(a) c = Conv(b, w) d = Conv(x, v) e = Add(d, c)", "d", 0),
    "as long": ("a = Conv(x, w) b = Conv(x, v) e = Add(a, b)", "b", 1),
}


@pytest.mark.parametrize("kind", RESIDUALS)
def test_of_a_residual_add_only_the_skip_gets_a_pair(quantized: Any, kind: str) -> None:
    nodes, skip, place = RESIDUALS[kind]
    ones = {name: np.ones(3, np.float32) for name in "gh" if f", {name}" in nodes}
    weights = {name: POINT for name in "wv" if f", {name})" in nodes}
    made = quantized(f"{SAME} {{ {nodes} f = Relu(e) y = Conv(f, u) }}", {**ANY, "f": 0.1}, u=POINT, **weights, **ones)
    add = node_of(made.proto, "e")
    assert add.input[place] == pair(made.proto, skip).result
    assert add.input[1 - place] == nodes.partition("Add(")[2].rstrip(")").split(", ")[1 - place]
    assert made.left == {}


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Conv(x, w) b = Relu(a) c = Sigmoid(a) y = Add(b, c)",
        "a = Conv(x, w) y = Add(a, g)",
        "a = Conv(x, w) y = Mul(a, x)",
    ],
    ids=["no convolution", "constant", "no Add"],
)
def test_other_elementwise_operators_get_none(quantized: Any, nodes: str) -> None:
    constants = {"g": np.ones((3, 1, 1), np.float32)} if "g)" in nodes else {}
    assert placed(quantized(f"{SAME} {{ {nodes} }}", w=POINT, **constants)) == ["x"]


def test_an_add_whose_convolution_stays_float_stays_float(quantized: Any) -> None:
    made = quantized(f"{SAME} {{ a = Conv(x, w) b = Relu(a) c = Conv(b, v) y = Add(c, b) }}", {**ANY}, "c",
                     w=POINT, v=POINT)  # fmt: skip
    assert placed(made) == ["x"]


def test_a_product_of_two_activations_stays_float(quantized: Any) -> None:
    made = quantized("(float[N, 8, 8] x) => (float[N, 8, 8] y)"
                     "{ a = MatMul(x, w) b = Transpose<perm = [0, 2, 1]>(x) y = MatMul(a, b) }", w=SQUARE)  # fmt: skip
    assert placed(made) == ["x"]
    assert list(node_of(made.proto, "y").input) == ["a", "b"]


def test_what_is_added_to_such_a_product_stays_float(quantized: Any) -> None:
    """An attention mask of −10⁹, say."""
    made = quantized("(float[N, 8, 8] x, float[N, 8, 8] s) => (float[N, 8, 8] y)"
                     "{ a = MatMul(x, w) b = MatMul(a, x) y = Add(b, s) }", w=SQUARE)  # fmt: skip
    assert placed(made) == ["x"]


POOLED = "(float[N, 3, 8, 8] x) => (float[N, 5, 1, 1] y)"
POOLS = ["GlobalAveragePool(r)", "AveragePool<kernel_shape = [6, 6]>(r)"]
OUT = RANDOM.normal(size=(5, 4, 1, 1)).astype(np.float32)


@pytest.mark.parametrize("pool", POOLS)
def test_average_pools_have_pairs_on_both_sides(quantized: Any, pool: str) -> None:
    made = quantized(f"{POOLED} {{ c = Conv(x, w) r = Relu(c) p = {pool} y = Conv(p, v) }}", {**ANY, "p": 0.1},
                     w=CONV, v=OUT)  # fmt: skip
    assert placed(made) == ["x", "r", "p"]
    assert node_of(made.proto, "p").input[0] == pair(made.proto, "r").result


@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_that_hands_on_float_stays_float(quantized: Any, pool: str) -> None:
    made = quantized("(float[N, 3, 8, 8] x) => (float[N, 4, 1, 1] y)"
                     f"{{ c = Conv(x, w) r = Relu(c) p = {pool} y = Sigmoid(p) }}", w=CONV)  # fmt: skip
    assert placed(made) == ["x"]


def test_a_pool_of_what_is_needed_in_float_stays_float(quantized: Any) -> None:
    made = quantized("(float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] s, float[N, 5, 1, 1] y)"
                     "{ c = Conv(x, w) r = Relu(c) s = Sigmoid(r) p = GlobalAveragePool(r) y = Conv(p, v) }",
                     {**ANY, "p": 0.1}, w=CONV, v=OUT)  # fmt: skip
    assert placed(made) == ["x", "p"]


@pytest.mark.parametrize("middle", ["Relu(c)", "MaxPool<kernel_shape = [1, 1]>(c)", "Reshape(c, k)", "Sigmoid(c)"])
def test_everything_else_gets_none(quantized: Any, middle: str) -> None:
    constants = {"k": np.array([0, 3, 8, 8])} if "k)" in middle else {}
    made = quantized(f"{SAME} {{ c = Conv(x, w) a = {middle} y = Conv(a, v) }}", w=POINT, v=POINT, **constants)
    assert placed(made) == ["x", "a"]


def test_outputs_keep_names_and_types(quantized: Any) -> None:
    """One is read by a quantized operator as well."""
    text = "(float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] c, float[N, 3, 8, 8] y) { c = Conv(x, w) y = Conv(c, w) }"
    made = quantized(text, w=POINT)
    assert placed(made) == ["x", "c"]
    assert made.proto.graph.output == network(text).graph.output
    assert made.proto.graph.input == network(text).graph.input
    assert node_of(made.proto, "c").op_type == "Conv"


def test_weights_that_are_computed_are_quantized_or_the_operator_is_left(quantized: Any) -> None:
    """An activation with a pair before float weights loses precision and gains nothing."""
    made = quantized(f"{ROWS} {{ a = MatMul(x, w) k = Transpose(v) y = MatMul(a, k) }}", w=SQUARE, v=SQUARE)
    reader = node_of(made.proto, "y")
    assert len({name for name in reader.input if name in {p.result for p in pairs(made.proto)}}) in (0, 2)
    assert ("y" in made.left) == (list(reader.input) == ["a", "k"])


@pytest.mark.parametrize("kind", ["Constant", "Identity"])
def test_weights_by_another_name_are_quantized(quantized: Any, kind: str) -> None:
    source = "k = Identity(v)"
    if kind == "Constant":
        values = ", ".join(map(str, SQUARE.ravel()))
        source = f"k = Constant<value = float[8, 8] {{ {values} }}>()"
    weights = {"v": SQUARE} if kind == "Identity" else {}
    made = quantized(f"{ROWS} {{ {source} y = MatMul(x, k) }}", **weights)
    np.testing.assert_array_equal(pair(made.proto, "k").scale, np.abs(SQUARE).max(axis=0) / np.float32(127))


# What stays float -------------------------------------------------------------------------------------------------


ZERO = "zero throughout the calibration data"


@pytest.mark.parametrize(("scales", "why"), [({"x": 0.1}, "no scale"), ({"x": 0.1, "c": 0.0}, ZERO)])
def test_without_a_scale_an_operator_stays_float(quantized: Any, scales: dict[str, float], why: str) -> None:
    made = quantized(f"{SAME} {{ c = Conv(x, w) y = Conv(c, w) }}", scales, w=POINT)
    assert placed(made) == ["x"]
    assert reasons(made) == {"y": f"{why}: c"}
    assert list(node_of(made.proto, "y").input) == ["c", "w"]


def test_nodes_can_be_excluded(quantized: Any) -> None:
    text = f"{SAME} {{ c = Conv(x, w) r = Relu(c) y = Conv(r, v) }}"
    made = quantized(text, exclude=["y", "r"], w=POINT, v=POINT)
    assert (placed(made), reasons(made)) == (["x"], {"y": "excluded"})


def test_a_node_is_excluded_by_its_name(loaded: Any) -> None:
    model = loaded(f"{SAME} {{ c = Conv(x, w) y = Conv(c, w) }}", w=POINT)
    model.proto.graph.node[1].name = "/head/Conv"
    assert reasons(insert_qdq(model, ANY, Choices(exclude=frozenset({"/head/Conv"})))) == {"/head/Conv": "excluded"}
    assert insert_qdq(model, ANY, Choices(exclude=frozenset({"y"}))).left == {}


def test_float16_parts_have_scales_of_their_type(quantized: Any) -> None:
    """From opset 19 on QuantizeLinear takes float16, with a scale of the input's type."""
    text = ("(float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y)"
            "{ c = Conv(x, w) h = Cast<to = 10>(c) i = Conv(h, v) y = Cast<to = 1>(i) }")  # fmt: skip
    proto = quantized(text, {**ANY, "h": 0.1}, w=POINT, v=POINT.astype(np.float16)).proto
    assert {o.version for o in proto.opset_import} == {19}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    kinds = {n.input[0]: values[n.input[1]].dtype for n in proto.graph.node if n.op_type == "QuantizeLinear"}
    assert kinds == {"x": np.float32, "w": np.float32, "h": np.float16, "v": np.float16}


def test_tensors_of_other_types_get_no_pair(quantized: Any) -> None:
    text = ("(float[N, 3, 8, 8] x) => (double[N, 3, 8, 8] y)"
            "{ c = Conv(x, w) r = Cast<to = 11>(c) y = Conv(r, v) }")  # fmt: skip
    made = quantized(text, {**ANY, "r": 0.1}, w=POINT, v=POINT.astype(np.float64))
    assert (placed(made), reasons(made)) == (["x"], {"y": "its weights are not float"})


@pytest.mark.parametrize("scales", [{"x": 0.1, "c": 0.1}, {"x": 0.1, "c": 0.1, "r": 0.0}])
def test_pools_and_skips_without_a_scale_are_told(quantized: Any, scales: dict[str, float]) -> None:
    text = (
        "(float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y, float[N, 3, 1, 1] z)"
        "{ r = Relu(x) c = Conv(x, w) a = Add(c, r) y = Conv(a, w) s = Relu(c) p = GlobalAveragePool(s)"
        " z = Conv(p, w) }"
    )
    made = quantized(text, {**scales, "a": 0.1, "p": 0.1}, w=POINT)
    why = ZERO if "r" in scales else "no scale"
    assert (placed(made), reasons(made)) == (["x", "a", "p"], {"a": f"{why}: r", "p": "no scale: s"})


@pytest.mark.parametrize(
    ("scales", "why", "remedy"),
    [
        ({}, "no scale: x", "use scales of this network"),
        ({"other": 0.1}, "no scale: x", "use scales of this network"),
        ({"x": 0.0}, f"{ZERO}: x", "give samples on which that tensor is not zero"),
    ],
)
def test_nothing_to_quantize_is_an_error(loaded: Any, scales: dict[str, float], why: str, remedy: str) -> None:
    wanted = rf"net\.onnx: no operator of this network can be quantized: {why}\n"
    with pytest.raises(ModelError, match=wanted) as caught:
        insert_qdq(loaded(f"{IMAGE} {{ y = Conv(x, w) }}", w=CONV), scales)
    assert remedy in caught.value.remedy


DOUBLE = "(double[N, 3, 8, 8] x) => (double[N, 3, 8, 8] y)"


def test_the_reasons_are_named_each_once(loaded: Any) -> None:
    model = loaded(f"{DOUBLE} {{ c = Conv(x, w) y = Conv(c, w) }}", w=POINT.astype(np.float64))
    with pytest.raises(ModelError, match=r"can be quantized: its weights are not float\n"):
        insert_qdq(model, {"x": 0.1, "c": 0.1})
    with pytest.raises(ModelError, match=r"can be quantized: excluded; no scale: c\n"):
        insert_qdq(
            loaded(f"{SAME} {{ c = Conv(x, w) y = Conv(c, w) }}", w=POINT), {"x": 0.1}, Choices(exclude=frozenset("c"))
        )
    with pytest.raises(ModelError, match="can be quantized: it has no weighted operators"):
        insert_qdq(loaded(f"{SAME} {{ y = Relu(x) }}"), {"x": 0.1})


FEW = "(float[3, 3] x) => (float[3, 3] y)"


@pytest.mark.parametrize(
    ("text", "choices", "remedy"),
    [
        ("y = Relu(x)", Choices(), "leave it float: INT8 pays in"),
        ("v = Add(w, w) y = MatMul(x, v)", Choices(), "with its weights as initializers"),
        ("a = MatMul(x, w) b = MatMul(a, w) y = MatMul(b, w)", Choices(exclude=frozenset("y")), "use scales of this"),
        ("a = MatMul(x, w) b = MatMul(a, w) y = MatMul(b, w)", Choices(exclude=frozenset("ab")), "some of the exclus"),
        ("y = MatMul(x, x)", Choices(), "--policy all, or --include"),
        ("y = MatMul(x, w)", Choices(Policy.CONV_ONLY), "leave out --policy conv-only"),
    ],
)
def test_the_remedy_fits_the_most_frequent_reason(loaded: Any, text: str, choices: Choices, remedy: str) -> None:
    weights = {"w": POINT[:, :, 0, 0]} if "w" in text else {}
    with pytest.raises(ModelError, match="no operator of this network can be quantized") as caught:
        insert_qdq(loaded(f"{FEW} {{ {text} }}", **weights), {}, choices)
    assert remedy in caught.value.remedy
    assert ("exclus" in caught.value.remedy) == ("exclus" in remedy)


@pytest.mark.parametrize(
    ("kinds", "half"), [("h", True), ("hi", True), ("hf", False), ("f", False), ("i", False), ("", False)]
)
def test_a_network_is_half_where_its_weights_are(loaded: Any, kinds: str, half: bool) -> None:
    types = {"h": np.float16, "f": np.float32, "i": np.int64}
    weights = {kind: np.ones(1, types[kind]) for kind in kinds}
    assert is_half(loaded(f"{SAME} {{ y = Relu(x) }}", **weights)) is half


# The model --------------------------------------------------------------------------------------------------------


def test_a_network_with_pairs_is_known(loaded: Any) -> None:
    model = loaded(f"{IMAGE} {{ y = Conv(x, w) }}", w=CONV)
    assert not has_qdq(model)
    assert has_qdq(Model(model.path, insert_qdq(model, ANY).proto, ""))


def names_in(proto: onnx.ModelProto) -> list[str]:
    """Every name that something makes."""
    graph = proto.graph
    return [
        *(v.name for v in graph.input),
        *(t.name for t in graph.initializer),
        *(name for node in graph.node for name in node.output),
    ]


TAKEN = ("x_scale", "x_zero_point", "x_quantized", "x_dequantized", "w_scale_0", "w_quantized_0", "x_scale_")


def test_names_do_not_clash_with_tensors(quantized: Any) -> None:
    relus = " ".join(f"{name} = Relu(x)" for name in TAKEN)
    made = quantized(f"{IMAGE} {{ {relus} y = Conv(x, w) }}", w=CONV)
    assert len(set(names_in(made.proto))) == len(names_in(made.proto))
    assert list(made.pairs) == ["x"]


def test_names_do_not_clash_with_inputs_that_nothing_reads(quantized: Any) -> None:
    made = quantized("(float[N, 3, 8, 8] x, float[1] x_scale) => (float[N, 4, 6, 6] y) { y = Conv(x, w) }", w=CONV)
    assert len(set(names_in(made.proto))) == len(names_in(made.proto))


def test_names_do_not_clash_with_tensors_inside_subgraphs(quantized: Any) -> None:
    branches = ", ".join(
        f"{branch}_branch = {branch} () => (float[N, 4, 6, 6] {name}) {{ {name} = Relu(c) }}"
        for branch, name in (("then", "x_scale"), ("else", "x_quantized"))
    )
    quantized("(float[N, 3, 8, 8] x, bool b) => (float[N, 4, 6, 6] y)"
              f"{{ c = Conv(x, w) y = If(b)<{branches}> }}", w=CONV)  # fmt: skip


def test_names_of_nodes_are_unique(loaded: Any) -> None:
    """TensorRT's layers take them."""
    model = loaded(f"{IMAGE} {{ c = Relu(x) y = Conv(x, w) }}", w=CONV)
    model.proto.graph.node[0].name = "x_Quantize"
    names = [node.name for node in insert_qdq(model, ANY).proto.graph.node if node.name]
    assert len(set(names)) == len(names)


OLD = {
    6: (3, "c = Conv(x, w) r = Relu(c) y = Conv(r, v)"),
    8: (4, "c = Conv(x, w) d = Flatten(c) r = Reshape(d, k) y = Conv(r, v)"),
    9: (4, "c = Conv(x, w) d = BatchNormalization(c, g, g, g, g) r = Relu(d) y = Conv(r, v)"),
    11: (6, "c = Conv(x, w) r = Clip(c, l, h) y = Conv(r, v)"),
    12: (7, "c = Conv(x, w) s = Softmax<axis = 1>(c) m = Mul(c, s) r = Relu(m) y = Conv(r, v)"),
}


@pytest.mark.parametrize("opset", OLD)
def test_an_old_operator_set_is_raised(loaded: Any, opset: int) -> None:
    ir, nodes = OLD[opset]
    weights: dict[str, NDArray[Any]] = {"w": POINT, "v": POINT}
    if "k)" in nodes:
        weights["k"] = np.array([-1, 3, 8, 8])
    if "g)" in nodes:
        weights["g"] = np.abs(POINT[:, 0, 0, 0])
    if "h)" in nodes:
        weights |= {"l": np.float32(-1), "h": np.float32(1)}
    listed = "".join(f", float[3, 3, 1, 1] {name}" for name in "wv") if ir < 4 else ""
    model = loaded(f"(float[2, 3, 8, 8] x{listed}) => (float[2, 3, 8, 8] y) {{ {nodes} }}", opset, ir, **weights)
    x = np.random.default_rng(opset).uniform(-2, 2, size=(2, 3, 8, 8)).astype(np.float32)
    seen = onnx.ModelProto()
    seen.CopyFrom(model.proto)
    seen.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [2, 3, 8, 8]))
    theirs, r = on_onnxruntime(seen, x=x)
    made = insert_qdq(model, {"x": 2 / 127, "r": float(np.abs(r).max()) / 127})
    onnx.checker.check_model(made.proto, full_check=True)
    assert placed(made) == ["x", "r"]
    assert {o.version for o in made.proto.opset_import} == {13}
    (ours,) = on_onnxruntime(made.proto, x=x)
    assert np.abs(ours - theirs).max() <= 0.05 * np.abs(theirs).max()
    (bare,) = on_onnxruntime(stripped(made.proto), x=x)
    np.testing.assert_allclose(bare, theirs, rtol=1e-6, atol=1e-7)


def test_an_operator_set_that_cannot_be_raised(loaded: Any) -> None:
    model = loaded(f"{IMAGE} {{ c = Conv(x, w) y = Mystery(c) }}", 11, 6, w=CONV)
    with pytest.raises(ModelError, match=r"has opset 11, which cannot be converted to 13") as caught:
        insert_qdq(model, ANY)
    assert "opset" in caught.value.remedy


@pytest.mark.parametrize("opset", [11, 17])
def test_external_weights_stay_external(tmp_path: Path, opset: int) -> None:
    proto = network("(float[2, 3, 8, 8] x) => (float[2, 4, 6, 6] y) { c = Relu(x) y = Conv(c, w) }", opset, 6, w=CONV)
    inside = tmp_path / "inside.onnx"
    onnx.save(proto, inside)
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    made, whole = (insert_qdq(load_model(path), ANY).proto for path in (tmp_path / "net.onnx", inside))
    (weight,) = (tensor for tensor in made.graph.initializer if tensor.name == "w")
    assert weight.data_location == TensorProto.EXTERNAL
    assert {entry.key: entry.value for entry in weight.external_data}["location"] == "net.data"
    assert not weight.raw_data
    onnx.save(made, tmp_path / "qdq.onnx")
    onnx.checker.check_model(str(tmp_path / "qdq.onnx"), full_check=True)
    x = RANDOM.normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(on_onnxruntime(tmp_path / "qdq.onnx", x=x), on_onnxruntime(whole, x=x))


# Laws -------------------------------------------------------------------------------------------------------------

STEPS: Sequence[str] = (
    "{new} = Conv({old}, {w})", "{new} = Conv({old}, {w}, bias)", "{new} = ConvTranspose({old}, {w})",
    "{new} = Relu({old})", "{new} = Add({old}, {other})", "{new} = Add({other}, {old})", "{new} = Mul({old}, {other})",
    "{new} = AveragePool<kernel_shape = [1, 1]>({old})", "{new} = MaxPool<kernel_shape = [1, 1]>({old})",
    "{new} = MatMul({old}, {w}_square)", "{new} = MatMul({w}_square, {old})", "{new} = MatMul({old}, {other})",
    "{new} = BatchNormalization({old}, bias, bias, bias, ones)",
)  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, float], set[str]]:
    """A network over tensors of one shape, a table for some of them, and nodes to leave."""
    tensors, nodes = ["x"], []
    for index in range(draw(st.integers(1, 9))):
        step = "{new} = Conv({old}, {w})" if index == 0 else draw(st.sampled_from(STEPS))
        new = f"t{index}"
        other, w = draw(st.sampled_from(tensors)), draw(st.sampled_from(["w", "v"]))
        nodes.append(step.format(new=new, old=tensors[-1], other=other, w=w))
        tensors.append(new)
    text = " ".join(nodes).replace(f"{tensors[-1]} =", "y =")
    proto = network(
        f"(float[2, 3, 8, 8] x) => (float[2, 3, 8, 8] y) {{ {text} }}", w=POINT, v=2 * POINT, bias=POINT[:, 0, 0, 0],
        ones=np.ones(3, np.float32), w_square=SQUARE, v_square=2 * SQUARE,
    )  # fmt: skip
    scales = {name: draw(st.sampled_from([0.0, 2**-7, 0.03, 0.5])) for name in tensors[1:] if draw(st.booleans())}
    return proto, {"x": 0.1, **scales}, draw(st.sets(st.sampled_from(tensors[1:]), max_size=2)) - {"t0", "y"}


@given(networks())
def test_pairs_can_be_taken_out_again(case: tuple[onnx.ModelProto, dict[str, float], set[str]]) -> None:
    proto, scales, exclude = case
    with TemporaryDirectory() as folder:
        onnx.save(proto, f"{folder}/net.onnx")
        model = load_model(f"{folder}/net.onnx")
        before = model.proto.SerializeToString(deterministic=True)
        made = insert_qdq(model, scales, Choices(exclude=frozenset(exclude)))
        again = insert_qdq(model, dict(reversed(scales.items())), Choices(exclude=frozenset(exclude)))
    assert model.proto.SerializeToString(deterministic=True) == before, "nobody edits a model"
    assert made.proto.SerializeToString() == again.proto.SerializeToString()
    onnx.checker.check_model(made.proto, full_check=True)
    assert stripped(made.proto) == model.proto
    assert len(set(names_in(made.proto))) == len(names_in(made.proto))
    placed(made)
    assert all(scale != 0 and scale in scales.values() for scale in made.pairs.values())
    for node in made.proto.graph.node:
        if node.name in exclude or node.output[0] in exclude:
            assert not any(name in {p.result for p in pairs(made.proto)} for name in node.input)


# What is computed -------------------------------------------------------------------------------------------------


def dyadic(shape: tuple[int, ...], axis: int, random: np.random.Generator) -> NDArray[Any]:
    """Weights k/128 whose channels reach 127/128: their scales are 2⁻⁷, and products with them are exact."""
    weight = random.integers(-127, 128, size=shape).astype(np.float32) / 128
    np.moveaxis(weight, axis, -1)[(0,) * (len(shape) - 1)] = 127 / 128
    return weight


EXACT: dict[str, tuple[str, dict[str, tuple[tuple[int, ...], int]]]] = {
    "Conv": ("y = Conv(x, w)", {"w": ((4, 3, 3, 3), 0)}),
    "ConvTranspose": ("y = ConvTranspose(x, w)", {"w": ((3, 5, 2, 2), 1)}),
    "MatMul": ("y = MatMul(x, w)", {"w": ((8, 5), 1)}),
    "MatMul on the left": ("y = MatMul(w, x)", {"w": ((5, 8), 0)}),
    "residual": ("a = Conv(x, w) y = Add(a, x)", {"w": ((3, 3, 1, 1), 0)}),
    "pool": ("a = Conv(x, w) r = Relu(a) y = AveragePool<kernel_shape = [2, 2]>(r)", {"w": ((4, 3, 3, 3), 0)}),
    "two": ("c = Conv(x, w) r = Relu(c) y = Conv(r, v)", {"w": ((4, 3, 3, 3), 0), "v": ((2, 4, 1, 1), 0)}),
}


@pytest.mark.parametrize("kind", EXACT)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.1, 1.0, 8.0, 1e6]))
@settings(max_examples=15)
def test_onnxruntime_the_reference_and_numpy_agree(kind: str, seed: int, spread: float) -> None:
    """Exactly: scales are powers of two, so that no sum is rounded; a large spread saturates."""
    random = np.random.default_rng(seed)
    nodes, shapes = EXACT[kind]
    weights = {name: dyadic(shape, axis, random) for name, (shape, axis) in shapes.items()}
    scales = {"x": 2.0**-5, "r": 2.0**-3}
    with TemporaryDirectory() as folder:
        head = "(float[2, 3, 8, 8] x) => (float[A, B, C, D] y)"
        onnx.save(network(f"{head} {{ {nodes} }}", 19, 9, **weights), f"{folder}/net.onnx")  # the reference's first
        model = load_model(f"{folder}/net.onnx")
        made = insert_qdq(model, scales)
    x = (spread * random.normal(size=(2, 3, 8, 8))).astype(np.float32)
    (ours,) = on_onnxruntime(made.proto, x=x)
    (theirs,) = ReferenceEvaluator(made.proto).run(None, {"x": x})
    np.testing.assert_array_equal(ours, theirs)
    if set(made.pairs) == {"x"}:
        whole = through(x, np.float32(2.0**-5))
        assert spread < 8 or whole.min() == -4.0 or np.abs(whole).max() == 127 / 32
        if kind != "residual":
            np.testing.assert_array_equal(ours, on_onnxruntime(model.proto, x=whole)[0])


def test_rounding_is_half_to_even_and_saturates(quantized: Any) -> None:
    made = quantized("(float[8] x) => (float[8] y) { y = MatMul(x, w) }", {"x": 0.25}, opset=19, ir=9,
                     w=np.eye(8, dtype=np.float32) * 127 / 128)  # fmt: skip
    x = np.array([0.125, 0.375, -0.125, -0.375, 31.75, 31.9, 1e6, -1e6], np.float32)
    expected = np.array([0, 2, 0, -2, 127, 127, 127, -128], np.float32) / 4 * 127 / 128
    np.testing.assert_array_equal(on_onnxruntime(made.proto, x=x)[0], expected)
    np.testing.assert_array_equal(ReferenceEvaluator(made.proto).run(None, {"x": x})[0], expected)


# A trained network ------------------------------------------------------------------------------------------------


def test_resnet20_with_tensorrts_own_table(shared: Path) -> None:
    model = load_model(shared / "models" / "resnet20.onnx")
    networks = shared / "golden" / "networks"
    table = read_table(networks / "resnet20_entropy2.cache")
    made = insert_qdq(model, table.scales)
    onnx.checker.check_model(made.proto, full_check=True)
    assert len(placed(made)) == 23
    assert made.left == {}
    for name in made.pairs:
        assert pair(made.proto, name).scale == np.float32(table.scales[name])
    weighted = [node for node in made.proto.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    results = {p.result for p in pairs(made.proto)}
    assert all(name in results for node in weighted for name in node.input[:2])
    pixels = np.load(networks / "calibration_512.npz")["x"][:128]
    spec = PRESETS["cifar10"]
    images = ((pixels * np.float32(1 / 255) - np.float32(spec.mean)) / np.float32(spec.std)).transpose(0, 3, 1, 2)
    chosen = [on_onnxruntime(proto, image=images)[0].argmax(1) for proto in (model.proto, made.proto)]
    assert len(chosen[0]) == 128
    assert np.mean(chosen[0] == chosen[1]) >= 0.98


def test_a_weight_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    weights = np.ones((4, 3, 1, 1), np.float32)
    weights[2, 1] = np.inf
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "n.onnx")
    with pytest.raises(ModelError, match="'w' holds NaN or Inf"):
        insert_qdq(load_model(tmp_path / "n.onnx"), {"x": 0.1})

"""Weights behind operators that change their form: initializers, and the network computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantkit.graph import Model, load_model
from quantkit.qdq.fold_constants import fold_constants
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.placement import Choices
from quantkit.repairs.editing import WeightEditor
from quantkit.repairs.weighted_layers import weighted_layers
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from tests.support.qdq import every_scale, noise

X = noise(5, 4)
Arrays = NDArray[Any]


def network(nodes: list[onnx.NodeProto], opset: int = 17, **weights: Arrays) -> onnx.ModelProto:
    """x [5, 4] → y, with weights as initializers."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["A", "B"])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def model_of(proto: onnx.ModelProto) -> Model:
    return Model(Path("net.onnx"), proto, "")


def computed(proto: onnx.ModelProto) -> Arrays:
    return np.asarray(ReferenceEvaluator(proto).run(None, {"x": X})[0])


def held(proto: onnx.ModelProto) -> set[str]:
    return {tensor.name for tensor in proto.graph.initializer}


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


node = helper.make_node
STEPS: dict[str, tuple[onnx.NodeProto, ...]] = {
    "transpose": (node("Transpose", ["?"], ["?"]),),
    "perm": (node("Transpose", ["?"], ["?"], perm=[1, 0]),),
    "there and back": (node("Unsqueeze", ["?", "axes"], ["?"]), node("Squeeze", ["?", "axes"], ["?"])),
    "reshape": (node("Reshape", ["?", "six"], ["?"]), node("Reshape", ["?", "square"], ["?"])),
    "copied": (node("Reshape", ["?", "zero"], ["?"]),),
    "flatten": (node("Flatten", ["?"], ["?"], axis=-1),),
    "half": (node("Cast", ["?"], ["?"], to=TensorProto.FLOAT16), node("Cast", ["?"], ["?"], to=TensorProto.FLOAT)),
    "identity": (node("Identity", ["?"], ["?"]),),
}
SETTINGS = {
    "axes": np.array([0, 3]),
    "six": np.array([2, -1]),
    "square": np.array([4, 4]),
    "zero": np.array([0, -1]),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4), st.booleans())
def test_a_chain_comes_to_one_initializer(names: list[str], shared: bool) -> None:
    nodes, last = [], "w"
    for number, step in enumerate(step for name in names for step in STEPS[name]):
        made = onnx.NodeProto()
        made.CopyFrom(step)
        made.input[0], made.output[0] = last, f"t{number}"
        last = made.output[0]
        nodes.append(made)
    nodes.append(node("MatMul", ["x", last], ["m"]))
    nodes.append(node("MatMul", ["m", "w" if shared else last], ["y"]))
    needed = {name for step in nodes for name in step.input}
    values = {name: array for name, array in SETTINGS.items() if name in needed}
    proto = network(nodes, w=noise(4, 4), **values)
    before = proto.SerializeToString(deterministic=True)
    made = fold_constants(model_of(proto))
    assert proto.SerializeToString(deterministic=True) == before, "the model itself is untouched"
    onnx.checker.check_model(made, full_check=True)
    np.testing.assert_array_equal(computed(made), computed(proto))
    assert operators(made) == ["MatMul", "MatMul"]
    assert held(made) <= {"w", last}, "what changes nothing leaves the weight itself"
    assert [value.name for value in made.graph.input] == ["x"]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_a_large_weight_of_another_type_behind_a_cast_is_quantized_and_repaired(dtype: type) -> None:
    weight = np.random.default_rng(1).normal(size=(4, 20000)).astype(dtype)
    nodes = [node("Cast", ["w"], ["v"], to=TensorProto.FLOAT), node("MatMul", ["x", "v"], ["y"], name="dense")]
    model = model_of(fold_batch_norms(model_of(network(nodes, w=weight))).proto)
    made = insert_qdq(model, every_scale(model), Choices())
    assert list(made.weights) == ["v"]
    assert not made.left
    assert [layer.name for layer in weighted_layers(WeightEditor(model), {})] == ["dense"]


def test_opset_11_has_axes_as_attributes() -> None:
    nodes = [node("Squeeze", ["w"], ["v"], axes=[0]), node("MatMul", ["x", "v"], ["y"])]
    made = fold_constants(model_of(network(nodes, opset=11, w=noise(1, 4, 3))))
    assert operators(made) == ["MatMul"]
    assert list(made.graph.initializer[0].dims) == [4, 3]


def left(nodes: list[onnx.NodeProto], **weights: Arrays) -> bool:
    """Whether a network stays as it is."""
    proto = network(nodes, **weights)
    return fold_constants(model_of(proto)) is proto


def test_what_stays() -> None:
    product = node("MatMul", ["x", "v"], ["y"])
    assert left([node("MatMul", ["x", "w"], ["y"])], w=noise(4, 4)), "a weight that is one already"
    assert left([node("Transpose", ["x"], ["y"])]), "an activation"
    random = node("RandomNormal", [], ["r"], shape=[4, 4])
    assert left([random, node("Add", ["w", "r"], ["v"]), product], w=noise(4, 4)), "random numbers"
    dequantized = node("DequantizeLinear", ["w", "s", "z"], ["v"])
    assert left([dequantized, product], w=np.eye(4, dtype=np.int8), s=np.float32(1), z=np.int8(0)), "Q/DQ"
    assert left([node("Transpose", ["w"], ["y"])], w=noise(4, 4)), "an output of the network"


def test_a_result_that_is_an_output_too_is_stored_beside_it() -> None:
    """An output of a network is made by an operator; what else reads it reads a constant."""
    proto = network([node("Split", ["both"], ["v", "z"], axis=1), node("MatMul", ["x", "v"], ["y"])], both=noise(4, 8))
    for name in ("v", "z"):
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]))
    made = fold_constants(model_of(proto))
    onnx.checker.check_model(made, full_check=True)
    assert list(made.graph.node[-1].input) == ["x", "v_constant"]
    ours, theirs = (ReferenceEvaluator(each).run(None, {"x": X}) for each in (made, proto))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_subgraph_reads_the_initializer() -> None:
    inner = helper.make_graph(
        [node("MatMul", ["x", "v"], ["z"])],
        "inner",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["A", "B"])],
    )
    nodes = [node("Transpose", ["w"], ["v"]), node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)]
    proto = network(nodes, w=noise(4, 3).T.copy(), yes=np.array(True))
    made = fold_constants(model_of(proto))
    onnx.checker.check_model(made, full_check=True)
    assert operators(made) == ["If"]
    np.testing.assert_array_equal(computed(made), computed(proto))


def test_weights_outside_the_model(tmp_path: Path) -> None:
    nodes = [node("Transpose", ["w"], ["v"]), node("MatMul", ["x", "v"], ["y"])]
    proto = network(nodes, w=noise(64, 4))
    expected = computed(proto)
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
    made = fold_constants(load_model(tmp_path / "net.onnx"))
    np.testing.assert_array_equal(computed(made), expected)


CHAINS: dict[str, list[onnx.NodeProto]] = {
    "weight normalization": [
        node("ReduceL2", ["w"], ["n"], axes=[0], keepdims=1),
        node("Div", ["w", "n"], ["d"]),
        node("Mul", ["d", "g"], ["v"]),
    ],
    "a low-rank update": [node("MatMul", ["a", "b"], ["ab"]), node("Add", ["w", "ab"], ["v"])],
    "dequantized by hand": [node("Cast", ["i"], ["f"], to=TensorProto.FLOAT), node("Mul", ["f", "g"], ["v"])],
    "dropout": [node("Dropout", ["w"], ["v"])],
    "one of two halves": [node("Split", ["double"], ["v", "other"], axis=1)],
    "a shape that is computed": [
        node("Shape", ["w"], ["shape"]),
        node("Concat", ["shape"], ["again"], axis=0),
        node("Reshape", ["flat", "again"], ["v"]),
    ],
}
PARTS = {
    "w": noise(4, 4),
    "g": noise(1, 4),
    "a": noise(4, 2),
    "b": noise(2, 4),
    "i": np.arange(16, dtype=np.int8).reshape(4, 4),
    "double": noise(4, 8),
    "flat": noise(16),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_constants_alone_decide_is_computed_once(name: str) -> None:
    chain = CHAINS[name]
    used = {each for step in chain for each in step.input}
    proto = network([*chain, node("MatMul", ["x", "v"], ["y"])], **{k: a for k, a in PARTS.items() if k in used})
    made = fold_constants(model_of(proto))
    onnx.checker.check_model(made, full_check=True)
    assert operators(made) == ["MatMul"]
    assert len(held(made)) == 1
    np.testing.assert_allclose(computed(made), computed(proto), rtol=1e-5)


@pytest.mark.parametrize(
    "blow_up",
    [
        [node("ConstantOfShape", ["long"], ["t"])],
        [node("Expand", ["one", "long"], ["t"])],
        [node("Tile", ["one", "long"], ["t"])],
        [node("Pad", ["one", "pads"], ["t"])],
        [node("Expand", ["one", "wide"], ["a"]), node("Expand", ["a", "long"], ["b"]), node("Neg", ["b"], ["t"])],
    ],
)
def test_a_few_numbers_never_become_gigabytes(blow_up: list[onnx.NodeProto]) -> None:
    values = {
        "one": np.ones((1, 1), np.float32),
        "long": np.array([10**6, 4]),
        "wide": np.array([1, 4]),
        "pads": np.array([0, 0, 10**6, 3]),
    }
    used = {name for step in blow_up for name in step.input}
    nodes = [*blow_up, node("ReduceMax", ["t"], ["m"], axes=[0], keepdims=0), node("Add", ["x", "m"], ["y"])]
    proto = network(nodes, **{name: array for name, array in values.items() if name in used})
    made = fold_constants(model_of(proto))
    assert made.ByteSize() < proto.ByteSize() + 100
    np.testing.assert_array_equal(computed(made), computed(proto))


def test_one_weight_in_many_places_stays_one() -> None:
    """Equal results are stored once, and Identity nodes (PyTorch writes them for equal weights) store nothing."""
    nodes = [node("Transpose", ["w"], [f"t{k}"]) for k in range(4)] + [node("Identity", ["w"], ["i"])]
    last = "x"
    for k, weight in enumerate(["t0", "t1", "i", "t2", "t3", "w"]):
        nodes.append(node("MatMul", [last, weight], [last := "y" if k == 5 else f"m{k}"]))
    proto = network(nodes, w=noise(4, 4))
    made = fold_constants(model_of(proto))
    assert operators(made) == ["MatMul"] * 6
    assert held(made) == {"w", "t0"}
    np.testing.assert_array_equal(computed(made), computed(proto))


def test_a_number_stays_a_number() -> None:
    """A scalar has no dimensions before and behind: Concat and Resize count them."""
    proto = network(
        [
            node("Cast", ["half"], ["single"], to=TensorProto.FLOAT),
            node("Mul", ["x", "single"], ["m"]),
            node("Unsqueeze", ["single", "axes"], ["listed"]),
            node("Concat", ["listed", "one"], ["both"], axis=0),
            node("ReduceSum", ["both"], ["sum"], keepdims=0),
            node("Add", ["m", "sum"], ["y"]),
        ],
        half=np.array(0.5, np.float16),
        axes=np.array([0]),
        one=np.ones(1, np.float32),
    )
    before = computed(proto)
    made = fold_constants(model_of(proto))
    onnx.checker.check_model(made, full_check=True)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in made.graph.initializer}
    assert shapes["single"] == ()
    assert shapes["sum"] == ()
    np.testing.assert_array_equal(computed(made), before)

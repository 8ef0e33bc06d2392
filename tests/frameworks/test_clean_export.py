"""Models as exporters leave them, and what becomes of them; no framework is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from quantkit.frameworks.clean_export import clean_copy
from quantkit.frameworks.dequantized_ends import with_float_ends
from quantkit.frameworks.readable_names import SCOPES, make_unique
from quantkit.graph.model import Model

WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2) / 7
TRACE = 'File "/home/somebody/net.py", line 3, in forward'


def model(proto: onnx.ModelProto) -> Model:
    return Model(Path("m.onnx"), proto, "")


def exported(numbers: tuple[int, int, int], order: int, producer: str) -> onnx.ModelProto:
    """Two matrix products with equal constants, named and ordered as tf2onnx may do it in one run or another."""
    a, b, c = numbers
    nodes = [
        helper.make_node("MatMul", ["image", f"const_fold_opt__{a}"], [f"t__{b}:0"], f"call/dense/MatMul__{b}"),
        helper.make_node("Clip", [f"t__{b}:0", f"low__{c}", f"high__{a}"], [f"u__{c}:0"], f"Relu6__{c}"),
        helper.make_node("Add", [f"u__{c}:0", f"low__{c}"], ["scores"], "StatefulPartitionedCall/net/add"),
    ]
    weights = {f"const_fold_opt__{a}": WEIGHT, f"low__{c}": np.float32(0), f"high__{a}": np.float32(6)}
    names = list(weights) if order else list(weights)[::-1]
    graph = helper.make_graph(
        nodes,
        f"g{a}",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [f"unk__{b}", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [f"unk__{c}", 2])],
        [numpy_helper.from_array(np.asarray(weights[name]), name) for name in names],
        doc_string=TRACE,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    proto = helper.make_model(graph, opset_imports=opsets, producer_name=producer, ir_version=8)
    for node in proto.graph.node:
        node.doc_string = TRACE
    proto.metadata_props.add(key="where", value=TRACE)
    return proto


def run(proto: onnx.ModelProto, **feeds: Any) -> Any:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@given(st.permutations([11, 23, 35]), st.permutations([4, 5, 6]))
def test_what_changes_from_run_to_run_is_gone(one: list[int], other: list[int]) -> None:
    first = clean_copy(model(exported((one[0], one[1], one[2]), 0, "tf2onnx")))
    second = clean_copy(model(exported((other[0], other[1], other[2]), 1, "tf2onnx")))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert [node.name for node in first.graph.node] == ["call/dense/MatMul", "Relu6/Clip", "net/add"]


@pytest.mark.parametrize("producer", ["tf2onnx", "pytorch"])
def test_nothing_is_left_but_the_network(producer: str) -> None:
    source = exported((1, 2, 3), 0, producer)
    made = clean_copy(model(source))
    content = made.SerializeToString()
    assert b"somebody" not in content
    assert b"ai.onnx.ml" not in content
    assert b"unk__" not in content
    onnx.checker.check_model(made, full_check=True)
    assert [d.dim_param for d in made.graph.input[0].type.tensor_type.shape.dim] == ["batch", ""]
    assert made.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    image = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(made, image=image), run(source, image=image))
    assert b"somebody" in source.SerializeToString(), "the source is untouched"


def test_plain_twice_is_plain_once() -> None:
    once = clean_copy(model(exported((1, 2, 3), 0, "tf2onnx")))
    assert clean_copy(model(once)).SerializeToString() == once.SerializeToString()


def test_a_fixed_batch_is_a_number() -> None:
    made = clean_copy(model(exported((1, 2, 3), 0, "tf2onnx")), fixed_batch=4)
    for value in (*made.graph.input, *made.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 4


def test_torch_nodes_are_named_by_their_modules() -> None:
    proto = exported((1, 2, 3), 0, "pytorch")
    proto.graph.initializer[-1].name = "head.weight"
    proto.graph.node[0].input[1] = "head.weight"
    for node, scopes in zip(proto.graph.node, (["", "x", "matmul"], ["", "act", "clip"], ["", "add"]), strict=True):
        node.metadata_props.add(key=SCOPES, value=str(scopes))
    made = clean_copy(model(proto))
    assert [node.name for node in made.graph.node] == ["head/MatMul", "act/Clip", "Add"]
    assert made.graph.node[1].input[0] == "head/MatMul_output_0"
    assert made.graph.output[0].name == "scores"


@given(st.lists(st.sampled_from(["a", "a_1", "b", None])))
def test_numbered_names_are_each_there_once(names: list[str | None]) -> None:
    made = [name for name in make_unique(names) if name is not None]
    assert len(set(made)) == len(made)
    assert len(made) == sum(name is not None for name in names)


@pytest.mark.parametrize("whole", [False, True])
def test_whole_numbers_at_the_ends_stand_for_real_ones(whole: bool) -> None:
    scale, zero = np.float32(0.25), np.uint8(7)
    weights = {"s": scale, "z": zero, "zf": np.float32(zero), "w": WEIGHT, "s2": np.float32(0.5), "z2": np.uint8(3)}
    if whole:
        head = [helper.make_node("DequantizeLinear", ["image", "s", "z"], ["x"])]
    else:
        head = [
            helper.make_node("Cast", ["image"], ["c"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["c", "zf"], ["d"]),
            helper.make_node("Mul", ["d", "s"], ["x"]),
        ]
    nodes = [
        *head,
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "s2", "z2"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.UINT8, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = with_float_ends(source)
    onnx.checker.check_model(made, full_check=True)
    assert [node.op_type for node in made.graph.node] == ["MatMul"]
    image = np.random.default_rng(0).integers(0, 256, (5, 3), np.uint8)
    real = (image.astype(np.float32) - np.float32(zero)) * scale
    scores = run(made, image=real)
    expected = run(source, image=image)
    np.testing.assert_array_equal(np.clip(np.rint(scores / np.float32(0.5)) + 3, 0, 255).astype(np.uint8), expected)


def test_metadata_of_an_exporter_is_not_evaluated() -> None:
    """Scopes that are no list of texts, however deep, give the operator's name."""
    proto = exported((1, 2, 3), 0, "pytorch")
    for node, text in zip(proto.graph.node, ("[" * 100_000, "['', 'head', 'matmul'", "9" * 9999), strict=True):
        node.metadata_props.add(key=SCOPES, value=text)
    assert [node.name for node in clean_copy(model(proto)).graph.node] == ["MatMul", "head/Clip", "Add"]

"""Local functions are inlined, or refused within a moment where they are no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from quantkit.backends.session import open_session
from quantkit.errors import ModelError
from quantkit.graph import Model, load_model

IMPORTS = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]


def model_of(proto: onnx.ModelProto, folder: Path) -> Model:
    """Write and open."""
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    return load_model(folder / "net.onnx")


def network(text: str, function: str, opset: int = 17) -> onnx.ModelProto:
    """A network that calls `own.F`."""
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17, "own": 1]> net {text} '
        f'<domain: "own", opset_import: ["": {opset}]> {function}'
    )


CALLS = "(float[N, 4] x, bool c) => (float[N, 4] y) { a = own.F<k = 1>(x) y = own.F<k = 0>(a) }"
INSIDE = (
    "(float[N, 4] x, bool c) => (float[N, 4] y) { y = If(c) <"
    "then_branch = yes () => (float[N, 4] t) { t = own.F<k = 1>(x) }, "
    "else_branch = no () => (float[N, 4] e) { e = Neg(x) }> }"
)
F = "F <k> (a) => (b) { m = Exp(a) s = Softmax<axis: int = @k>(m) b = Sub(s, a) }"


@pytest.mark.parametrize("text", [CALLS, INSIDE], ids=["main graph", "subgraph"])
def test_an_inlined_network_computes_the_same(tmp_path: Path, text: str) -> None:
    proto = network(text, F)
    model = model_of(proto, tmp_path)
    assert not model.proto.functions
    assert [o.domain for o in model.proto.opset_import] == [""], "nothing is left of the domain of the functions"
    x, c = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32), np.array(True)
    found = open_session(model, ["y"]).runner()({"x": x, "c": c})["y"]
    plain = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found, plain.run(None, {"x": x, "c": c})[0], rtol=1e-5)


def test_large_weights_inside_functions_come_with_them(tmp_path: Path) -> None:
    w = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(w))
    body = [constant, helper.make_node("MatMul", ["a", "w"], ["b"])]
    function = helper.make_function("d", "F", ["a"], ["b"], body, IMPORTS[:1])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 32]) for name in "xy")
    graph = helper.make_graph([helper.make_node("F", ["x"], ["y"], domain="d")], "net", [x], [y])
    model = model_of(helper.make_model(graph, opset_imports=IMPORTS, functions=[function], ir_version=8), tmp_path)
    (kept,) = [node.attribute[0].t for node in model.proto.graph.node if node.op_type == "Constant"]
    np.testing.assert_array_equal(numpy_helper.to_array(kept), w)


def test_a_function_of_another_opset_is_inlined_where_its_operators_are_the_same(tmp_path: Path) -> None:
    same = network(CALLS, "F <k> (a) => (b) { b = Add(a, a) }", 14)
    other = network(CALLS, F, 12)
    assert [node.op_type for node in model_of(same, tmp_path).proto.graph.node] == ["Add", "Add"]
    assert {node.op_type for node in model_of(other, tmp_path).proto.graph.node} == {"F"}, "Softmax was another one"


def calls(name: str, *others: str) -> onnx.FunctionProto:
    """A function that calls others one after another."""
    names = ["a", *(f"m{k}" for k in range(len(others) - 1)), "b"]
    nodes = [helper.make_node(other, [names[k]], [names[k + 1]], domain="d") for k, other in enumerate(others)]
    return helper.make_function("d", name, ["a"], ["b"], nodes, IMPORTS)


LEAF = helper.make_function("d", "leaf", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], IMPORTS[:1])
BOMBS = {
    "itself": ([calls("F0", "F0")], "'F0' calls itself"),
    "each other": ([calls("F0", "F1"), calls("F1", "F0")], "calls itself"),
    "doubling": (
        [*(calls(f"F{i}", f"F{i + 1}", f"F{i + 1}") for i in range(25)), calls("F25", "leaf"), LEAF],
        "expand to 33,554,432 nodes",
    ),
    "deep": ([*(calls(f"F{i}", f"F{i + 1}") for i in range(5000)), calls("F5000", "leaf"), LEAF], "nested more than"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_functions_that_are_no_network_are_refused_at_once(tmp_path: Path, name: str) -> None:
    functions, problem = BOMBS[name]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("F0", ["x"], ["y"], domain="d")], "net", [x], [y])
    with pytest.raises(ModelError) as caught:
        model_of(helper.make_model(graph, opset_imports=IMPORTS, functions=functions, ir_version=8), tmp_path)
    assert problem in caught.value.problem


def test_a_chain_of_functions_within_the_limit_opens(tmp_path: Path) -> None:
    functions = [*(calls(f"F{i}", f"F{i + 1}") for i in range(90)), calls("F90", "leaf"), LEAF]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("F0", ["x"], ["y"], domain="d")], "net", [x], [y])
    model = model_of(helper.make_model(graph, opset_imports=IMPORTS, functions=functions, ir_version=8), tmp_path)
    assert [node.op_type for node in model.proto.graph.node] == ["Relu"]

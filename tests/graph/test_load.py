"""Models in the one form that all verbs work on, whatever form their file has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

from quantkit.backends.session import open_session
from quantkit.errors import ModelError, UsageError
from quantkit.graph import Model, load_model
from quantkit.graph.node_selection import select_nodes
from quantkit.graph.opset import raise_opset
from quantkit.graph.subgraphs import all_nodes
from tests.support.networks import network

HEAD = '<ir_version: 8, opset_import: ["": 17, "own": 1]> net '


def save(folder: Path, text: str, **weights: Any) -> Path:
    """Write a network in ONNX's own text form."""
    proto = parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def computed(model: Model, x: Any) -> Any:
    """The first output."""
    return open_session(model, model.outputs).runner()({"x": x})[model.outputs[0]].copy()


def test_weights_are_no_inputs(tmp_path: Path) -> None:
    text = "(float[N, 4] x, float[4, 2] w) => (float[N, 2] y) { y = MatMul(x, w) }"
    w = np.arange(8, dtype=np.float32).reshape(4, 2)
    model = load_model(save(tmp_path, '<ir_version: 3, opset_import: ["": 9]> net ' + text, w=w))
    assert [value.name for value in model.proto.graph.input] == ["x"]
    assert model.proto.ir_version >= 4, "before, every weight had to be an input"
    np.testing.assert_array_equal(computed(model, np.eye(4, dtype=np.float32)), w)


def test_weights_of_old_files_need_not_be_inputs(tmp_path: Path) -> None:
    text = "(float[N, 4] x) => (float[N, 2] y) { y = MatMul(x, w) }"
    weights = {"w": np.arange(8, dtype=np.float32).reshape(4, 2), "unread": np.zeros(3, np.float32)}
    model = load_model(save(tmp_path, '<ir_version: 3, opset_import: ["": 8]> net ' + text, **weights))
    assert raise_opset(model, 13).opset_import[0].version == 13
    np.testing.assert_array_equal(computed(model, np.eye(4, dtype=np.float32)), weights["w"])


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ('"": 12, "": 17', 17),
        ('"ai.onnx": 17, "own": 1, "": 17, "own": 1', 17),
        ('"": 17, "": 12', "versions 17 and 12 of the opset ai.onnx"),
        ('"": 17, "own": 2, "own": 1', "versions 2 and 1 of the opset own"),
        ('"own": 1', "Softmax 'y' is of ONNX's opset, but the file names none"),
    ],
)
def test_an_opset_has_one_version(tmp_path: Path, named: str, found: int | str) -> None:
    path = save(
        tmp_path, f"<ir_version: 8, opset_import: [{named}]> net (float[N] x) => (float[N] y) {{ y = Softmax(x) }}"
    )
    if isinstance(found, str):
        with pytest.raises(ModelError, match=re.escape(found)):
            load_model(path)
    else:
        model = load_model(path)
        assert model.opset == found
        assert len({opset.domain for opset in model.proto.opset_import}) == len(model.proto.opset_import)


def test_the_identity_is_that_of_the_file(tmp_path: Path) -> None:
    text = HEAD + "(float[N, 4] x, float[4, 2] w) => (float[N, 2] y) { y = own.F(x, w) }"
    text += ' <domain: "own", opset_import: ["": 17]> F (a, b) => (c) { c = MatMul(a, b) }'
    path = save(tmp_path, text, w=np.ones((4, 2), np.float32))
    twice = load_model(path), load_model(path)
    assert twice[0].sha256 == twice[1].sha256
    assert twice[0].proto == twice[1].proto, "names that inlining makes are always the same"


def test_nodes_are_sorted_and_keep_their_order_where_they_can(tmp_path: Path) -> None:
    text = "(float[N] x) => (float[N] y) { y = Add(b, c) c = Exp(x) b = Neg(a) a = Abs(x) d = Relu(x) }"
    model = load_model(save(tmp_path, HEAD + text))
    assert [node.op_type for node in model.proto.graph.node] == ["Exp", "Abs", "Neg", "Add", "Relu"]


BODY = "then_branch = yes () => (float[N] b) { b = Neg(h) }, else_branch = no () => (float[N] b) { b = Abs(x) }"


def test_what_a_subgraph_reads_is_made_before_it(tmp_path: Path) -> None:
    text = f"(float[N] x, bool c) => (float[N] b) {{ b = If(c) <{BODY}> h = Exp(x) }}"
    model = load_model(save(tmp_path, HEAD + text))
    assert [node.op_type for node in model.proto.graph.node] == ["Exp", "If"]


WRONG = {
    "circle": ("(float[N] x) => (float[N] y) { y = Add(x, b) b = Neg(y) }", "the nodes around 'y' form a circle"),
    "itself": ("(float[N] x) => (float[N] y) { y = Add(x, y) }", "the nodes around 'y' form a circle"),
    "nothing": ("(float[N] x) => (float[N] y) { y = Add(x, b) }", "Add 'y' reads 'b', which nothing makes"),
    "twice": ("(float[N] x) => (float[N] y) { y = Neg(x) y = Abs(x) }", "two nodes make the tensor 'y'"),
    "input": ("(float[N] x) => (float[N] x) { x = Neg(x) }", "two nodes make the tensor 'x'"),
    "output": ("(float[N] x) => (float[N] y) { z = Neg(x) }", "nothing makes the output 'y'"),
    "inside": (
        f"(float[N] x, bool c) => (float[N] b) {{ b = If(c) <{BODY}> }}",
        "Neg 'b' reads 'h', which nothing makes",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_graphs_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    text, problem = WRONG[name]
    path = save(tmp_path, HEAD + text)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert caught.value.problem == f"{path}: {problem}"


ASKED: dict[str, tuple[str, Any]] = {
    "ConstantOfShape": ("c = ConstantOfShape(s)", [10**12]),
    "Expand": ("c = Expand(one, s)", [10**6, 10**6]),
    "Tile": ("c = Tile(four, s)", [10**12]),
    "Range": ("i = Range(zero, n, step) c = Cast<to = 1>(i)", [1]),
    "Concat again and again": (
        "d0 = Concat<axis = 0>(s, s) "
        + " ".join(f"d{i + 1} = Concat<axis = 0>(d{i}, d{i})" for i in range(40))
        + " c = Cast<to = 1>(d40)",
        [1, 1],
    ),
    "an input": ("c = Relu(x)", [1]),
}


@pytest.mark.parametrize("kind", ASKED)
def test_a_few_bytes_that_ask_for_more_than_the_memory_are_refused_at_once(tmp_path: Path, kind: str) -> None:
    body, shape = ASKED[kind]
    size = "1000000, 1000000, 100" if kind == "an input" else "N, 4"
    text = f"(float[{size}] x) => (float[A, B] y) {{ {body} r = ReduceSum<keepdims = 0>(c) y = Add(x, r) }}"
    numbers = {"s": np.array(shape), "zero": np.array(0), "step": np.array(1), "n": np.array(10**12)}
    path = save(tmp_path, HEAD + text, **numbers, one=np.float32(1), four=np.ones(4, np.float32))
    with pytest.raises(ModelError, match="exceeds the memory of this machine"):
        load_model(path)


TWINS = "(float[N] x) => (float[N] y) { [same] a = Neg(x) [same_2] b = Exp(a) [same] c = Abs(b) [same] y = Relu(c) }"


def test_equal_node_names_become_unique(tmp_path: Path) -> None:
    path = save(tmp_path, HEAD + TWINS)
    with pytest.raises(Exception, match="same"):
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model = load_model(path)
    assert [node.name for node in model.proto.graph.node] == ["same", "same_2", "same_3", "same_4"]
    np.testing.assert_allclose(computed(model, np.zeros(2, np.float32)), np.ones(2))


def test_the_name_in_the_file_selects_all_that_have_it(tmp_path: Path) -> None:
    model = load_model(save(tmp_path, HEAD + TWINS))
    assert select_nodes(["same"], model, "--exclude") == {"same", "same_3", "same_4"}
    assert select_nodes(["same_3", "Exp"], model, "--exclude") == {"same_3", "same_2"}
    with pytest.raises(UsageError):
        select_nodes(["other"], model, "--exclude")


def test_names_are_unique_in_subgraphs_too(tmp_path: Path) -> None:
    text = f"(float[N] x, bool c) => (float[N] b) {{ h = Exp(x) b = If(c) <{BODY}> }}"
    model = load_model(save(tmp_path, HEAD + text))
    names = [node.name or node.output[0] for node in all_nodes(model.proto.graph)]
    assert len(set(names)) == len(names) == 4


def test_backend_models_of_onnx_open_and_compute_what_they_did(tmp_path: Path) -> None:
    from onnx.backend.test import loader

    tried = 0
    for case in [case for kind in ("simple", "pytorch-operator") for case in loader.load_model_tests(kind=kind)]:
        path = Path(case.model_dir) / "model.onnx"
        assert load_model(path).proto.graph.node == onnx.load(path).graph.node, case.name
        tried += 1
    assert tried > 20


@pytest.mark.parametrize("place", ["node", "attribute", "domain", "producer", "dimension"])
def test_a_name_that_is_not_text_is_refused_wherever_it_is(place: str, tmp_path: Path) -> None:
    """Protobuf reads names in any encoding, and hands them out as bytes."""
    node = helper.make_node("Selu", ["x"], ["y"], name="NODE", alpha=1.0, domain="DOMAIN")
    node.attribute[0].name = "ATTRIBUTE"
    proto = network([node], {"x": ["DIMENSION", 3]}, ["y"])
    proto.producer_name = "PRODUCER"
    proto.doc_string = "REMARK"
    content = proto.SerializeToString()
    assert load_model(written(tmp_path, content.replace(b"REMARK", b"R\xcbMARK"))).proto.doc_string == ""
    name = place.upper().encode()
    with pytest.raises(ModelError, match="not text"):
        load_model(written(tmp_path, content.replace(name, name[:-1] + b"\xe4")))


def written(folder: Path, content: bytes) -> Path:
    """Write a model."""
    (folder / "m.onnx").write_bytes(content)
    return folder / "m.onnx"


@pytest.mark.parametrize(("inputs", "outputs"), [([], ["y"]), (["x"], ["y"]), (["x", "x"], [])])
def test_an_operator_without_its_operands_is_refused(inputs: list[str], outputs: list[str], tmp_path: Path) -> None:
    """A convolution has an input, weights, and an output."""
    proto = network([helper.make_node("Conv", inputs, outputs, name="conv")], {"x": [1, 1, 1, 1]}, ["y"])
    with pytest.raises(ModelError, match=r"node 'conv' \(Conv\) has"):
        load_model(written(tmp_path, proto.SerializeToString()))
    if outputs:
        proto.graph.node[0].domain = "own"
        load_model(written(tmp_path, proto.SerializeToString()))


@pytest.mark.parametrize(
    ("text", "why"),
    [("(float[N] x) => () { y = Neg(x) }", "has no outputs"), ("(float[N] x) => (float[N] x) { }", "has no operators")],
)
def test_a_network_that_computes_nothing_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ModelError, match=rf"net\.onnx {why}"):
        load_model(save(tmp_path, HEAD + text))


def test_two_weights_of_one_name_are_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path, HEAD + "(float[N, 2] x) => (float[N, 2] y) { y = MatMul(x, w) }", w=np.eye(2, dtype=np.float32)
    )
    proto = onnx.load(path)
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.float32), "w"))
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="there are two weights 'w'"):
        load_model(path)


def test_inputs_that_are_no_tensors_have_the_name_of_their_type(tmp_path: Path) -> None:
    text = "(seq(float[N]) s, optional(float[N]) o, string[N] t) => (int64 n) { n = SequenceLength(s) }"
    assert [value.dtype for value in load_model(save(tmp_path, HEAD + text)).inputs] == [
        "sequence",
        "optional",
        "string",
    ]


def test_a_value_that_holds_a_model_is_refused_with_the_way_to_it(tmp_path: Path) -> None:
    class Result:
        proto = onnx.ModelProto()

    with pytest.raises(UsageError, match=r"\.proto"):
        load_model(Result())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"a str, a pathlib\.Path or an onnx\.ModelProto"):
        load_model(3)  # type: ignore[arg-type]

"""Models in a newer opset: they compute the same, and nothing else about them changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser, version_converter

from quantkit.errors import ModelError
from quantkit.graph import load_model
from quantkit.graph.opset import produced_names, raise_opset

RANDOM = np.random.default_rng(5)
IMAGE = "(float[1, 2, 5, 5] x) => (float[A, B, C, D] y)"


def network(text: str, opset: int, ir: int = 8, **weights: Any) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}, "my": 1]> net {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    return proto


@pytest.fixture
def up(tmp_path: Path) -> Any:
    """Save, load, raise, and look whether the result is a model."""

    def through(proto: onnx.ModelProto, least: int) -> onnx.ModelProto:
        onnx.save(proto, tmp_path / "net.onnx")
        model = load_model(tmp_path / "net.onnx")
        before = model.proto.SerializeToString(deterministic=True)
        made = raise_opset(model, least)
        assert made.SerializeToString(deterministic=True) == raise_opset(model, least).SerializeToString(
            deterministic=True
        )
        assert model.proto.SerializeToString(deterministic=True) == before
        return made

    return through


def computed(proto: onnx.ModelProto, **feeds: NDArray[Any]) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def versions(proto: onnx.ModelProto) -> dict[str, int]:
    return {opset.domain: opset.version for opset in proto.opset_import}


LARGER = np.array([1, 1, 2.4, 1.7], np.float32)
OPERATORS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "nearest Upsample 7": (7, 'y = Upsample<mode = "nearest", scales = [1.0, 1.0, 2.4, 1.7]>(x)', {}),
    "linear Upsample 7": (7, 'y = Upsample<mode = "linear", scales = [1.0, 1.0, 2.4, 1.7]>(x)', {}),
    "Upsample without mode": (9, "y = Upsample(x, s)", {"s": LARGER}),
    "Upsample of computed scales": (9, "h = Add(s, s) y = Upsample(x, h)", {"s": LARGER}),
    "linear Upsample 9": (9, 'y = Upsample<mode = "linear">(x, s)', {"s": LARGER}),
    "nearest Resize 10": (10, 'y = Resize<mode = "nearest">(x, s)', {"s": LARGER}),
    "linear Resize 10": (10, 'y = Resize<mode = "linear">(x, s)', {"s": np.array([1, 1, 0.6, 0.5], np.float32)}),
    "Resize of a Constant": (10, "s = Constant<value = float[4] {1.0, 1.0, 3.0, 2.0}>() y = Resize(x, s)", {}),
    "Resize 11": (11, 'y = Resize<mode = "linear">(x, r, s)', {"s": LARGER, "r": np.zeros(0, np.float32)}),
    "Resize 13": (13, 'y = Resize<mode = "linear">(x, , , s)', {"s": np.array([1, 2, 7, 9])}),
    "Scatter": (9, "y = Scatter<axis = 3>(x, i, u)",
                {"i": np.full((1, 2, 5, 1), 3), "u": np.zeros((1, 2, 5, 1), np.float32)}),
    "Slice": (9, "y = Slice<axes = [2], starts = [1], ends = [4]>(x)", {}),
    "Clip": (9, "y = Clip<min = -0.5, max = 0.7>(x)", {}),
    "Clip 11": (11, "y = Clip(x, , m)", {"m": np.float32(0.5)}),
    "Pad": (10, "y = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 1], value = 3.0>(x)", {}),
    "Dropout": (7, "y = Dropout<ratio = 0.5>(x)", {}),
    "BatchNormalization": (8, "y = BatchNormalization(x, g, g, g, g)", {"g": np.array([1, 2], np.float32)}),
    "Softmax": (11, "y = Softmax(x)", {}),
    "LogSoftmax": (9, "y = LogSoftmax<axis = 2>(x)", {}),
    "Split": (10, "y, z = Split<axis = 3, split = [2, 3]>(x)", {}),
    "equal Split": (13, "y, z = Split<axis = 1>(x)", {}),
    "ReduceMean": (13, "y = ReduceMean<axes = [1]>(x)", {}),
    "ReduceSum": (11, "y = ReduceSum<axes = [1]>(x)", {}),
    "TopK": (9, "y, i = TopK<k = 2>(x)", {}),
    "Conv": (7, "c = Conv(x, w) y = Relu(c)", {"w": RANDOM.normal(size=(20, 2, 3, 3)).astype(np.float32)}),
    "ConvTranspose": (10, "y = ConvTranspose(x, w)", {"w": RANDOM.normal(size=(2, 3, 3, 3)).astype(np.float32)}),
    "Q/DQ": (10, "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", {"s": np.float32(0.1), "z": np.int8(0)}),
    "Q/DQ 13": (13, "q = QuantizeLinear<axis = 1>(x, s, z) y = DequantizeLinear<axis = 1>(q, s, z)",
                {"s": np.array([0.1, 0.2], np.float32), "z": np.zeros(2, np.int8)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", OPERATORS)
def test_operators_compute_the_same(up: Any, kind: str) -> None:
    opset, nodes, weights = OPERATORS[kind]
    proto = network(f"{IMAGE} {{ {nodes} }}", opset, 5, **weights)
    x = RANDOM.normal(size=(1, 2, 5, 5)).astype(np.float32)
    for least in (13, 19):
        made = up(proto, least)
        onnx.checker.check_model(made, full_check=True)
        assert versions(made) == {"": max(opset, least), "my": 1}
        assert made.ir_version == (5 if opset >= least else {13: 7, 19: 9}[least])
        assert made.graph.output == proto.graph.output
        for ours, theirs in zip(computed(made, x=x), computed(proto, x=x), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", OPERATORS)
def test_operators_inside_a_network_keep_the_names_of_their_tensors(up: Any, kind: str) -> None:
    opset, nodes, weights = OPERATORS[kind]
    proto = network(f"(float[1, 2, 5, 5] x) => (float[A, B, C, D] end) {{ {nodes} end = Abs(y) }}", opset, 5, **weights)
    x = RANDOM.normal(size=(1, 2, 5, 5)).astype(np.float32)
    made = up(proto, 19)
    onnx.checker.check_model(made, full_check=True)
    assert produced_names(proto.graph.node) <= produced_names(made.graph.node)
    assert made.graph.output == proto.graph.output
    np.testing.assert_allclose(computed(made, x=x)[0], computed(proto, x=x)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("opset", [8, 11])
def test_inside_subgraphs(up: Any, opset: int) -> None:
    resize = 'Upsample<mode = "linear", scales = [1.0, 1.0, 2.0, 2.0]>(x)' if opset == 8 else "Clip(x, , m)"
    other = "Upsample<scales = [1.0, 1.0, 2.0, 2.0]>(x)" if opset == 8 else "Softmax(x)"
    text = (
        f"(float[1, 2, 5, 5] x, bool b) => (float y) {{ y = If(b)"
        f"<then_branch = t () => (float u) {{ u = {resize} }}, else_branch = e () => (float v) {{ v = {other} }}> }}"
    )
    proto = network(text, opset, 5, m=np.float32(0.5))
    for graph in (proto.graph, *(a.g for a in proto.graph.node[0].attribute)):
        graph.output[0].type.tensor_type.ClearField("shape")
    made = up(proto, 19)
    for choice in (True, False):
        feeds = {"x": RANDOM.normal(size=(1, 2, 5, 5)).astype(np.float32), "b": np.array(choice)}
        np.testing.assert_allclose(computed(made, **feeds)[0], computed(proto, **feeds)[0], rtol=1e-6, atol=1e-6)


REFUSED = {
    "y = Hardmax<axis = 2>(x)": "Hardmax 'y' computes something else in newer opsets",
    "y = Upsample(x, s)": "Upsample 'y' may reduce the size",
    "y = Mystery(x)": "",
}  # fmt: skip


@pytest.mark.parametrize("nodes", REFUSED)
def test_what_would_change_without_a_word_is_refused(up: Any, nodes: str) -> None:
    proto = network(f"{IMAGE} {{ {nodes} }}", 9, 4, s=np.array([1, 1, 0.5, 2], np.float32))
    with pytest.raises(ModelError, match=r"net\.onnx has opset 9, which cannot be converted to 13: ") as caught:
        up(proto, 13)
    assert REFUSED[nodes] in caught.value.problem
    assert "/" not in caught.value.problem.split("net.onnx")[1], "no place in somebody's source code"
    assert "newer opset" in caught.value.remedy


def test_functions_of_another_opset_are_refused_where_the_opset_is_raised(up: Any) -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 15, "own": 1]> net (float[N] x) => (float[N] y) { y = own.F(x) }'
        ' <domain: "own", opset_import: ["": 12]> F (a) => (b) { b = Softmax(a) }'
    )
    with pytest.raises(ModelError, match="to 19: it has local functions, for example 'F'"):
        up(proto, 19)
    assert up(proto, 13) == proto


def test_sparse_weights_are_refused(up: Any) -> None:
    proto = network("(float[4] x) => (float[4] y) { y = Add(x, s) }", 11, 6)
    values, indices = (numpy_helper.from_array(np.zeros(1, t), n) for t, n in ((np.float32, "s"), (np.int64, "")))
    proto.graph.sparse_initializer.add(values=values, indices=indices, dims=[4])
    with pytest.raises(ModelError, match="it has sparse weights, for example 's'"):
        up(proto, 13)


def test_operators_of_other_domains_stay(up: Any) -> None:
    proto = network(f"{IMAGE} {{ a = my.Odd<k = 1, t = float[2] {{1.0, 2.0}}>(x, m) y = Clip<max = 1.0>(a) }}", 9, 4,
                    m=np.ones(9))  # fmt: skip
    made = up(proto, 13)
    assert made.graph.node[0] == proto.graph.node[0]
    assert versions(made) == {"": 13, "my": 1}


def test_a_network_of_other_domains_alone_gets_the_opset_for_what_is_added(up: Any) -> None:
    proto = network(f"{IMAGE} {{ y = my.Odd(x) }}", 9)
    del proto.opset_import[0]
    assert versions(up(proto, 13)) == {"": 13, "my": 1}
    proto.graph.node.add(op_type="Relu", input=["x"], output=["z"])
    with pytest.raises(ModelError, match="is of ONNX's opset, but the file names none"):
        up(proto, 13)


def test_a_loss_is_an_error(up: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older converters drop what they do not know."""
    real = version_converter.convert_version

    def lossy(proto: onnx.ModelProto, least: int) -> onnx.ModelProto:
        made = real(proto, least)
        del made.graph.node[0]
        return made

    monkeypatch.setattr(version_converter, "convert_version", lossy)
    with pytest.raises(ModelError, match="ONNX's converter loses 'a'"):
        up(network(f"{IMAGE} {{ a = my.Odd(x) y = Relu(a) }}", 9, 4), 13)


def test_nothing_else_changes(up: Any) -> None:
    proto = network(f"{IMAGE} {{ c = Conv(x, w) d = Clip<max = 0.5>(c) y = Relu(d) }}", 9, 4,
                    w=RANDOM.normal(size=(20, 2, 3, 3)).astype(np.float32), b=np.float32(1))  # fmt: skip
    proto.producer_name, proto.producer_version, proto.domain, proto.model_version = "me", "1", "d", 3
    proto.doc_string, proto.graph.doc_string = "model", "graph"
    proto.metadata_props.add(key="a", value="b")
    proto.graph.value_info.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 20, 3, 3]))
    proto.graph.quantization_annotation.add(tensor_name="x")
    for number, node in enumerate(proto.graph.node):
        node.name, node.doc_string = f"node {number}", f"text {number}"
        node.metadata_props.add(key="k", value=str(number))
    for tensor in proto.graph.initializer:
        tensor.doc_string = "weight"
    made = up(proto, 19)
    kept = onnx.ModelProto()
    kept.CopyFrom(made)
    clip = next(node for node in kept.graph.node if node.op_type == "Clip")
    assert (clip.name, clip.doc_string, clip.metadata_props[0].value) == ("node 1", "text 1", "1")
    kept.graph.CopyFrom(proto.graph)
    kept.ir_version, kept.opset_import[0].version = 4, 9
    assert kept == proto
    assert made.graph.value_info == proto.graph.value_info
    assert made.graph.quantization_annotation == proto.graph.quantization_annotation
    assert made.graph.initializer[:2] == proto.graph.initializer[:2]
    assert [node for node in made.graph.node if node.op_type in ("Conv", "Relu")] == proto.graph.node[::2]


def test_a_new_one_is_only_copied(up: Any) -> None:
    proto = network(f"{IMAGE} {{ y = Relu(x) }}", 17, 8)
    made = up(proto, 13)
    assert made == proto
    old = network("(float[1, 2, 5, 5] x) => (float[A, B, C, D] y) { y = Relu(x) }", 13, 3)
    assert up(old, 13).ir_version == 4, "whose initializers need not be graph inputs"


def test_the_converter_never_sees_large_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = RANDOM.normal(size=(512, 1024)).astype(np.float32)
    proto = network("(float[N, 512] x, bool b) => (float[N, 512] y) { c = Constant() m = MatMul(x, w) n = MatMul(m, c)"
                    " d = Clip<max = 1.0>(n) y = If(b)<then_branch = t () => (float[N, 512] p) { k = Constant()"
                    " p = Add(d, k) }, else_branch = e () => (float[N, 512] q) { q = Clip<max = 0.5>(d) }> }", 8, 4,
                    w=big, outside=big)  # fmt: skip
    inner = proto.graph.node[-1].attribute[0].g.node[0]
    for node, array in ((proto.graph.node[0], big.T), (inner, big[:1, :512])):
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.ascontiguousarray(array))))
    outside = proto.graph.initializer[1]
    (tmp_path / "o.bin").write_bytes(outside.raw_data)
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="o.bin")
    onnx.save(proto, tmp_path / "net.onnx")
    seen = []
    real = version_converter.convert_version
    monkeypatch.setattr(version_converter, "convert_version", lambda p, v: seen.append(p.ByteSize()) or real(p, v))
    made = raise_opset(load_model(tmp_path / "net.onnx"), 13)
    assert seen[0] < 3_000
    assert made.ByteSize() > 4 << 20
    assert made.graph.initializer[:2] == proto.graph.initializer
    assert made.graph.node[0] == proto.graph.node[0]
    assert not [t for t in made.graph.initializer if t.data_location == TensorProto.EXTERNAL and t.name != "outside"]
    onnx.save(made, tmp_path / "new.onnx")
    onnx.checker.check_model(str(tmp_path / "new.onnx"), full_check=True)
    del made.graph.initializer[1]
    x = RANDOM.normal(size=(2, 512)).astype(np.float32)
    del proto.graph.initializer[1]
    for choice in (True, False):
        feeds = {"x": x, "b": np.array(choice)}
        np.testing.assert_array_equal(computed(made, **feeds)[0], computed(proto, **feeds)[0])


@pytest.mark.shared
@pytest.mark.parametrize(("name", "feed"), [("mnist", (1, 1, 28, 28)), ("ultraface", (1, 3, 240, 320))])
def test_trained_networks(shared: Path, name: str, feed: tuple[int, ...]) -> None:
    """mnist lists its weights as inputs; ultraface cuts with the old Slice."""
    model = load_model(shared / "models" / f"{name}.onnx")
    x = RANDOM.normal(size=feed).astype(np.float32)
    theirs = computed(model.proto, **{model.inputs[0].name: x})
    for least in (13, 19):
        made = raise_opset(model, least)
        onnx.checker.check_model(made, full_check=True)
        assert made.graph.input == model.proto.graph.input
        assert made.graph.initializer[: len(model.proto.graph.initializer)] == model.proto.graph.initializer
        for ours, expected in zip(computed(made, **{model.inputs[0].name: x}), theirs, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)

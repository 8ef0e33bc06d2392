"""BatchNormalization in weights: what is folded, what stays and why, and that the network computes the same."""

from __future__ import annotations

import re
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
from quantkit.rewrites.fold_batch_norm import FoldedNetwork, fold_batch_norms

RANDOM = np.random.default_rng(11)
IMAGE = "(float[2, 4, 8, 8] x) => (float[2, N, A, B] y)"
ROWS = "(float[5, 4] x) => (float[5, N] y)"


def numbers(*shape: int) -> NDArray[Any]:
    return RANDOM.normal(size=shape).astype(np.float32)


def norm(channels: int, tag: str = "") -> dict[str, NDArray[Any]]:
    """Parameters of a BatchNormalization."""
    variance = RANDOM.uniform(0.2, 3, size=channels).astype(np.float32)
    return {
        f"g{tag}": numbers(channels),
        f"h{tag}": numbers(channels),
        f"m{tag}": numbers(channels),
        f"v{tag}": variance,
    }


def network(text: str, opset: int = 17, ir: int = 8, **weights: NDArray[Any]) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}, "my": 1]> net {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return proto


def loaded(proto: onnx.ModelProto) -> Model:
    with TemporaryDirectory() as folder:
        onnx.save(proto, f"{folder}/net.onnx")
        return load_model(f"{folder}/net.onnx")


def computed(proto: onnx.ModelProto, **feeds: NDArray[Any]) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def referred(proto: onnx.ModelProto, **feeds: NDArray[Any]) -> list[NDArray[Any]]:
    return list(ReferenceEvaluator(proto).run(None, feeds))


BOTH = (computed, referred)


def same(model: Model, made: FoldedNetwork, tolerance: float = 2e-5, by: Any = BOTH, **feeds: NDArray[Any]) -> None:
    """The laws: a network that checks, computes the same by two evaluators, and has nothing left to fold."""
    onnx.checker.check_model(made.proto, full_check=True)
    assert made.proto.graph.output == model.proto.graph.output
    assert fold_batch_norms(Model(model.path, made.proto, "")).proto == made.proto
    for evaluate in by:
        for ours, theirs in zip(evaluate(made.proto, **feeds), evaluate(model.proto, **feeds), strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


BN = "BatchNormalization({0}, g, h, m, v)"
CASES: dict[str, tuple[str, str, dict[str, NDArray[Any]], list[str]]] = {
    "Conv": (
        IMAGE, "c = Conv(x, w)",
        {"w": numbers(6, 4, 3, 3)}, ["Conv"],
    ),
    "Conv with bias": (
        IMAGE, "c = Conv(x, w, b)",
        {"w": numbers(6, 4, 3, 3), "b": numbers(6)}, ["Conv"],
    ),
    "depthwise": (
        IMAGE, "c = Conv<group = 4>(x, w)",
        {"w": numbers(8, 1, 3, 3)}, ["Conv"],
    ),
    "ConvTranspose": (
        IMAGE, "c = ConvTranspose(x, w, b)",
        {"w": numbers(4, 6, 2, 2), "b": numbers(6)}, ["ConvTranspose"],
    ),
    "grouped ConvTranspose": (
        IMAGE, "c = ConvTranspose<group = 2>(x, w)",
        {"w": numbers(4, 3, 2, 2)}, ["ConvTranspose"],
    ),
    "Gemm": (
        ROWS, "c = Gemm<alpha = 0.5, beta = 3.0>(x, w, b)",
        {"w": numbers(4, 6), "b": numbers(6)}, ["Gemm"],
    ),
    "Gemm transposed": (
        ROWS, "c = Gemm<transB = 1>(x, w)",
        {"w": numbers(6, 4)}, ["Gemm"],
    ),
    "Gemm, one bias": (
        ROWS, "c = Gemm<beta = 2.0>(x, w, b)",
        {"w": numbers(4, 6), "b": numbers(1)}, ["Gemm"],
    ),
    "MatMul": (
        ROWS, "c = MatMul(x, w)",
        {"w": numbers(4, 6)}, ["MatMul", "Add"],
    ),
    "MatMul and Add": (
        ROWS, "d = MatMul(x, w) c = Add(d, b)",
        {"w": numbers(4, 6), "b": numbers(6)}, ["MatMul", "Add"],
    ),
    "Add before": (
        ROWS, "d = MatMul(x, w) c = Add(b, d)",
        {"w": numbers(4, 6), "b": numbers(1, 6)}, ["MatMul", "Add"],
    ),
}  # fmt: skip


def case(kind: str) -> tuple[onnx.ModelProto, list[str], NDArray[Any]]:
    head, nodes, weights, left = CASES[kind]
    count = 8 if kind == "depthwise" else 6
    x = numbers(2, 4, 8, 8) if head is IMAGE else numbers(5, 4)
    return network(f"{head} {{ {nodes} y = {BN.format('c')} }}", **weights, **norm(count)), left, x


@pytest.mark.parametrize("kind", CASES)
def test_it_disappears_behind_weights(kind: str) -> None:
    proto, left, x = case(kind)
    model = loaded(proto)
    before = model.proto.SerializeToString(deterministic=True)
    made = fold_batch_norms(model)
    assert (kinds(made.proto), made.folded, made.left) == (left, ("y",), {})
    # the reference cannot compute grouped transposed convolutions
    same(model, made, by=BOTH if "grouped" not in kind else (computed,), x=x)
    assert model.proto.SerializeToString(deterministic=True) == before
    assert fold_batch_norms(model).proto.SerializeToString() == made.proto.SerializeToString()
    assert not {t.name for t in made.proto.graph.initializer} & {"g", "h", "m", "v"}


@pytest.mark.parametrize("kind", ["Conv with bias", "ConvTranspose", "Gemm", "MatMul and Add"])
def test_weights_are_rounded_once_from_float64(kind: str) -> None:
    proto, _, _ = case(kind)
    values = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}
    beta = 3.0 if kind == "Gemm" else 1.0
    factor = values["g"] / np.sqrt(values["v"] + np.float32(1e-5))
    at = {"Conv with bias": (-1, 1, 1, 1), "ConvTranspose": (1, -1, 1, 1)}.get(kind, (1, -1))
    made = {t.name: numpy_helper.to_array(t) for t in fold_batch_norms(loaded(proto)).proto.graph.initializer}
    np.testing.assert_array_equal(made["w"], (values["w"] * factor.reshape(at)).astype(np.float32))
    bias = ((beta * values["b"] - values["m"]) * factor + values["h"]).astype(np.float32)
    np.testing.assert_array_equal(made["b"].ravel(), bias)


def test_epsilon_counts() -> None:
    proto = network(f"{IMAGE} {{ c = Conv(x, w) y = BatchNormalization<epsilon = 0.7>(c, g, h, m, v) }}",
                    w=numbers(6, 4, 1, 1), **norm(6))  # fmt: skip
    model = loaded(proto)
    same(model, fold_batch_norms(model), x=numbers(2, 4, 8, 8))


W, SQUARE = numbers(4, 4, 1, 1), numbers(4, 4)
STAYS = {
    "pre-activation": ("r = Relu(x) y = {bn(r)}", r"no operator with weights directly before it, but Relu 'r'"),
    "an input": ("y = {bn(x)}", "no operator with weights directly before it"),
    "read twice": ("c = Conv(x, w) b = {bn(c)} y = Add(b, c)", "the output of Conv 'c' is read elsewhere too"),
    "an output": ("y = Conv(x, w) b = {bn(y)}", "the output of Conv 'y' is read elsewhere too"),
    "parameters": ("c = Conv(x, w) k = Bernoulli(g) y = BatchNormalization(c, k, h, m, v)", "parameters are computed"),
    "weights": ("k = Bernoulli(w) c = Conv(x, k) y = {bn(c)}", "weights of Conv 'c' are not .* or computed"),
    "bias": ("k = Bernoulli(g) c = Conv(x, w, k) y = {bn(c)}", "the bias of Conv 'c' is computed"),
    "custom": ("c = my.Conv(x, w) y = {bn(c)}", "no operator with weights directly before it"),
    "rows": ("c = MatMul(x, u) y = {bn(c)}", "does not multiply two matrices"),
    "product": ("c = MatMul(x, x) y = {bn(c)}", "not its second input"),
    "training": ("c = Conv(x, w) y = BatchNormalization<training_mode = 1>(c, g, h, m, v)", "training mode"),
    "outputs": ("c = Conv(x, w) y, p, q = BatchNormalization<training_mode = 1>(c, g, h, m, v) z = Add(p, q)", "train"),
    "not finite": ("c = Conv(x, w) y = BatchNormalization(c, g, h, m, zero)", "would not be finite in float32"),
    "few": ("c = Conv(x, w) y = BatchNormalization(c, one, one, one, one)", "not one for each of the 4 channels"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STAYS)
def test_it_stays_with_a_reason(kind: str) -> None:
    nodes, wanted = STAYS[kind]
    for name in "xrcy":
        nodes = nodes.replace(f"{{bn({name})}}", BN.format(name))
    extra = {"zero": np.full(4, -1, np.float32), "one": np.ones(1, np.float32)}
    proto = network(
        f"(float[2, 4, 8, 8] x) => (float[2, 4, 8, 8] y) {{ {nodes} }}", w=W, u=numbers(8, 8), **norm(4), **extra
    )
    made = fold_batch_norms(loaded(proto))
    assert made.folded == ()
    (reason,) = made.left.values()
    assert re.search(wanted, reason), reason
    assert made.proto == proto


@pytest.mark.parametrize(
    ("opset", "nodes", "wanted"),
    [
        (6, "c = Conv(x, w) y = BatchNormalization<is_test = 1>(c, g, h, m, v)", "opset 6 is older than 7"),
        (8, "c = Conv(x, w) y = BatchNormalization<spatial = 0>(c, g, h, m, v)", "for each pixel"),
        (9, "c = Conv(x, w) y, p, q, r, s = BatchNormalization(c, g, h, m, v)", "it has further outputs"),
        (9, "c = Conv(x, w) y, p = BatchNormalization(c, g, h, m, v) z = Relu(p)", "further outputs are read: p"),
    ],
)
def test_old_ways_to_say_training(opset: int, nodes: str, wanted: str) -> None:
    made = fold_batch_norms(loaded(network(f"{IMAGE} {{ {nodes} }}", opset, 4, w=W, **norm(4))))
    assert (made.folded, list(made.left)) == ((), ["y"])
    assert wanted in made.left["y"]


def test_inside_a_subgraph_it_stays() -> None:
    text = (f"(float[2, 4, 8, 8] x, bool b) => (float[2, 4, 8, 8] y) {{ y = If(b)"
            f"<then_branch = t () => (float[2, 4, 8, 8] p) {{ c = Conv(x, w) p = {BN.format('c')} }},"
            f" else_branch = e () => (float[2, 4, 8, 8] q) {{ q = Relu(x) }}> }}")  # fmt: skip
    proto = network(text, w=W, **norm(4))
    made = fold_batch_norms(loaded(proto))
    assert (made.folded, made.left) == ((), {"p": "inside If 'y'"})
    assert made.proto == proto


def test_what_a_subgraph_reads_is_read_elsewhere() -> None:
    text = (f"(float[2, 4, 8, 8] x, bool b) => (float[2, 4, 8, 8] y) {{ c = Conv(x, w) n = {BN.format('c')} y = If(b)"
            " <then_branch = t () => (float[2, 4, 8, 8] p) { p = Relu(c) },"
            " else_branch = e () => (float[2, 4, 8, 8] q) { q = Relu(n) }> }")  # fmt: skip
    assert "read elsewhere" in fold_batch_norms(loaded(network(text, w=W, **norm(4)))).left["n"]


def test_shared_weights_are_copied() -> None:
    text = f"c = Conv(x, w, k) d = {BN.format('c')} e = Conv(d, w, k) f = BatchNormalization(e, g2, h, m, v2)"
    model = loaded(network(f"(float[2, 4, 8, 8] x) => (float[2, 4, 8, 8] y) {{ {text} y = Conv(f, w) }}",
                           w=W, k=numbers(4), **norm(4), **norm(4, "2")))  # fmt: skip
    made = fold_batch_norms(model)
    same(model, made, x=numbers(2, 4, 8, 8))
    names = [t.name for t in made.proto.graph.initializer]
    assert names[0] == "w"
    assert [list(n.input[1:]) for n in made.proto.graph.node] == [["w_folded", "k_folded"], ["w_folded_", "k"], ["w"]]
    np.testing.assert_array_equal(numpy_helper.to_array(made.proto.graph.initializer[0]), W)


def test_a_shared_parameter_stays_for_its_other_readers() -> None:
    model = loaded(network(f"(float[2, 4, 8, 8] x) => (float[2, 4, 8, 8] y)"
                           f"{{ c = Conv(x, w, g) d = {BN.format('c')} y = PRelu(d, s) }}", w=W,
                           s=numbers(4, 1, 1), **norm(4)))  # fmt: skip
    made = fold_batch_norms(model)
    assert {t.name for t in made.proto.graph.initializer} == {"w", "s", "g"}
    same(model, made, x=numbers(2, 4, 8, 8))


def test_two_in_a_row_and_constant_nodes_and_their_other_names() -> None:
    text = (f"k = Constant<value = float[4] {{1.0, 2.0, 0.5, -1.0}}>() a = Identity(k) b = Identity(a)"
            f" c = Conv(x, w, b) d = {BN.format('c')} e = BatchNormalization(d, a, b, k, v) y = Relu(e)")  # fmt: skip
    model = loaded(network(f"(float[2, 4, 8, 8] x) => (float[2, 4, 8, 8] y) {{ {text} }}", w=W, **norm(4)))
    made = fold_batch_norms(model)
    assert kinds(made.proto) == ["Conv", "Relu"]
    assert made.proto.graph.node[0].output[0] == "e", "statistics know it by that name"
    assert made.folded == ("d", "e")
    same(model, made, x=numbers(2, 4, 8, 8))


def test_nothing_else_is_touched() -> None:
    proto = network(f"{IMAGE} {{ c = Conv(x, w) d = {BN.format('c')} y = Relu(d) }}", w=W, unused=W, **norm(4))
    proto.graph.node[0].name, proto.graph.node[0].doc_string = "conv", "text"
    proto.metadata_props.add(key="a", value="b")
    proto.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4, 8, 8]) for name in "cd"
    )
    made = fold_batch_norms(loaded(proto)).proto
    assert {t.name for t in made.graph.initializer} == {"w", "unused", "w_bias"}
    assert [v.name for v in made.graph.value_info] == ["d"]
    assert made.metadata_props == proto.metadata_props
    assert made.graph.node[1] == proto.graph.node[2]
    assert (made.graph.node[0].name, made.graph.node[0].doc_string) == ("conv", "text")


def test_old_files_list_their_weights_as_inputs() -> None:
    names = "".join(f", float[4] {name}" for name in "bghmv")
    text = f"(float[2, 4, 8, 8] x, float[4, 4, 1, 1] w{names}) => (float[2, 4, 8, 8] y)"
    proto = network(f"{text} {{ c = Conv(x, w) d = {BN.format('c')} e = Conv(d, w, b) y = {BN.format('e')} }}", 8, 3,
                    w=W, b=numbers(4), **norm(4))  # fmt: skip
    model = loaded(proto)
    made = fold_batch_norms(model)
    assert len(made.folded) == 2
    same(model, made, by=(computed,), x=numbers(2, 4, 8, 8))  # the reference has no BatchNormalization so old
    assert [i.name for i in Model(model.path, made.proto, "").inputs] == ["x"]


@pytest.mark.parametrize(("dtype", "kind", "by"), [(np.float16, "float16", BOTH), (np.float64, "double", (referred,))])
def test_types_are_kept(dtype: Any, kind: str, by: Any) -> None:
    weights = {name: array.astype(dtype) for name, array in {"w": W, **norm(4)}.items()}
    text = f"({kind}[2, 4, 8, 8] x) => ({kind}[2, 4, 8, 8] y)"
    model = loaded(network(f"{text} {{ c = Conv(x, w) y = {BN.format('c')} }}", **weights))
    made = fold_batch_norms(model)
    assert made.folded == ("y",)
    assert {numpy_helper.to_array(t).dtype for t in made.proto.graph.initializer} == {np.dtype(dtype)}
    same(model, made, 1e-2 if dtype == np.float16 else 1e-7, by, x=numbers(2, 4, 8, 8).astype(dtype))


def test_float16_that_overflows_stays() -> None:
    weights = {name: array.astype(np.float16) for name, array in {"w": 1000 * W, **norm(4)}.items()}
    weights["v"] = np.full(4, 1e-7, np.float16)
    text = "(float16[2, 4, 8, 8] x) => (float16[2, 4, 8, 8] y)"
    made = fold_batch_norms(loaded(network(f"{text} {{ c = Conv(x, w) y = {BN.format('c')} }}", **weights)))
    assert made.left == {"y": "folded into Conv 'c', weights would not be finite in float16"}


def test_external_weights(tmp_path: Path) -> None:
    proto = network(f"{IMAGE} {{ c = Conv(x, w) d = {BN.format('c')} y = Conv(d, u) }}", w=W, u=W, **norm(4))
    inside = fold_batch_norms(loaded(proto)).proto
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    made = fold_batch_norms(load_model(tmp_path / "net.onnx")).proto
    outside = [t.name for t in made.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    assert outside == ["u"], "what does not change stays where it is"
    onnx.load_external_data_for_model(made, str(tmp_path))
    for ours, theirs in zip(made.graph.initializer, inside.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(ours), numpy_helper.to_array(theirs))


STEPS = (
    "{new} = Conv({old}, {w})", "{new} = Conv({old}, {w}, g)", "{new} = ConvTranspose({old}, {w}, m)",
    "{new} = BatchNormalization({old}, g, h, m, v)", "{new} = BatchNormalization({old}, v, m, h, v)",
    "{new} = Relu({old})", "{new} = Add({old}, {other})",
)  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    tensors, nodes = ["x"], []
    for index in range(draw(st.integers(2, 9))):
        step = draw(st.sampled_from(STEPS))
        other, w = draw(st.sampled_from(tensors)), draw(st.sampled_from(["w", "u"]))
        nodes.append(step.format(new=f"t{index}", old=tensors[-1], other=other, w=w))
        tensors.append(f"t{index}")
    text = " ".join(nodes).replace(f"{tensors[-1]} =", "y =")
    parameters = {"g": numbers(4), "h": numbers(4), "m": numbers(4), "v": RANDOM.uniform(0.5, 2, 4).astype(np.float32)}
    return network(f"(float[2, 4, 8, 8] x) => (float[2, 4, 8, 8] y) {{ {text} }}", w=W, u=W[::-1].copy(), **parameters)


@given(networks())
@settings(max_examples=40)
def test_the_network_computes_the_same(proto: onnx.ModelProto) -> None:
    model = loaded(proto)
    made = fold_batch_norms(model)
    assert len(made.folded) + len(made.left) == kinds(proto).count("BatchNormalization")
    assert kinds(made.proto).count("BatchNormalization") == len(made.left)
    tensors = {name for node in made.proto.graph.node for name in node.output}
    assert tensors <= {name for node in proto.graph.node for name in node.output}
    same(model, made, tolerance=2e-4, x=numbers(2, 4, 8, 8))

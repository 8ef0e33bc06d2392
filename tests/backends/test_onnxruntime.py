"""onnxruntime shows every watched tensor with the value that the ONNX reference evaluator gives it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from quantkit.backends.onnxruntime import BACKEND
from quantkit.backends.onnxruntime.inference import OnnxRuntimeSession
from quantkit.backends.session import backend_label
from quantkit.errors import BackendError, ModelError
from quantkit.graph import Model, load_model, watched_tensors

Feeds = dict[str, NDArray[Any]]
RANDOM = np.random.default_rng(11)
ONNX_OPSETS = onnx.defs.onnx_opset_version()


def normal(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


def network(text: str, opset: int = 17, ir: int = 8, **weights: NDArray[Any]) -> onnx.ModelProto:
    """A model from ONNX's own text syntax, with weights as initializers."""
    proto = parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}]> net {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return proto


def session_for(model: Model, **options: Any) -> OnnxRuntimeSession:
    watch = watched_tensors(model)
    return OnnxRuntimeSession(model, watch.tensors, fixed_shapes=watch.fixed_shapes, **options)


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    def save_and_load(proto: onnx.ModelProto) -> Model:
        onnx.checker.check_model(proto)
        onnx.save(proto, tmp_path / "net.onnx")
        return load_model(tmp_path / "net.onnx")

    return save_and_load


def check(
    model: Model, batches: list[Feeds], *, like: onnx.ModelProto | None = None, rtol: float = 1e-4, atol: float = 1e-5
) -> None:
    """Every watched tensor against the reference, the outputs against plain onnxruntime, batch by batch.

    `like`: a model with the same tensors that the reference evaluates in place of this one.
    """
    session = session_for(model)
    inputs = {i.name for i in model.inputs}
    watched = [name for name in watched_tensors(model).tensors if name not in inputs]
    assert session.tensors == tuple(watched)
    run, reference = session.runner(), ReferenceEvaluator(like or model.proto)
    plain = onnxruntime.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    for feeds in batches:
        values = run(feeds)
        assert set(values) == set(watched)
        for name, wanted in zip(watched, reference.run(watched, feeds), strict=True):
            assert values[name].shape == np.shape(wanted), name
            assert values[name].dtype == wanted.dtype, name
            np.testing.assert_allclose(values[name], wanted, rtol=rtol, atol=atol, err_msg=name)
        for name, wanted in zip(model.outputs, plain.run(None, feeds), strict=True):
            if name in values:
                np.testing.assert_allclose(values[name], wanted, rtol=max(1e-5, rtol / 10), atol=1e-5, err_msg=name)


RESIDUAL = """(float[N, 3, 8, 8] x) => (float[N, 5] y) {
    c = Conv<pads = [1, 1, 1, 1], kernel_shape = [3, 3]>(x, w)
    n = BatchNormalization(c, scale, bias, mean, var)
    r = Relu(n)
    d = Conv<pads = [1, 1, 1, 1], kernel_shape = [3, 3]>(r, v)
    a = Add(d, r)
    m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)
    g = GlobalAveragePool(m)
    f = Flatten(g)
    y = Gemm<transB = 1>(f, k, z)
}"""
RESIDUAL_WEIGHTS = {
    "w": normal(4, 3, 3, 3),
    "v": normal(4, 4, 3, 3),
    "k": normal(5, 4),
    "z": normal(5),
    **{name: np.abs(normal(4)) + np.float32(0.1) for name in ("scale", "bias", "mean", "var")},
}


@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (9, 4), (11, 6), (13, 7), (17, 8), (21, 10)])
def test_a_residual_network_of_any_opset(opset: int, ir: int, saved: Any) -> None:
    if opset > ONNX_OPSETS:
        pytest.skip(f"onnx {onnx.__version__} knows opsets up to {ONNX_OPSETS}")
    proto = network(RESIDUAL, opset, ir, **RESIDUAL_WEIGHTS)
    if ir < 4:
        proto.graph.input.extend(
            helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in proto.graph.initializer
        )
    # The reference takes BatchNormalization below opset 14 for training; its inference has not changed since 7.
    like = network(RESIDUAL, 17, **RESIDUAL_WEIGHTS)
    check(saved(proto), [{"x": normal(n, 3, 8, 8)} for n in (2, 2, 1, 2)], like=like)


NETWORKS: dict[str, tuple[str, dict[str, NDArray[Any]], tuple[int, ...]]] = {
    "clip": (
        "(float[N, 6] x) => (float[N, 6] y) { a = Clip(x, low, high)  b = HardSwish(a)  y = Clip(b, low) }",
        {"low": np.array(0, np.float32), "high": np.array(6, np.float32)},
        (3, 6),
    ),
    "activations": (
        "(float[N, 6] x) => (float[N, 6] y) { s = Sigmoid(x)  m = Mul(x, s)  t = Tanh(m)  e = Erf(t)  l = LeakyRelu(e)"
        " i = Identity(l)  y = Softplus(i) }",
        {},
        (3, 6),
    ),
    "softmax": (
        "(float[N, 4, 5] x) => (float[N, 4, 5] y) { s = Softmax<axis = 1>(x)  l = LogSoftmax(s)  y = Exp(l) }",
        {},
        (2, 4, 5),
    ),
    "attention": (
        "(float[N, 5, 8] x) => (float[N, 5, 8] y) { n = LayerNormalization(x, s, b)  q = MatMul(n, w)"
        " t = Transpose<perm = [0, 2, 1]>(n)  a = MatMul(q, t)  p = Softmax(a)  o = MatMul(p, n)  y = Add(o, x) }",
        {"s": normal(8), "b": normal(8), "w": normal(8, 8)},
        (2, 5, 8),
    ),
    "decoder": (
        "(float[N, 2, 4, 4] x) => (float[N, 3, 16, 16] y) { u = ConvTranspose<strides = [2, 2]>(x, w)"
        ' y = Resize<mode = "nearest">(u, , r) }',
        {"w": normal(2, 3, 2, 2), "r": np.array([1, 1, 2, 2], np.float32)},
        (2, 2, 4, 4),
    ),
    "concatenation": (
        "(float[N, 6] x) => (float[N, 9] y) { a, b = Split<axis = 1>(x, parts)  c = Neg(a)"
        " y = Concat<axis = 1>(b, c, a, c, a) }",
        {"parts": np.array([1, 5])},
        (2, 6),
    ),
    "views": (
        "(float[N, 6] x) => (float[N, 2, 3] y, float[N, 6] s) { r = Relu(x)  v = Reshape(r, shape)"
        " t = Transpose<perm = [0, 2, 1]>(v)  u = Unsqueeze(t, one)  q = Squeeze(u, one)"
        " z = Transpose<perm = [0, 2, 1]>(q)  y = Identity(z)  d = Dropout(r)  s = Identity(d) }",
        {"shape": np.array([0, 2, 3]), "one": np.array([1])},
        (2, 6),
    ),
    "scalars": (
        "(float[N, 6] x) => (float[N, 6] y, float m) { m = ReduceMean<keepdims = 0>(x)  y = Sub(x, m) }",
        {},
        (2, 6),
    ),
    "an output that is also inside": (
        "(float[N, 6] x) => (float[N, 6] r, float[N, 6] y) { r = Relu(x)  y = Exp(r) }",
        {},
        (2, 6),
    ),
    "no rows": (
        "(float[N, 6] x) => (float[0, 6] y) { y = Slice(x, none, none) }",
        {"none": np.array([0])},
        (2, 6),
    ),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_small_networks(kind: str, saved: Any) -> None:
    text, weights, shape = NETWORKS[kind]
    check(saved(network(text, **weights)), [{"x": 3 * normal(*shape)} for _ in range(3)])


@pytest.mark.parametrize("batch", ["N", 2])
def test_two_inputs_with_a_static_or_a_dynamic_batch(batch: Any, saved: Any) -> None:
    values = f"(float[{batch}, 4] x, int64[{batch}, 1] ids) => (float[{batch}, 4] y)"
    text = values + "{ e = Gather(w, ids)  s = Squeeze(e, one)  y = Add(x, s) }"
    model = saved(network(text, w=normal(9, 4), one=np.array([1])))
    sizes = (2, 2) if batch == 2 else (3, 3, 1, 3)
    check(model, [{"x": normal(n, 4), "ids": RANDOM.integers(0, 9, (n, 1))} for n in sizes])


def test_a_float16_network(saved: Any) -> None:
    half = {name: array.astype(np.float16) for name, array in RESIDUAL_WEIGHTS.items()}
    model = saved(network(RESIDUAL.replace("float[", "float16["), **half))
    check(model, [{"x": normal(2, 3, 8, 8).astype(np.float16)} for _ in range(2)], rtol=2e-2, atol=2e-2)


def test_a_float64_tensor_keeps_its_type(saved: Any) -> None:
    text = "(float[N, 4] x) => (float[N, 4] y) { d = Cast<to = 11>(x)  e = Exp(d)  y = Cast<to = 1>(e) }"
    check(saved(network(text)), [{"x": normal(2, 4)}] * 2)


LARGEST = "r = Round(x)  i = Cast<to = 7>(r)  a = Abs(i)  m = ReduceMax<keepdims = 0>(a)  z = Reshape(m, all)"
"""z: int64 [1], the largest |x|, rounded."""


@pytest.mark.parametrize(
    "operators",
    [
        "r = Relu(x)  n = NonZero(r)  y = Cast<to = 1>(n)  e = Reshape(x, all)",
        "r = Relu(x)  f = Reshape(r, all)  b = Cast<to = 9>(f)  y = Compress(x, b)",
        f"{LARGEST}  o = ConstantOfShape(z)  y = Exp(o)",
        f"{LARGEST}  y = CenterCropPad<axes = [1]>(x, z)",
    ],
)
def test_shapes_that_depend_on_values_change_from_run_to_run(operators: str, saved: Any) -> None:
    model = saved(network(f"(float[N, 4] x) => (float y) {{ {operators} }}", opset=18, all=np.array([-1])))
    rows = np.array([[-1, 2, -3, 4], [1, 2, -3, 9]], np.float32)
    check(model, [{"x": rows}, {"x": 2 * rows}, {"x": -rows}, {"x": rows - 3}])


def test_branches_run_and_their_results_are_watched(saved: Any) -> None:
    text = """(float[N, 4] x, bool c) => (float[N, 4] y) {
        h = If(c) <then_branch = yes () => (float[N, 4] t) { t = Neg(x) },
                   else_branch = no () => (float[N, 4] e) { e = Exp(x) }>
        y = Relu(h) }"""
    check(saved(network(text)), [{"x": normal(2, 4), "c": np.array(c)} for c in (True, False, True)])


@pytest.mark.parametrize("attributes", [False, True])
def test_weights_in_files_of_their_own(attributes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = network(RESIDUAL, **RESIDUAL_WEIGHTS)
    if attributes:
        (weight,) = [w for w in proto.graph.initializer if w.name == "k"]
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=weight))
        proto.graph.initializer.remove(weight)
    (tmp_path / "model").mkdir()
    onnx.save_model(
        proto, tmp_path / "model" / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0,
        convert_attribute=attributes,
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = load_model(Path("model") / "net.onnx")
    embedded = onnx.load(tmp_path / "model" / "net.onnx")
    feeds = {"x": normal(2, 3, 8, 8)}
    values = session_for(model).runner()(feeds)
    names = list(values)
    assert "y" in names
    for name, wanted in zip(names, ReferenceEvaluator(embedded).run(names, feeds), strict=True):
        np.testing.assert_allclose(values[name], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_a_model_and_weights_behind_symbolic_links_run(tmp_path: Path) -> None:
    for folder in ("files", "snapshot"):
        (tmp_path / folder).mkdir()
    proto = network(RESIDUAL, **RESIDUAL_WEIGHTS)
    onnx.save_model(proto, tmp_path / "files" / "1", save_as_external_data=True, location="net.data", size_threshold=0)
    (tmp_path / "files" / "net.data").rename(tmp_path / "files" / "2")
    (tmp_path / "snapshot" / "net.onnx").symlink_to(tmp_path / "files" / "1")
    (tmp_path / "snapshot" / "net.data").symlink_to(tmp_path / "files" / "2")
    values = session_for(load_model(tmp_path / "snapshot" / "net.onnx")).runner()(
        {"x": np.ones((1, 3, 8, 8), np.float32)}
    )
    assert np.isfinite(values["y"]).all()


def test_the_model_is_left_as_it_was(saved: Any) -> None:
    model = saved(network(RESIDUAL, **RESIDUAL_WEIGHTS))
    before = model.proto.SerializeToString(deterministic=True)
    session_for(model).runner()({"x": normal(1, 3, 8, 8)})
    assert model.proto.SerializeToString(deterministic=True) == before


def test_only_what_was_asked_for_is_returned_in_that_order(saved: Any) -> None:
    model = saved(network(RESIDUAL, **RESIDUAL_WEIGHTS))
    for tensors in (("r", "c"), ("m",), ()):
        session = OnnxRuntimeSession(model, tensors, fixed_shapes=True)
        assert session.tensors == tensors
        run = session.runner()
        for _ in range(2):
            assert tuple(run({"x": normal(2, 3, 8, 8)})) == tensors


@pytest.mark.parametrize("fixed", [False, True])
def test_runners_in_several_threads_give_what_one_gives(fixed: bool, saved: Any) -> None:
    model = saved(network(RESIDUAL, **RESIDUAL_WEIGHTS))
    session = OnnxRuntimeSession(model, watched_tensors(model).tensors, fixed_shapes=fixed)
    batches = [{"x": normal(1 + i % 3 // 2, 3, 8, 8)} for i in range(60)]

    def copied(values: Mapping[str, NDArray[Any]]) -> Feeds:
        return {name: array.copy() for name, array in values.items()}

    def several(start: int) -> list[Feeds]:
        run = session.runner()
        return [copied(run(feeds)) for feeds in batches[start::4]]

    one = session.runner()
    wanted = [copied(one(feeds)) for feeds in batches]
    with ThreadPoolExecutor(4) as pool:
        for start, part in enumerate(pool.map(several, range(4))):
            for values, expected in zip(part, wanted[start::4], strict=True):
                assert all(np.array_equal(values[name], expected[name]) for name in expected)


def test_the_version_names_library_and_provider() -> None:
    assert backend_label(BACKEND, "cpu") == f"onnxruntime {onnxruntime.__version__} cpu"


@pytest.mark.parametrize("provider", ["tpu", "CPUExecutionProvider", ""])
def test_an_unknown_provider_is_refused(provider: str, saved: Any) -> None:
    model = saved(network(RESIDUAL, **RESIDUAL_WEIGHTS))
    with pytest.raises(BackendError, match=repr(provider)) as caught:
        session_for(model, provider=provider)
    assert "cpu" in caught.value.problem


BROKEN = {
    "unknown operator": "(float[N, 4] x) => (float[N, 4] y) { y = Frobnicate(x) }",
    "operator of another runtime": "(float[N, 4] x) => (float[N, 4] y) { y = elsewhere.Relu(x) }",
    "unknown tensor": "(float[N, 4] x) => (float[N, 4] y) { y = Relu(z) }",
    "shapes that disagree": "(float[2, 4] x) => (float[2, 5] y) { y = MatMul(x, w) }",
    "a loop": "(float[N, 4] x) => (float[N, 4] y) { y = Add(x, z)  z = Relu(y) }",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_model_that_cannot_be_opened_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    weights = {"w": normal(3, 5)} if kind == "shapes that disagree" else {}
    onnx.save(network(BROKEN[kind], **weights), tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"net\.onnx") as caught:
        session_for(load_model(tmp_path / "net.onnx"))
    assert "\n" not in caught.value.problem


def test_an_opset_of_the_future_is_refused(tmp_path: Path) -> None:
    onnx.save(network(RESIDUAL, opset=999, **RESIDUAL_WEIGHTS), tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"net\.onnx"):
        session_for(load_model(tmp_path / "net.onnx"))


def wrong_feeds() -> list[Feeds]:
    return [{"x": normal(2, 5)}, {"x": normal(2, 4).astype(np.float64)}, {}, {"z": normal(2, 4)}, {"x": normal(4)}]


@pytest.mark.parametrize("feeds", wrong_feeds(), ids=["shape", "type", "none", "name", "rank"])
@pytest.mark.parametrize("first", [True, False])
def test_feeds_that_do_not_fit_are_refused_and_the_runner_goes_on(first: bool, feeds: Feeds, saved: Any) -> None:
    model = saved(network("(float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"))
    run, good = session_for(model).runner(), {"x": normal(2, 4)}
    if not first:
        run(good)
    with pytest.raises(ModelError) as caught:
        run(feeds)
    assert "\n" not in caught.value.problem
    for _ in range(2):
        assert np.array_equal(run(good)["y"], np.maximum(good["x"], 0))


def test_integer_tensors_are_left_out_where_onnx_could_not_infer_types(saved: Any) -> None:
    proto = network("(float[N, 4] x) => (float[N, 4] y) { a, i = TopK<axis = 1>(x, k)  y = Relu(x) }", k=np.array([2]))
    session = OnnxRuntimeSession(saved(proto), ("a", "i", "y"))
    assert session.tensors == ("a", "y")
    assert helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT) == session.runner()({"x": normal(2, 4)})["a"].dtype


def test_an_output_that_declares_a_wrong_rank_is_read_run_after_run(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "length"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    run = OnnxRuntimeSession(load_model(tmp_path / "m.onnx"), ["y"], fixed_shapes=True).runner()
    for value in (1.0, 2.0):
        x = np.full((1, 2, 3), value, np.float32)
        assert np.array_equal(run({"x": x})["y"], x)

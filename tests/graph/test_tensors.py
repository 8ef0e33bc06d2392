"""The ONNX graph: which tensors are watched, which share a scale, and when two models are the same model."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

from quantkit.errors import ModelError
from quantkit.graph import ChannelView, Model, Watch, load_model, watched_tensors
from quantkit.graph.shape_inference import shapes_for_inputs
from quantkit.values import ModelInput

RANDOM = np.random.default_rng(5)
WEIGHT = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)


def network(text: str, opset: int = 17, ir: int = 8, **weights: NDArray[Any]) -> onnx.ModelProto:
    """A model from ONNX's own text syntax, with weights as initializers."""
    proto = parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}]> net {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return proto


@pytest.fixture
def loaded(tmp_path: Path) -> Any:
    def save_and_load(proto: onnx.ModelProto, name: str = "net.onnx") -> Model:
        onnx.save(proto, tmp_path / name)
        return load_model(tmp_path / name)

    return save_and_load


@pytest.fixture
def watched(loaded: Any) -> Any:
    def watch(text: str, opset: int = 17, ir: int = 8, **weights: NDArray[Any]) -> Watch:
        return watched_tensors(loaded(network(text, opset, ir, **weights)))

    return watch


# What a model is --------------------------------------------------------------------------------------------------


def test_inputs_are_read_with_type_and_shape(loaded: Any) -> None:
    inputs = "(float[N, 3, 8, 8] image, int64[2] ids, float16 scalar)"
    proto = network(inputs + "=> (float[N, 3, 8, 8] y) { y = Relu(image) }")
    proto.graph.input[0].type.tensor_type.shape.dim[2].Clear()
    model = loaded(proto)
    assert model.inputs == (
        ModelInput("image", "float32", ("N", 3, None, 8)),
        ModelInput("ids", "int64", (2,), batch_axis=None),
        ModelInput("scalar", "float16", (), batch_axis=None),
    )
    assert [i.fixed_batch for i in model.inputs] == [None, None, None], "one table for all samples, beside a free batch"
    assert model.inputs[0].describe() == "image float32 [N,3,?,8]"
    assert (model.outputs, model.opset, model.metadata) == (("y",), 17, {})


def test_initializers_among_the_inputs_are_no_inputs(loaded: Any) -> None:
    """As exporters wrote it before IR version 4."""
    text = "(float[N, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[N, 4, 6, 6] y) { y = Conv(x, w) }"
    model = loaded(network(text, opset=8, ir=3, w=WEIGHT))
    assert [i.name for i in model.inputs] == ["x"]
    assert watched_tensors(model).tensors == ("x", "y")


# Which tensors are watched ----------------------------------------------------------------------------------------


def test_inputs_come_first_then_outputs_in_the_order_of_the_graph(watched: Any) -> None:
    watch = watched(
        "(float[N, 3, 8, 8] x, float[N, 4, 6, 6] skip) => (float[N, 4, 6, 6] y, float[N, 4, 6, 6] c)"
        "{ c = Conv(x, w)  r = Relu(c)  y = Add(r, skip) }",
        w=WEIGHT,
    )
    assert watch.tensors == ("x", "skip", "c", "r", "y")
    assert watch.fixed_shapes
    assert watch.unwatched == {}


def test_every_output_of_an_operator_is_watched_and_absent_ones_are_not(watched: Any) -> None:
    watch = watched(
        "(float[N, 4] x) => (float[N, 2] y, float[N, 4] d)"
        "{ a, y = Split<axis = 1, num_outputs = 2>(x)  b = Relu(a)  d, = Dropout(x)  e = Concat<axis = 1>(b, a) }",
        opset=18,
    )
    assert watch.tensors == ("x", "y", "d")
    watch = watched(
        "(float[N, 4] x) => (float[N, 4] z) { a, b = Split<axis = 1, num_outputs = 2>(x)  z = Concat<axis = 1>(b, a) }",
        opset=18,
    )
    assert watch.tensors == ("x", "a", "b", "z")


CONSTANTS = {
    "initializer and what is computed from it": "{ t = Transpose(w)  s = Sigmoid(t)  y = MatMul(x, s) }",
    "constant nodes": "{ a = Constant<value_float = 2.0>()  b = Exp(a)  y = Mul(x, b) }",
    "shapes": "{ s = Shape(x)  f = Cast<to = 1>(s)  g = Sqrt(f)  p = ReduceProd<keepdims = 0>(g)  y = Mul(x, p) }",
    "a dimension": "{ s = Shape(x)  i = Constant<value_int=1>()  n = Gather(s, i)  f = Cast<to = 1>(n)  y = Mul(x, f)}",
    "filled by shape": "{ s = Shape(x)  o = ConstantOfShape(s)  y = Add(x, o) }",
    "size": "{ s = Size(x)  f = Cast<to = 1>(s)  y = Mul(x, f) }",
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_what_depends_on_weights_and_shapes_alone_is_not_watched(kind: str, watched: Any) -> None:
    weight = {"w": np.ones((4, 4), np.float32)} if "w" in CONSTANTS[kind] else {}
    assert watched(f"(float[N, 4] x) => (float[N, 4] y) {CONSTANTS[kind]}", **weight).tensors == ("x", "y")


def test_dead_operators_and_unread_inputs_are_not_watched(watched: Any) -> None:
    watch = watched(
        "(float[N, 4] x, float[N, 4] unread) => (float[N, 4] y) { y = Relu(x)  dead = Exp(x)  deader = Exp(dead) }"
    )
    assert watch.tensors == ("x", "y")


def test_tensors_that_are_no_floats_are_not_watched(watched: Any) -> None:
    watch = watched(
        "(float[N, 4] x, int64[N, 1] ids) => (float[N, 4] y, double[N, 4] d, float16[N, 4] h, int64[N, 1] i)"
        "{ v, i = TopK<axis = 1>(x, k)  b = Greater(x, v)  j = Add(i, ids)  f = Cast<to = 1>(j)  z = Where(b, x, f)"
        "  d = Cast<to = 11>(z)  h = Cast<to = 10>(z)  q = Cast<to = 16>(z)  y = Cast<to = 1>(q) }",
        k=np.array([1]),
    )
    assert watch.tensors == ("x", "v", "f", "z", "d", "h", "y")


def test_random_tensors_are_no_constants(watched: Any) -> None:
    watch = watched("(float[2, 4] x) => (float[2, 4] y) { r = RandomNormal<shape = [2, 4]>()  y = Add(x, r) }")
    assert watch.tensors == ("x", "r", "y")


# Pools and channels -----------------------------------------------------------------------------------------------


def test_pools_share_the_scale_of_what_stands_before_them(watched: Any) -> None:
    watch = watched(
        "(float[N, 3, 8, 8] x) => (float[N, 3, 1, 1] g, float[N, 3, 4, 4] a, float[N, 3, 2, 2] o)"
        "{ r = Relu(x)  m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)"
        "  a = AveragePool<kernel_shape = [1, 1]>(m)  g = GlobalAveragePool(a)"
        "  q = Relu(a)  o = MaxPool<kernel_shape = [3, 3]>(q) }"
    )
    assert watch.shared == {"m": "r", "a": "r", "o": "q"}
    assert watch.tensors == ("x", "r", "m", "a", "g", "q", "o")


VIEWS = {
    "Conv": ("(float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) { r = Relu(x)  y = Conv(r, w) }", ("r", 1)),
    "ConvTranspose": ("(float[N, 4, 8, 8] x) => (float[N, 3, 10, 10] y) { y = ConvTranspose(x, w) }", ("x", 1)),
    "Gemm": ("(float[N, 4] x) => (float[N, 4] y) { y = Gemm<transB = 1>(x, m) }", ("x", 1)),
    "Gemm, transposed": ("(float[4, N] x) => (float[N, 4] y) { y = Gemm<transA = 1>(x, m) }", ("x", 0)),
    "MatMul, weights right": ("(float[N, 7, 4] x) => (float[N, 7, 4] y) { y = MatMul(x, m) }", ("x", -1)),
    "MatMul, weights left": ("(float[N, 4, 7] x) => (float[N, 4, 7] y) { y = MatMul(m, x) }", ("x", -2)),
    "MatMul, computed weights": (
        "(float[N, 4] x) => (float[N, 4] y) { t = Transpose(m)  y = MatMul(x, t) }",
        ("x", -1),
    ),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_activations_that_meet_weights_have_a_view_of_their_channels(kind: str, watched: Any) -> None:
    text, view = VIEWS[kind]
    weights = {"w": WEIGHT} if "w)" in text else {"m": np.eye(4, dtype=np.float32)}
    assert watched(text, **weights).channels == (ChannelView(*view),)


def test_a_view_is_listed_once_and_products_of_activations_have_none(watched: Any) -> None:
    text = (
        "(float[N, 3, 8, 8] x, float[7] v) => (float[N, 8, 6, 6] y, float[N, 3, 8, 8] z, float[4] u)"
        "{ a = Conv(x, w)  b = Conv(x, w)  y = Concat<axis = 1>(a, b)  z = MatMul(x, x)  u = MatMul(m, v) }"
    )
    watch = watched(text, w=WEIGHT, m=np.zeros((4, 7), np.float32))
    assert watch.channels == (ChannelView("x", 1),)


# Subgraphs and shapes ---------------------------------------------------------------------------------------------

BRANCHES = """(float[N, 4] x, bool c) => (float[N, 4] y) {
    outer = Relu(x)
    h = If(c) <then_branch = yes () => (float[N, 4] t) { k = Exp(outer)  t = Neg(k) },
               else_branch = no () => (float[N, 4] e) { e = Identity(x) }>
    y = Relu(h)
}"""


def test_tensors_inside_branches_are_reported_and_what_they_read_is_watched(watched: Any) -> None:
    watch = watched(BRANCHES)
    assert watch.tensors == ("x", "outer", "h", "y")
    ((_, reason),) = watch.unwatched.items()
    assert "If" in reason
    assert "3 operators" in reason
    assert not watch.fixed_shapes


def test_bfloat16_tensors_are_reported(watched: Any) -> None:
    watch = watched("(float[N, 4] x) => (float[N, 4] y) { b = Cast<to = 16>(x)  y = Cast<to = 1>(b) }")
    assert watch.tensors == ("x", "y")
    assert watch.unwatched["bfloat16"].startswith("1 bfloat16 tensors")


def test_every_operator_with_tensors_inside_is_reported_named_or_not(watched: Any) -> None:
    branch = BRANCHES[BRANCHES.index("h = If") : BRANCHES.index("y = Relu")]
    assert len(watched(BRANCHES.replace("y = Relu(h)", branch.replace("h = If", "y = If"))).unwatched) == 2


SHAPES = {
    "{ y = Relu(x) }": True,
    "{ s = Shape(x)  y = Reshape(x, s) }": True,
    "{ n = NonZero(x)  y = Cast<to = 1>(n) }": False,
    "{ i = Cast<to = 7>(x)  f = Reshape(i, minus)  y = ConstantOfShape(f) }": False,
    "{ i = Cast<to = 7>(x)  f = Reshape(i, minus)  y = CenterCropPad(x, f) }": False,
}


@pytest.mark.parametrize("text", SHAPES)
def test_shapes_are_fixed_where_no_value_decides_about_them(text: str, watched: Any) -> None:
    minus = {"minus": np.array([-1])} if "minus" in text else {}
    assert watched(f"(float[N, 4] x) => (float y) {text}", opset=18, **minus).fixed_shapes is SHAPES[text]


def test_shapes_follow_from_the_shapes_of_the_inputs(loaded: Any) -> None:
    model = loaded(
        network(
            "(float[N, 3, H, 8] x) => (float[N, 4, 6, 6] y, float z) { c = Conv(x, w)  y = Relu(c)  n = NonZero(c)"
            " z = Cast<to = 1>(n) }",
            w=WEIGHT,
        )
    )
    assert shapes_for_inputs(model, ["x", "c", "y", "z"], {"x": (2, 3, 10, 8)}) == {
        "x": (2, 3, 10, 8), "c": (2, 4, 8, 6), "y": (2, 4, 8, 6), "z": None,
    }  # fmt: skip


# Identity ---------------------------------------------------------------------------------------------------------


def convolution() -> onnx.ModelProto:
    return network(
        "(float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y)"
        "{ c = Conv(x, w)  b = Constant<value_float = 2.0>()  s = Mul(c, b)  y = Relu(s) }",
        w=WEIGHT,
    )


def document_everything(message: Any) -> None:
    """Write a text into every `doc_string` there is, however deep."""
    for _, value in message.ListFields():
        for child in [value] if hasattr(value, "ListFields") else value if isinstance(value, Iterable) else []:
            if hasattr(child, "ListFields"):
                document_everything(child)
    if "doc_string" in message.DESCRIPTOR.fields_by_name:
        message.doc_string = "told"


@pytest.mark.parametrize("text", ["convolution", "branches"])
def test_documentation_metadata_and_file_name_are_no_part_of_the_identity(text: str, loaded: Any) -> None:
    proto = convolution() if text == "convolution" else network(BRANCHES)
    original = loaded(proto).sha256
    document_everything(proto)
    proto.producer_name = proto.producer_version = "told"
    helper.set_model_props(proto, {"author": "somebody"})
    proto.graph.node[0].metadata_props.add(key="namespace", value="told")
    proto.graph.value_info.append(helper.make_tensor_value_info(proto.graph.node[0].output[0], TensorProto.FLOAT, None))
    assert loaded(proto, "other name.onnx").sha256 == original


def stored(proto: onnx.ModelProto, how: str) -> None:
    """The same weight in another encoding of the file."""
    (weight,) = proto.graph.initializer
    values = numpy_helper.to_array(weight)
    if how == "numbers":
        weight.CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, values.shape, values.ravel().tolist()))
    else:
        weight.CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, values.shape, values.tobytes(), raw=True))


def save_external(proto: onnx.ModelProto, path: Path, *, attributes: bool = False, one_file: bool = True) -> Model:
    onnx.save_model(
        proto, path, save_as_external_data=True, all_tensors_to_one_file=one_file,
        location=f"{path.stem}.data" if one_file else None, size_threshold=0, convert_attribute=attributes,
    )  # fmt: skip
    return load_model(path)


def test_it_does_not_matter_how_weights_are_stored(loaded: Any, tmp_path: Path) -> None:
    digests = set()
    for how in ("numbers", "bytes"):
        proto = convolution()
        stored(proto, how)
        digests.add(loaded(proto).sha256)
    digests.add(save_external(convolution(), tmp_path / "a.onnx").sha256)
    (tmp_path / "sub").mkdir()
    digests.add(save_external(convolution(), tmp_path / "sub" / "b.onnx", one_file=False).sha256)
    assert len(digests) == 1


def with_constant() -> onnx.ModelProto:
    proto = network("(float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, m) }")
    constant = helper.make_node("Constant", [], ["m"], value=numpy_helper.from_array(np.eye(4, dtype=np.float32), "m"))
    proto.graph.node.insert(0, constant)
    return proto


def with_branch_weights() -> onnx.ModelProto:
    proto = network(BRANCHES.replace("t = Neg(k)", "t = Mul(k, f)"))
    branch = next(a.g for a in proto.graph.node[1].attribute if a.name == "then_branch")
    branch.initializer.append(numpy_helper.from_array(np.arange(4, dtype=np.float32), "f"))
    return proto


@pytest.mark.parametrize("make", [with_constant, with_branch_weights])
def test_weights_outside_the_main_graphs_initializers_count_wherever_they_are_stored(make: Any, tmp_path: Path) -> None:
    onnx.save(make(), tmp_path / "embedded.onnx")
    external = save_external(make(), tmp_path / "external.onnx", attributes=True)
    assert external.sha256 == load_model(tmp_path / "embedded.onnx").sha256
    data = tmp_path / "external.data"
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    assert load_model(tmp_path / "external.onnx").sha256 != external.sha256
    data.unlink()
    with pytest.raises(ModelError, match=r"external\.data"):
        load_model(tmp_path / "external.onnx")


def flip_weight(proto: onnx.ModelProto) -> None:
    raw = bytearray(proto.graph.initializer[0].raw_data)
    raw[-1] ^= 1
    proto.graph.initializer[0].raw_data = bytes(raw)


def add_attribute(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("group", 1))


def change_constant(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].attribute[0].f = 3.0


def change_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 16


def change_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[3].op_type = "Sigmoid"


def rename_tensor(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].output[0] = proto.graph.node[3].input[0] = "renamed"


def transpose_weight(proto: onnx.ModelProto) -> None:
    dims = proto.graph.initializer[0].dims
    dims[:] = dims[::-1]


def fix_batch(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def swap_operators(proto: onnx.ModelProto) -> None:
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([nodes[1], nodes[0], *nodes[2:]])


@pytest.mark.parametrize(
    "change",
    [
        flip_weight,
        add_attribute,
        change_constant,
        change_opset,
        change_operator,
        rename_tensor,
        transpose_weight,
        fix_batch,
        swap_operators,
    ],
)
def test_whatever_the_network_computes_with_is_part_of_the_identity(change: Any, loaded: Any) -> None:
    proto = convolution()
    original = loaded(proto).sha256
    change(proto)
    assert loaded(proto).sha256 != original


def test_local_functions_are_part_of_the_identity_without_their_documentation(loaded: Any) -> None:
    text = """<ir_version: 9, opset_import: ["": 17, "here": 1]>
        net (float[N, 4] x) => (float[N, 4] y) { y = here.f(x) }
        <domain: "here", opset_import: ["": 17]>
        f <alpha: float = 0.5> (a) => (b) { c = LeakyRelu<alpha: float = @alpha>(a)  b = Exp(c) }"""
    proto = parser.parse_model(text)
    digests = {loaded(proto).sha256}
    document_everything(proto)
    assert loaded(proto).sha256 in digests
    for change in ("operator", "default of an attribute", "opset"):
        if change == "operator":
            proto.functions[0].node[1].op_type = "Neg"
        elif change == "opset":
            proto.functions[0].opset_import[0].version = 16
        else:
            proto.functions[0].attribute_proto[0].f = 0.25
        assert loaded(proto).sha256 not in digests, change
        digests.add(loaded(proto).sha256)


def test_texts_are_part_of_the_identity_one_by_one(loaded: Any) -> None:
    digests = set()
    for values in ([b"ab", b"c"], [b"a", b"bc"]):
        proto = convolution()
        proto.graph.initializer.append(helper.make_tensor("texts", TensorProto.STRING, [2], values))
        digests.add(loaded(proto).sha256)
    assert len(digests) == 2


# What cannot be read ----------------------------------------------------------------------------------------------


def test_external_data_that_is_missing_short_or_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path, data = tmp_path / "model" / "net.onnx", tmp_path / "model" / "net.data"
    save_external(convolution(), path)
    content = data.read_bytes()
    data.write_bytes(content[:-1])
    with pytest.raises(ModelError, match=r"net\.data ends inside weight 'w'"):
        load_model(path)
    data.unlink()
    with pytest.raises(ModelError, match=r"net\.data: No such file"):
        load_model(path)
    (tmp_path / "outside.data").write_bytes(content)
    for outside in ("../outside.data", str(tmp_path / "outside.data"), ""):
        proto = onnx.load(path, load_external_data=False)
        next(e for e in proto.graph.initializer[0].external_data if e.key == "location").value = outside
        onnx.save(proto, path)
        with pytest.raises(ModelError, match=r"net\.onnx"):
            load_model(path)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_a_model_and_its_data_may_be_symbolic_links_as_download_caches_make_them(tmp_path: Path) -> None:
    for folder in ("files", "snapshot", "flat"):
        (tmp_path / folder).mkdir()
    flat = save_external(convolution(), tmp_path / "flat" / "net.onnx")
    for name, stored_as in {"net.onnx": "0a1b", "net.data": "2c3d"}.items():
        (tmp_path / "flat" / name).rename(tmp_path / "files" / stored_as)
        (tmp_path / "snapshot" / name).symlink_to(Path("..") / "files" / stored_as)
    assert load_model(tmp_path / "snapshot" / "net.onnx").sha256 == flat.sha256


@pytest.mark.parametrize("place", ["offset", "length"])
@pytest.mark.parametrize("value", ["-1", "many", "99999999999999999999"])
def test_external_data_at_an_impossible_place_is_refused(place: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    save_external(convolution(), path)
    proto = onnx.load(path, load_external_data=False)
    entries = proto.graph.initializer[0].external_data
    entries.extend([] if any(e.key == place for e in entries) else [onnx.StringStringEntryProto(key=place)])
    next(e for e in entries if e.key == place).value = value
    onnx.save(proto, path)
    with pytest.raises(ModelError, match=r"net\.onnx"):
        load_model(path)


CONTENT = convolution().SerializeToString()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "cut.onnx"


@given(keep=st.integers(0, len(CONTENT) - 1))
def test_a_file_that_is_cut_short_is_refused(scratch: Path, keep: int) -> None:
    scratch.write_bytes(CONTENT[:keep])
    with pytest.raises(ModelError, match=r"cut\.onnx"):
        load_model(scratch)


@given(changes=st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_a_model_or_an_error_of_ours(scratch: Path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(CONTENT)
    for place, value in changes:
        content[place] = value
    scratch.write_bytes(content)
    try:
        model = load_model(scratch)
    except ModelError as error:
        told = error.problem
    else:
        told = f"{len(watched_tensors(model).tensors)} tensors of cut.onnx"
    assert "cut.onnx" in told


@pytest.mark.parametrize("content", [b"", b"this is text\n", b"\x89PNG\r\n", bytes(64)])
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    for path in (tmp_path / "net.onnx", tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(ModelError, match=path.name):
            load_model(path)

"""Division of products whose result is taken apart: the same numbers, and INT8 in NVIDIA's compiler."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from quantkit.backends.tensorrt_rtx.compiling import compiler_version, try_compile
from quantkit.graph import Model, load_model
from quantkit.graph.model import node_name
from quantkit.linting.registry import lint_model
from quantkit.qdq.removal import remove_qdq
from quantkit.rewrites.divided_products import divide_as, divide_products
from quantkit.sensitivity.existing_qdq import read_existing_qdq
from tests.support.qdq import model_of

needs_compiler = pytest.mark.skipif(compiler_version() is None, reason="needs the extra rtx")
RANDOM = np.random.default_rng(5)
WIDTH, TOKENS, HEADS, DEPTH = 16, 8, 2, 8
COLUMNS = 3 * WIDTH
SCALES = (2.0 ** RANDOM.integers(-9, -6, COLUMNS)).astype(np.float32)  # powers of two: sums are exact in any order
CODES = RANDOM.integers(-20, 21, (WIDTH, COLUMNS)).astype(np.int8)
TENSORS: dict[str, Any] = {
    "s": np.float32(0.25), "z": np.int8(0), "w": CODES, "f": (CODES * SCALES).astype(np.float32), "t": SCALES,
    "o": np.zeros(COLUMNS, np.int8), "b": (RANDOM.integers(-8, 9, COLUMNS) / 8).astype(np.float32),
    "wt": np.ascontiguousarray(CODES.T), "one": np.float32(0.0078125),
    "first": np.array([1, TOKENS, 3, HEADS, DEPTH]), "last": np.array([1, TOKENS, HEADS, 3, DEPTH]),
    "head": np.array([1, TOKENS, HEADS, DEPTH]), "i0": np.array(0), "i1": np.array(1), "i2": np.array(2),
    "ones": np.array([1, 1, 1]), "thirds": np.array([WIDTH] * 3), "halves": np.array([COLUMNS // 2] * 2),
    "zero": np.array([0]), "a0": np.array([0]), "a1": np.array([WIDTH]),
    "a2": np.array([2 * WIDTH]), "a3": np.array([COLUMNS]), "minus": np.array([-1]),
}  # fmt: skip
PAIR = "xq = QuantizeLinear(x, s, z) d = DequantizeLinear(xq, s, z)"
STORED = f"{PAIR} k = DequantizeLinear<axis = -1>(w, t, o)"
FLOAT = f"{PAIR} kq = QuantizeLinear<axis = 1>(f, t, o) k = DequantizeLinear<axis = 1>(kq, t, o)"
BIASED = "p = MatMul(d, k) m = Add(b, p)"
ATTENTION = "kt = Transpose<perm = [0, 1, 3, 2]>(kk) a = MatMul(qq, kt) n = Softmax(a) y = MatMul(n, vv)"
BEHIND = (
    "q4 = Reshape(q3, head) k4 = Reshape(k3, head) v4 = Reshape(v3, head) qq = Transpose<perm = [0, 2, 1, 3]>(q4)"
    f" kk = Transpose<perm = [0, 2, 1, 3]>(k4) vv = Transpose<perm = [0, 2, 1, 3]>(v4) {ATTENTION}"
)
GATHERED = f"qq = Gather<axis = 0>(u, i0) kk = Gather<axis = 0>(u, i1) vv = Gather<axis = 0>(u, i2) {ATTENTION}"
UNBOUND = (
    "q5, k5, v5 = Split<axis = 0>(u, ones) qq = Squeeze(q5, zero) kk = Squeeze(k5, zero) vv = Squeeze(v5, zero)"
    f" {ATTENTION}"
)
TURNED = "r = Reshape(m, first) u = Transpose<perm = [2, 0, 3, 1, 4]>(r)"
SPLIT = f"q3, k3, v3 = Split<axis = -1>(m, thirds) {BEHIND}"
SLICED = f"q3 = Slice(m, a0, a1, minus) k3 = Slice(m, a1, a2, minus) v3 = Slice(m, a2, a3, minus) {BEHIND}"

DIVIDED = {
    "gather": f"{STORED} {BIASED} {TURNED} {GATHERED}",
    "unbind": f"{STORED} {BIASED} {TURNED} {UNBOUND}",
    "split": f"{STORED} {BIASED} {SPLIT}",
    "slices": f"{STORED} {BIASED} {SLICED}",
    "no bias": f"{STORED} m = MatMul(d, k) {SPLIT}",
    "float weights": f"{FLOAT} {BIASED} {SPLIT}",
    "heads first": f"{STORED} {BIASED} r = Reshape(m, last) u = Transpose<perm = [3, 0, 2, 1, 4]>(r) {GATHERED}",
}
FLAT = f"({{}}[{TOKENS}, {WIDTH}] x) => (float[A, B, C, D] y)"
GEMMS = {
    "gemm": f"{STORED} m = Gemm<alpha = 1.0, beta = 1.0, transA = 0>(d, k, b) {TURNED} {GATHERED}",
    "gemm, weight transposed": f"{PAIR} k = DequantizeLinear<axis = 0>(wt, t, o) m = Gemm<transB = 1>(d, k, b) {TURNED}"
    f" {GATHERED}",
}
LEFT = {
    "no attention": f"{STORED} {BIASED} g, h = Split<axis = -1>(m, halves) e = Sigmoid(g) y = Mul(e, h)",
    "one scale": f"{PAIR} k = DequantizeLinear(w, one, z) {BIASED} {SPLIT}",
    "another factor": f"{STORED} m = Gemm<alpha = 2.0>(x2, k, b) e = Reshape(m, first) {SPLIT}",
    "read twice": f"{STORED} {BIASED} e = MatMul(d, k) {SPLIT}",
    "not taken apart": f"{STORED} {BIASED} y = Sigmoid(m)",
    "read by something else": f"{STORED} {BIASED} e = Sigmoid(m) {SPLIT}",
}


def network(name: str) -> Model:
    text = {**DIVIDED, **GEMMS, **LEFT}[name]
    flat = "Gemm" in text
    head = FLAT.format("float") if flat else f"(float[1, {TOKENS}, {WIDTH}] x) => (float[A, B, C, D] y)"
    return model_of(
        f"{head} {{ {text.replace('x2', 'd')} }}", 17, **{k: v for k, v in TENSORS.items() if used(k, text)}
    )


def used(name: str, text: str) -> bool:
    return re.search(rf"[(, ]{name}[,)]", text) is not None


def computed(proto: onnx.ModelProto) -> np.ndarray[Any, Any]:
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    newer = onnx.ModelProto()
    newer.CopyFrom(proto)
    newer.opset_import[0].version = 19  # the reference has no older Q/DQ
    values = np.random.default_rng(1).integers(-64, 65, shape) * np.float32(0.25)
    return np.asarray(ReferenceEvaluator(newer).run(None, {"x": values.astype(np.float32)})[0])


@pytest.mark.parametrize("name", [*DIVIDED, *GEMMS])
def test_divided_products_compute_the_same_bits(name: str) -> None:
    model = network(name)
    before = model.proto.SerializeToString(deterministic=True)
    proto, names = divide_products(model)
    assert model.proto.SerializeToString(deterministic=True) == before, "nobody edits a model"
    assert len(names) == 1
    onnx.checker.check_model(proto, full_check=True)
    assert sum(node.op_type in ("MatMul", "Gemm") for node in proto.graph.node) == 5
    assert not {"w", "wt", "f", "t", "o"} & {tensor.name for tensor in proto.graph.initializer}, (
        "nothing is stored twice"
    )
    np.testing.assert_array_equal(computed(proto), computed(model.proto))
    assert lint_model(replace(model, proto=proto)) == lint_model(model)
    assert divide_products(replace(model, proto=proto)) == (proto, ()), "a second time changes nothing"


@pytest.mark.parametrize("name", LEFT)
def test_other_products_stay(name: str) -> None:
    model = network(name)
    assert divide_products(model) == (model.proto, ())


@pytest.mark.parametrize("name", [*DIVIDED, *GEMMS])
def test_the_float_network_is_divided_in_the_same_way(name: str) -> None:
    quantized = network(name)
    plain = replace(quantized, proto=remove_qdq(quantized).proto)
    divided = replace(quantized, proto=divide_products(quantized)[0])
    found = divide_as(plain, divided)
    onnx.checker.check_model(found.proto, full_check=True)
    assert products(found.proto) == products(divided.proto) != products(plain.proto)
    np.testing.assert_array_equal(computed(found.proto), computed(plain.proto))
    assert divide_as(plain, quantized) is plain


@pytest.mark.parametrize("name", ["split", "gemm"])
def test_layers_compares_divided_products_with_the_float_network(name: str) -> None:
    quantized = network(name)
    plain = replace(quantized, proto=remove_qdq(quantized).proto)
    divided = replace(quantized, proto=divide_products(quantized)[0])
    found = read_existing_qdq(plain, divided)
    assert found.notes == ()
    assert {layer.node for layer in found.variants.layers if layer.weights} == {
        name for name in products(divided.proto) if "_part_" in name
    }


def products(proto: onnx.ModelProto) -> list[str]:
    return [node_name(node) for node in proto.graph.node if node.op_type in ("MatMul", "Gemm")]


def test_weights_in_constant_nodes_leave_nothing_behind() -> None:
    stored = network("split")
    proto = onnx.ModelProto()
    proto.CopyFrom(stored.proto)
    names = ("w", "t", "o")
    constants = [
        onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in proto.graph.initializer
        if tensor.name in names
    ]
    initializers = [tensor for tensor in proto.graph.initializer if tensor.name not in names]
    nodes = [*constants, *proto.graph.node]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(initializers)
    divided, found = divide_products(replace(stored, proto=proto))
    assert len(found) == 1
    assert not [node for node in divided.graph.node if node.op_type == "Constant"]
    np.testing.assert_array_equal(computed(divided), computed(stored.proto))


@needs_compiler
@pytest.mark.parametrize("name", ["gather", "split", "gemm, weight transposed"])
def test_the_compiler_multiplies_divided_products_in_int8(name: str, tmp_path: Path) -> None:
    model = network(name)
    shapes = {i.name: tuple(size for size in i.shape if isinstance(size, int)) for i in model.inputs}
    found = []
    for proto in (model.proto, divide_products(model)[0]):
        onnx.save(proto, tmp_path / "m.onnx")
        made = try_compile(load_model(tmp_path / "m.onnx"), shapes, architectures=["sm86"])
        found.append(made.networks[0])
    before, after = found
    assert not any(kernel.int8 for kernel in before.products)
    assert sum(kernel.int8 for kernel in after.products) == 1
    assert after.bytes < before.bytes

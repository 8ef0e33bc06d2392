"""One network in every form in which exporters write its weights and biases: all are quantized alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quantkit import QuantizeOptions, quantize
from quantkit.graph import load_model
from quantkit.linting.registry import lint_model
from quantkit.quantization.result import Quantization
from tests.support.repairing import outputs_of

Array = NDArray[Any]
Built = tuple[list[onnx.NodeProto], dict[str, Array]]
node = helper.make_node
RANDOM = np.random.default_rng(7)
SPREAD = np.geomspace(0.05, 5, 8).astype(np.float32)
"""Sizes of the output channels: one scale for all of them would leave the small ones two levels."""
FIRST = (RANDOM.normal(size=(16, 8)) / 4).astype(np.float16).astype(np.float32) * np.float32(0.5)
SECOND = ((RANDOM.normal(size=(8, 8)) / 3).astype(np.float16).astype(np.float32)) * SPREAD
BIAS = RANDOM.normal(size=8).astype(np.float32)
ROWS = np.abs(RANDOM.normal(size=(48, 7, 16))).astype(np.float32)
IMAGES = np.abs(RANDOM.normal(size=(48, 4, 6, 6))).astype(np.float32)


def weight_norm(name: str, w: Array) -> Built:
    axes = tuple(range(1, w.ndim))
    size = np.sqrt(np.square(w).sum(axis=axes, keepdims=True))
    nodes = [
        node("ReduceL2", ["v"], ["n"], axes=list(axes), keepdims=1),
        node("Div", ["v", "n"], ["d"]),
        node("Mul", ["d", "g"], [name]),
    ]
    return nodes, {"v": w * 3, "g": size}


def constant_node(name: str, w: Array) -> Built:
    return [node("Constant", [], [name], value=numpy_helper.from_array(w))], {}


def two_halves(name: str, w: Array) -> Built:
    nodes = [node("Split", ["both"], [name, "other"], axis=0), node("Identity", ["other"], ["unread"])]
    return nodes, {"both": np.concatenate([w, w + 1])}


WEIGHTS: dict[str, Callable[[str, Array], Built]] = {
    "Identity": lambda name, w: ([node("Identity", ["v"], [name])], {"v": w}),
    "two Identity nodes": lambda name, w: ([node("Identity", ["v"], ["i"]), node("Identity", ["i"], [name])], {"v": w}),
    "flat": lambda name, w: ([node("Reshape", ["v", "shape"], [name])], {"v": w.ravel(), "shape": np.array(w.shape)}),
    "transposed twice": lambda name, w: (
        [node("Transpose", ["v"], ["t"]), node("Transpose", ["t"], [name])],
        {"v": w},
    ),
    "transposed": lambda name, w: ([node("Transpose", ["v"], [name])], {"v": w.T.copy()}),
    "leading 1": lambda name, w: ([node("Squeeze", ["v", "zero"], [name])], {"v": w[None], "zero": np.array([0])}),
    "unsqueezed": lambda name, w: (
        ([node("Unsqueeze", ["v", "zero"], [name])], {"v": w[0], "zero": np.array([0])})
        if w.shape[0] == 1
        else ([node("Squeeze", ["v"], [name])], {"v": w[..., None]})
    ),
    "gathered": lambda name, w: (
        [node("Gather", ["v", "order"], [name])],
        {"v": w[::-1].copy(), "order": np.arange(len(w))[::-1].copy()},
    ),
    "sliced": lambda name, w: (
        [node("Slice", ["v", "from", "to"], [name])],
        {"v": np.concatenate([w, w]), "from": np.array([0]), "to": np.array([len(w)])},
    ),
    "one of two": two_halves,
    "concatenated": lambda name, w: ([node("Concat", ["v", "u"], [name], axis=0)], {"v": w[:2], "u": w[2:]}),
    "double": lambda name, w: ([node("Cast", ["v"], [name], to=TensorProto.FLOAT)], {"v": w.astype(np.float64)}),
    "Constant node": constant_node,
    "times a number": lambda name, w: ([node("Mul", ["v", "two"], [name])], {"v": w / 2, "two": np.float32(2)}),
    "a sum": lambda name, w: ([node("Add", ["v", "u"], [name])], {"v": w - np.float32(1), "u": np.float32(1)}),
    "weight normalization": weight_norm,
}
"""Ways to write a weight: nodes that make it, and the constants that they read."""


def as_model(nodes: list[onnx.NodeProto], data: str, shape: list[Any], constants: dict[str, Array]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(data, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def dense(weight: Built | None = None, **changed: Any) -> onnx.ModelProto:
    """x [N, 7, 16] → two MatMul, each with a bias behind it. weight: how `w2` is written, else plainly."""
    constants: dict[str, Array] = {"w1": FIRST, "b1": BIAS, "b2": BIAS[::-1].copy()}
    nodes, more = weight or ([], {"w2": SECOND})
    second = changed.pop("second", [node("MatMul", ["r", "w2"], ["m2"], "two"), node("Add", ["m2", "b2"], ["y"])])
    chain = [node("MatMul", ["x", "w1"], ["m1"], "one"), node("Add", ["m1", "b1"], ["a1"]), node("Relu", ["a1"], ["r"])]
    return as_model([*nodes, *chain, *second], "x", ["N", 7, 16], {**constants, **more, **changed})


KERNEL = (RANDOM.normal(size=(8, 8, 3, 3)) / 8).astype(np.float32) * SPREAD[:, None, None, None]
LINE = KERNEL[..., 0].copy()


def convolved(weight: Built | None = None, line: bool = False, **changed: Any) -> onnx.ModelProto:
    """x [N, 4, 6, 6] → two Conv with biases; line: one-dimensional, over x [N, 4, 36]."""
    first = (np.random.default_rng(5).normal(size=(8, 4, *([3] * (2 - line)))) / 4).astype(np.float32)
    nodes, more = weight or ([], {"w2": LINE if line else KERNEL})
    second = changed.pop("second", [node("Conv", ["r", "w2", "b2"], ["y"], "two")])
    chain = [node("Conv", ["x", "w1", "b1"], ["c1"], "one"), node("Relu", ["c1"], ["r"])]
    shape = ["N", 4, 36] if line else ["N", 4, 6, 6]
    return as_model([*nodes, *chain, *second], "x", shape, {"w1": first, "b1": BIAS, "b2": BIAS, **more, **changed})


def outcome(proto: onnx.ModelProto, folder: Path, data: Array) -> tuple[Quantization, dict[str, Array], float]:
    """A network quantized with all repairs but smoothing: the result, the scales of its weights, its SQNR in dB."""
    onnx.save(proto, folder / "net.onnx")
    options = QuantizeOptions(repairs=("equalize", "round", "bias"), rule="minmax")
    made = quantize(folder / "net.onnx", data=[{"x": data}], options=options)
    assert lint_model(replace(load_model(folder / "net.onnx"), proto=made.proto)) == ()
    exact, rounded = outputs_of(proto, x=data)[0], outputs_of(made.proto, x=data)[0]
    noise = 10 * np.log10(np.square(exact).sum() / np.square(exact - rounded).sum())
    return made, weight_scales(made.proto), float(noise)


def weight_scales(proto: onnx.ModelProto) -> dict[str, Array]:
    """Node → the scales of its weight, which a DequantizeLinear of stored integers makes."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    makers = {step.output[0]: step for step in proto.graph.node}
    found = {}
    for step in proto.graph.node:
        if step.op_type in ("Conv", "Gemm", "MatMul"):
            (weight,) = (makers[name] for name in step.input[:2] if makers[name].input[0] in stored)
            found[step.name] = stored[weight.input[1]]
    return found


def check_alike(form: onnx.ModelProto, plain: onnx.ModelProto, folder: Path, data: Array) -> None:
    """Check that two forms of a network get the same scales and repairs, and lose as little."""
    np.testing.assert_allclose(outputs_of(form, x=data)[0], outputs_of(plain, x=data)[0], rtol=1e-3, atol=1e-3)
    made, scales, db = outcome(form, folder, data)
    known, expected, best = outcome(plain, folder, data)
    assert len(made.weights) == len(known.weights) == 2
    assert made.left == known.left == {}
    for name, repair in known.repairs.items():
        assert made.repairs[name].gains.keys() == repair.gains.keys(), name
    for name, scale in expected.items():
        np.testing.assert_allclose(scales[name], scale, rtol=1e-3)
    assert abs(db - best) < 1.0, f"{db:.1f} dB, {best:.1f} dB in the plain form"


@pytest.mark.parametrize("form", WEIGHTS)
def test_a_matrix_in_any_form(form: str, tmp_path: Path) -> None:
    check_alike(dense(WEIGHTS[form]("w2", SECOND)), dense(), tmp_path, ROWS)


@pytest.mark.parametrize("form", WEIGHTS)
def test_a_kernel_in_any_form(form: str, tmp_path: Path) -> None:
    check_alike(convolved(WEIGHTS[form]("w2", KERNEL)), convolved(), tmp_path, IMAGES)


def test_a_kernel_of_one_dimension_that_is_stored_with_two(tmp_path: Path) -> None:
    form = ([node("Squeeze", ["v", "axis"], ["w2"])], {"v": LINE[:, :, None], "axis": np.array([2])})
    data = IMAGES.reshape(48, 4, 36)
    check_alike(convolved(form, line=True), convolved(line=True), tmp_path, data)


PRODUCT = node("MatMul", ["r", "w2"], ["m2"], "two")
BIASES: dict[str, tuple[list[onnx.NodeProto], dict[str, Array]]] = {
    "row": ([PRODUCT, node("Add", ["m2", "b2"], ["y"])], {"b2": BIAS[None, ::-1].copy()}),
    "leading 1s": ([PRODUCT, node("Add", ["m2", "b2"], ["y"])], {"b2": BIAS[None, None, ::-1].copy()}),
    "on the left": ([PRODUCT, node("Add", ["b2", "m2"], ["y"])], {}),
    "subtracted": ([PRODUCT, node("Sub", ["m2", "b2"], ["y"])], {"b2": -BIAS[::-1]}),
    "for each position": (
        [PRODUCT, node("Add", ["m2", "b2"], ["y"])],
        {"b2": np.repeat(BIAS[None, ::-1], 7, axis=0)},
    ),
    "behind Identity": ([PRODUCT, node("Identity", ["b2"], ["i"]), node("Add", ["m2", "i"], ["y"])], {}),
    "product behind Identity": ([PRODUCT, node("Identity", ["m2"], ["i"]), node("Add", ["i", "b2"], ["y"])], {}),
    "product reshaped": (
        [PRODUCT, node("Reshape", ["m2", "s"], ["i"]), node("Add", ["i", "b2"], ["y"])],
        {"s": np.array([-1, 7, 8])},
    ),
    "stack of one matrix": ([PRODUCT, node("Add", ["m2", "b2"], ["y"])], {"w2": SECOND[None]}),
}


@pytest.mark.parametrize("form", BIASES)
def test_a_bias_in_any_form(form: str, tmp_path: Path) -> None:
    second, constants = BIASES[form]
    check_alike(dense(second=second, **constants), dense(), tmp_path, ROWS)


def test_one_number_as_bias(tmp_path: Path) -> None:
    for number in (np.float32(0.25), np.full(1, 0.25, np.float32), np.full((1, 1), 0.25, np.float32)):
        check_alike(dense(b2=number), dense(b2=np.full(8, 0.25, np.float32)), tmp_path, ROWS)


CONV = node("Conv", ["r", "w2"], ["c2"], "two")


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1, 1)])
@pytest.mark.parametrize("subtracted", [False, True])
def test_a_bias_behind_a_convolution(shape: tuple[int, ...], subtracted: bool, tmp_path: Path) -> None:
    second = [CONV, node("Sub" if subtracted else "Add", ["c2", "b2"], ["y"])]
    bias = (-BIAS if subtracted else BIAS).reshape(shape)
    check_alike(convolved(second=second, b2=bias), convolved(), tmp_path, IMAGES)


@pytest.mark.parametrize("flipped", [False, True])
def test_a_gemm_is_a_matmul(flipped: bool, tmp_path: Path) -> None:
    """Over rows: a Gemm takes no more than two dimensions."""
    gemm = node("Gemm", ["f", "w2", "b2"], ["y"], "two", transB=int(flipped))
    flat = node("Reshape", ["r", "s"], ["f"])
    plain = [flat, node("MatMul", ["f", "w2"], ["m2"], "two"), node("Add", ["m2", "b2"], ["y"])]
    shape = np.array([-1, 8])
    weight = SECOND.T.copy() if flipped else SECOND
    check_alike(dense(second=[flat, gemm], s=shape, w2=weight), dense(second=plain, s=shape), tmp_path, ROWS)


def test_weights_that_are_listed_as_inputs_or_lie_in_another_file(tmp_path: Path) -> None:
    listed = dense()
    for tensor in listed.graph.initializer:
        listed.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    check_alike(listed, dense(), tmp_path, ROWS)
    plain, scales, db = outcome(dense(), tmp_path, ROWS)
    onnx.save(dense(), tmp_path / "out.onnx", save_as_external_data=True, size_threshold=0, location="out.bin")
    options = QuantizeOptions(repairs=("equalize", "round", "bias"), rule="minmax")
    made = quantize(tmp_path / "out.onnx", data=[{"x": ROWS}], options=options)
    assert {name: repair.text for name, repair in made.repairs.items()} == {
        name: repair.text for name, repair in plain.repairs.items()
    }
    for name, scale in weight_scales(made.proto).items():
        np.testing.assert_array_equal(scale, scales[name])
    assert db > 20


def test_a_weight_that_several_layers_share_stays_one(tmp_path: Path) -> None:
    shared = [
        node("Identity", ["w2"], ["again"]),
        node("MatMul", ["r", "w2"], ["m2"], "two"),
        node("MatMul", ["m2", "again"], ["m3"], "three"),
        node("Add", ["m3", "b2"], ["y"]),
    ]
    onnx.save(dense(second=shared), tmp_path / "net.onnx")
    made = quantize(tmp_path / "net.onnx", data=[{"x": ROWS}], options=QuantizeOptions(repairs=(), rule="minmax"))
    assert sorted(made.weights) == ["w1", "w2"]
    assert (
        sum(tensor.data_type == TensorProto.INT8 and tensor.dims == [8, 8] for tensor in made.proto.graph.initializer)
        == 1
    )


def test_a_real_stack_of_matrices_has_one_scale_and_no_complaint(tmp_path: Path) -> None:
    stack = np.stack([FIRST] * 3)
    data = np.abs(RANDOM.normal(size=(16, 3, 7, 16))).astype(np.float32)
    proto = as_model(
        [node("MatMul", ["x", "w"], ["m"]), node("Relu", ["m"], ["y"])], "x", ["N", 3, 7, 16], {"w": stack * SPREAD}
    )
    made, _, _ = outcome(proto, tmp_path, data)
    assert list(made.weights) == ["w"]

"""Operations of products: counted from nodes and from kernels, and equal to what a multiplication by hand counts."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from quantkit.backends.tensorrt_rtx.compiled import Kernel, KernelTensor
from quantkit.backends.tensorrt_rtx.compiling import compile_network, compiler_version
from quantkit.compiling.operations import count_operations, inner_size, kernel_operations, tensor_operations
from quantkit.graph.load import load_model
from quantkit.graph.model import Model
from tests.compiling.networks import convolution, tensor
from tests.support.networks import BUNDLED, network

SIZE = st.integers(1, 6)


def count_of(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> dict[str, int | None]:
    return count_operations(Model(Path("m.onnx"), model, ""), shapes)


@given(SIZE, SIZE, SIZE, st.integers(1, 3), st.integers(1, 3))
def test_a_convolution_multiplies_every_weight_at_every_place(
    outer: int, inner: int, side: int, kernel: int, groups: int
) -> None:
    side += kernel
    weights = np.zeros((outer * groups, inner, kernel, kernel), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=groups)
    model = network([node], {"x": ["N", inner * groups, side, side]}, ["y"], {"w": weights})
    places = 3 * (side - kernel + 1) ** 2
    expected = 2 * places * outer * groups * inner * kernel**2
    assert count_of(model, {"x": (3, inner * groups, side, side)}) == {"conv": expected}


@given(SIZE, SIZE, SIZE, st.booleans())
def test_a_product_of_matrices_sums_over_the_inner_size(rows: int, inner: int, columns: int, transposed: bool) -> None:
    left = [inner, rows] if transposed else [rows, inner]
    node = helper.make_node("Gemm", ["a", "b"], ["y"], "product", transA=int(transposed))
    model = network([node], {"a": left}, ["y"], {"b": np.zeros((inner, columns), np.float32)})
    assert count_of(model, {"a": tuple(left)}) == {"product": 2 * rows * inner * columns}


@given(SIZE, SIZE, SIZE)
def test_every_way_to_multiply_matrices_has_its_inner_size(rows: int, inner: int, columns: int) -> None:
    """data·weights, data·weightsᵀ and weights·data; equal sizes may be read in more than one way."""
    ways = [
        ((rows, inner), (inner, columns), (rows, columns)),
        ((rows, inner), (columns, inner), (rows, columns)),
        ((inner, columns), (rows, inner), (rows, columns)),
    ]
    for data, weights, made in ways:
        found = inner_size((2, *data), (1, *weights), (2, *made))
        assert found is not None
        if len({rows, inner, columns}) == 3:
            assert found == inner


def test_attention_in_one_kernel_is_not_guessed() -> None:
    read = KernelTensor(name="q", shape=(3, 64, 64), type="FP16")
    kernel = Kernel(name="__myl_Mha_myl0", kind="runtime_fusion", reads=(read, read), writes=(read,))
    assert tensor_operations(kernel) is None


def test_a_fused_addition_is_no_factor() -> None:
    """A residual that a convolution adds is its second input, and neither its weights nor its type."""
    x, y = tensor("x", shape=(1, 16, 8, 8)), tensor("y", "FP16", (1, 32, 8, 8))
    kernel = convolution("conv", x, y)
    residual = kernel.model_copy(update={"reads": (x, tensor("skip", "FP16", (1, 32, 8, 8)))})
    assert residual.int8
    assert tensor_operations(residual) == tensor_operations(kernel) == 2 * prod(y.shape) * 16 * 9


def test_weights_that_are_computed_are_not_guessed() -> None:
    """They are inputs like any other, and in a batch of as many samples as channels nothing tells them apart."""
    x, y = tensor("x", shape=(32, 16, 8, 8)), tensor("y", shape=(32, 32, 8, 8))
    kernel = convolution("conv", x, y).model_copy(update={"constants": ()})
    for others in ((), (tensor("w", shape=(32, 16, 3, 3)),), (tensor("w", shape=(32, 16, 3, 3)), y)):
        assert tensor_operations(kernel.model_copy(update={"reads": (x, *others)})) is None


def test_two_activations_are_multiplied_without_weights() -> None:
    shapes = {"q": (3, 64, 32), "k": (3, 32, 64), "scores": (3, 64, 64), "one": (1,)}
    q, k, scores, one = (tensor(name, shape=shape) for name, shape in shapes.items())
    kernel = Kernel(name="attention", kind="gemm", reads=(q, k), constants=(one,), writes=(scores,))
    assert tensor_operations(kernel) == 2 * 3 * 64 * 64 * 32


@pytest.mark.skipif(compiler_version() is None, reason="needs the extra rtx")
def test_kernels_and_nodes_count_the_same() -> None:
    """Up to channels that the compiler adds to an input of few."""
    model = load_model(BUNDLED / "model.onnx")
    shapes = {i.name: tuple(size if isinstance(size, int) else 2 for size in i.shape) for i in model.inputs}
    made = compile_network(model, shapes, architecture="sm86")
    nodes = count_operations(model, shapes)
    kernels = kernel_operations(made, nodes)
    assert sum(count or 0 for count in nodes.values()) > 1_000_000
    differing = {name for name, count in nodes.items() if kernels[made.by_node[name].name] != count}
    assert len(differing) <= 1
    assert all(kernels[made.by_node[name].name] >= (nodes[name] or 0) for name in differing)

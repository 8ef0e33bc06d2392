"""Networks for tests of maps: random ones with Q/DQ and constants, and chains of equal blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import helper

from quantkit.graph.model import Model
from tests.support.networks import network

ONE = {"w": np.ones((4, 4), np.float32), "s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}


def as_model(nodes: list[Any], outputs: list[str], path: str = "net.onnx", **weights: Any) -> Model:
    """A model in memory with one input `x` of four values."""
    proto = network(nodes, {"x": [1, 4]}, outputs, {**ONE, **weights})
    return Model(Path(path), proto, "0" * 64)


def quantized(tensor: str) -> list[Any]:
    """Q and DQ behind a tensor; the DQ makes `{tensor}.dq`."""
    return [
        helper.make_node("QuantizeLinear", [tensor, "s", "z"], [f"{tensor}.q"], f"{tensor}.Q"),
        helper.make_node("DequantizeLinear", [f"{tensor}.q", "s", "z"], [f"{tensor}.dq"], f"{tensor}.DQ"),
    ]


@st.composite
def random_models(draw: st.DrawFn, names: st.SearchStrategy[str] | None = None) -> Model:
    """Networks whose operators read any earlier tensors: activations, quantized or not, constants, and shapes."""
    tensors, nodes = ["x"], list[Any]()
    for number in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(["Relu", "Add", "MatMul", "Constant", "Shape", "Q"]))
        first, second = (draw(st.sampled_from(tensors)) for _ in range(2))
        name = f"{draw(names)}{number}" if names is not None else f"n{number}"
        out = f"t{number}"
        if kind == "Q":
            if f"{first}.dq" not in tensors:
                nodes += quantized(first)
                tensors.append(f"{first}.dq")
            continue
        if kind == "Constant":
            value = helper.make_tensor("v", 1, [1], [1.0])
            nodes.append(helper.make_node("Constant", [], [out], name, value=value))
        else:
            read = {"Relu": [first], "Shape": [first], "Add": [first, second], "MatMul": [first, "w"]}[kind]
            nodes.append(helper.make_node(kind, read, [out], name))
        tensors.append(out)
    nodes.append(helper.make_node("Relu", [draw(st.sampled_from(tensors))], ["y"], "last"))
    return as_model(nodes, ["y"])


def chain_of_blocks(count: int, before: int = 2) -> Model:
    """`count` residual blocks of five operators behind operators that come once."""
    nodes, x = [], "x"
    for i, operator in enumerate(["Tanh", "Abs", "Exp", "Neg"][:before]):
        nodes.append(helper.make_node(operator, [x], [f"b{i}"], f"before/{operator}"))
        x = f"b{i}"
    for i in range(count):
        path, skip = f"net/block.{i}", x
        for j, (operator, more) in enumerate(
            [("MatMul", ["w"]), ("Relu", []), ("MatMul", ["w"]), ("Add", [skip]), ("Relu", [])]
        ):
            nodes.append(helper.make_node(operator, [x, *more], [f"t{i}.{j}"], f"{path}/{operator}_{j}"))
            x = f"t{i}.{j}"
    nodes.append(helper.make_node("Softmax", [x], ["y"], "head/Softmax"))
    return as_model(nodes, ["y"])

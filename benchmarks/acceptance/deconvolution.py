"""Along which axis TensorRT takes the scales of the weights of a quantized ConvTranspose: the engine tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantkit.backends.session import open_session
from quantkit.backends.tensorrt.build import build_engine
from quantkit.backends.tensorrt.engine import Engine
from quantkit.backends.tensorrt.options import BuildOptions
from quantkit.backends.tensorrt.shapes import parse_shapes
from quantkit.graph import load_model

CHANNELS = (32, 48)
AXES: dict[str, int | None] = {"axis 1": 1, "axis 0": 0, "per tensor": None}


def pair(name: str, scale: Any, axis: int | None) -> tuple[list[Any], list[Any]]:
    """Q and DQ behind a tensor, and their parameters."""
    scale = np.asarray(scale, np.float32)
    how = {} if axis is None else {"axis": axis}
    inputs = [f"{name}_scale", f"{name}_zero"]
    zero = np.zeros(scale.shape, np.int8)
    parameters = [numpy_helper.from_array(scale, inputs[0]), numpy_helper.from_array(zero, inputs[1])]
    nodes = [
        helper.make_node("QuantizeLinear", [name, *inputs], [f"{name}_q"], f"{name}_Q", **how),
        helper.make_node("DequantizeLinear", [f"{name}_q", *inputs], [f"{name}_dq"], f"{name}_DQ", **how),
    ]
    return nodes, parameters


def network(path: Path, axis: int | None, weight: Any) -> Path:
    """One quantized ConvTranspose."""
    others = None if axis is None else tuple(k for k in range(4) if k != axis)
    activation, parameters = pair("x", 4 / 127, None)
    weights, more = pair("w", np.abs(weight).max(axis=others) / 127, axis)
    operator = helper.make_node("ConvTranspose", ["x_dq", "w_dq"], ["y"], "deconv", strides=[2, 2], kernel_shape=[2, 2])
    graph = helper.make_graph(
        [*activation, *weights, operator],
        "deconvolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, CHANNELS[0], 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, CHANNELS[1], 32, 32])],
        [numpy_helper.from_array(weight, "w"), *parameters, *more],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def measured(folder: Path) -> dict[str, Any]:
    """Signal to noise of the engine's output against onnxruntime's, in dB, for each axis."""
    random = np.random.default_rng(0)
    spread = np.exp2(random.integers(-4, 5, CHANNELS[1]))[None, :, None, None]
    weight = (random.normal(size=(*CHANNELS, 2, 2)) * spread).astype(np.float32)
    x = random.normal(size=(4, CHANNELS[0], 16, 16)).astype(np.float32)
    found: dict[str, float] = {}
    for name, axis in AXES.items():
        model = load_model(network(folder / f"{name}.onnx", axis, weight))
        expected = open_session(model, model.outputs).runner()({"x": x})["y"].astype(np.float64)
        made = build_engine(model, BuildOptions(level=1), parse_shapes((), model.inputs))
        with Engine(made.plan, name) as engine:
            output = next(iter(engine.run([{"x": x}])))["y"]
        noise = max(float(np.square(expected - output).sum()), 1e-30)
        found[name] = round(10 * float(np.log10(np.square(expected).sum() / noise)), 1)
    return {"sqnr_db": found}

"""Run by `test_inside.py` in a process of its own, once with each version's bindings: what the checks share."""

from __future__ import annotations

import gc
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import checked
import host_cuda
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantkit.backends.tensorrt import device
from quantkit.calibration.tensorrt import calibrators

sys.modules["tensorrt"] = checked.MODULE
sys.modules["pycuda"] = types.ModuleType("pycuda")
sys.modules["pycuda.driver"] = host_cuda


@pytest.fixture(autouse=True, scope="session")
def without_tensorrt() -> Iterator[None]:
    """Here is TensorRT, the bindings of one version, and no driver."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quantkit.calibration.backend_choice.has_driver", lambda: False)
        yield


@pytest.fixture(autouse=True)
def world() -> Iterator[checked.World]:
    """A fresh TensorRT on a fresh GPU, which has to get everything back."""
    host_cuda.reset()
    device.open_device.cache_clear()
    calibrators.calibrator_class.cache_clear()
    yield checked.reset()
    gc.collect()
    assert host_cuda.left() == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with `float.onnx`, `two.onnx`, `qdq.onnx`, `late.onnx` and `data.npy`, 10 samples."""
    monkeypatch.chdir(tmp_path)
    weight = numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "w")
    bias = numpy_helper.from_array(np.array([0.5, -1.0], np.float32).reshape(1, 2, 1, 1), "b")
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")
    node = helper.make_node
    conv = node("Conv", ["x", "w"], ["c"], "/conv", kernel_shape=[1, 1])
    save("float", [conv, node("Add", ["c", "b"], ["a"], "/add"), node("Relu", ["a"], ["y"])], [weight, bias])
    second = node("Conv", ["r", "w"], ["y"], "/second", kernel_shape=[1, 1])
    save("two", [conv, node("Relu", ["c"], ["r"]), second], [weight])
    quantized = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], "/q"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], "/d"),
    ]
    save("qdq", [*quantized, node("Conv", ["d", "w"], ["y"], "/conv", kernel_shape=[1, 1])], [weight, scale, zero])
    save("late", [conv, node("NonZero", ["c"], ["y"], "/find")], [weight])
    mystery = node("Mystery", ["c"], ["m"], "/odd", domain="odd")
    save("odd", [conv, mystery, node("Relu", ["m"], ["y"], "/relu")], [weight])
    np.save("data.npy", np.random.default_rng(0).normal(size=(10, 2, 4, 4)).astype(np.float32))
    return tmp_path


def save(name: str, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> None:
    """A network with a dynamic batch of 2×4×4."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2, 4, 4]) for n in "xy")
    if name == "late":
        y = helper.make_tensor_value_info("y", TensorProto.INT64, [4, "found"])
    graph = helper.make_graph(nodes, name, [x], [y], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("odd", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), f"{name}.onnx")


def pytest_sessionfinish() -> None:
    """Tell what was touched."""
    touched = {"touched": sorted(checked.TOUCHED), "deprecated": sorted(checked.DEPRECATED)}
    Path(os.environ["QUANTKIT_TOUCHED"]).write_text(json.dumps(touched))

"""The bundled network, small ones made of nodes, and the type of a command line as a function."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "calibration_data"
Command = Callable[..., subprocess.CompletedProcess[str]]


def network(
    nodes: list[Any], inputs: dict[str, list[Any]], outputs: list[str], weights: dict[str, Any] | None = None
) -> onnx.ModelProto:
    """An ONNX model of float32 inputs."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(w), name) for name, w in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

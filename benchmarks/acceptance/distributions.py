"""TensorRT's golden tables, written again through quantkit's calibrator classes."""

from __future__ import annotations

import runpy
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from acceptance.scripts import build
from quantkit.calibration import tensorrt as calibrators

CLASSES = {
    "entropy2": "EntropyCalibrator2",
    "minmax": "MinMaxCalibrator",
    "entropy": "EntropyCalibrator",
    "legacy": "LegacyCalibrator",
}
TENSORS = 24


def network(path: Path) -> Path:
    """24 inputs, each through a MaxPool of its own."""
    nodes = [
        helper.make_node("MaxPool", [f"in{k}"], [f"out{k}"], name=f"pool{k}", kernel_shape=[2, 2], strides=[2, 2])
        for k in range(TENSORS)
    ]
    inputs = [helper.make_tensor_value_info(f"in{k}", TensorProto.FLOAT, [1, 1, 256, 256]) for k in range(TENSORS)]
    outputs = [helper.make_tensor_value_info(f"out{k}", TensorProto.FLOAT, [1, 1, 128, 128]) for k in range(TENSORS)]
    graph = helper.make_graph(nodes, "distributions", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def measured(shared: Path, folder: Path) -> dict[str, Any]:
    """Every table, whether it equals TensorRT's, and that it is reused without a batch."""
    golden = shared / "golden" / "distributions"
    batches = runpy.run_path(str(golden / "make.py"))["batches"]
    model = network(folder / "distributions.onnx")
    tables: dict[str, Any] = {}
    for experiment in ("A", "B"):
        data = folder / experiment
        data.mkdir()
        for number, batch in enumerate(batches(experiment)):
            np.savez(data / f"{number}.npz", **batch)
        for name, kind in CLASSES.items():
            table = folder / f"{experiment}_{name}.calib"
            started = time.monotonic()
            calibrator = getattr(calibrators, kind)(model, data, table=table)
            build(model, calibrator)
            seconds = time.monotonic() - started
            again = getattr(calibrators, kind)(model, data, table=table)
            build(model, again)
            tables[f"{experiment}_{name}"] = {
                "equal": table.read_bytes() == (golden / f"{experiment}_{name}.cache").read_bytes(),
                "get_batch_calls": calibrator.calls,
                "get_batch_calls_when_reused": again.calls,
                "seconds": round(seconds, 2),
            }
    return {"tables": tables, "all_equal": all(t["equal"] for t in tables.values())}

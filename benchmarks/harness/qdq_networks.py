"""The networks whose kernels are looked at, as Q/DQ models: kernels depend on where the pairs are, not on their scales.

So scales are from few samples: of CIFAR-10 where the network is for it, else noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from acceptance.residual import residual_network

import quantkit
from quantkit import CalibrateOptions, DataOptions, QuantizeOptions
from quantkit.graph import load_model

ROOT = Path(__file__).resolve().parents[2]
CIFAR = ("resnet20", "mobilenetv2", "vit")
SAMPLES = 16
RESNET50, BUNDLED = "ResNet-50 (patterned weights)", "bundled"


def float_model(network: str, shared: Path, folder: Path) -> Path:
    """The float model of a network."""
    if network == RESNET50:
        path = folder / "resnet50.onnx"
        return path if path.exists() else residual_network(path)
    return ROOT / "calibration_data" / "model.onnx" if network == BUNDLED else shared / "models" / f"{network}.onnx"


def samples_of(network: str, model: Path, shared: Path, folder: Path) -> tuple[Path, str]:
    """Samples for a network, and their preprocessing."""
    if network in CIFAR:
        return shared / "golden" / "networks" / "calibration_512.npz", "cifar10"
    (wanted,) = load_model(model).inputs
    shape = [size if isinstance(size, int) else 1 for size in wanted.shape]
    path = folder / f"{model.stem}.npy"
    noise = np.random.default_rng(1).normal(size=(SAMPLES, *shape[1:])).astype(np.float32)
    np.save(path, noise[: max(2, SAMPLES * 224**2 // int(np.prod(shape[2:])) // 4)])
    return path, "raw"


def qdq_model(network: str, shared: Path, folder: Path, name: str = "int8", **placement: Any) -> Path:
    """The Q/DQ model of a network, as `quantize` makes it for TensorRT 8.6 without options; placement: other ones."""
    model = float_model(network, shared, folder)
    data, preprocess = samples_of(network, model, shared, folder)
    statistics = folder / f"{model.stem}.stats.safetensors"
    if not statistics.exists():
        options = CalibrateOptions(data=DataOptions(limit=SAMPLES), backend="onnxruntime", tensorrt_version="8.6.0")
        quantkit.calibrate(model, data, preprocess=preprocess, output=folder / f"{model.stem}.calib", options=options)
    made = folder / f"{model.stem}.{name}.onnx"
    chosen = QuantizeOptions(tensorrt_version="8.6.0", force=True, **placement)
    quantkit.quantize(model, made, statistics=statistics, options=chosen)
    return made

"""The quantized forms of a network: a calibration table and Q/DQ pairs by quantkit, and Q/DQ pairs by modelopt."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from placements.networks import BenchmarkNetwork, made_up_images

TENSORRT = "8.6.0"
IMAGES = 512
"""Images to calibrate on, of the networks with labels."""
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def made_up_batches(network: BenchmarkNetwork, name: str) -> Iterator[dict[str, Any]]:
    """Yield made-up batches for the network's input of that name."""
    images = made_up_images(network)
    for start in range(0, len(images), 4):
        yield {name: images[start : start + 4]}


def read_images(folder: Path) -> np.ndarray[Any, Any]:
    """Return IMAGES images of all classes as the networks take them: float32 [IMAGES, 3, 32, 32]."""
    from PIL import Image

    found = sorted(folder.rglob("*.jpg"))
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in found[:: len(found) // IMAGES][:IMAGES]])
    scaled = (pixels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def input_name(model: Path) -> str:
    """The name of a network's only input."""
    import onnx

    return str(onnx.load(str(model), load_external_data=False).graph.input[0].name)


def quantize_with_quantkit(network: BenchmarkNetwork, model: Path, images: Path | None) -> None:
    """Write `x.calib` (entropy, as TensorRT's own calibrator), and `x.default.onnx` with all defaults.

    images: folder with train/, for the networks with labels.
    """
    import quantkit

    data: Any = list(made_up_batches(network, input_name(model)))
    how: dict[str, Any] = {"preprocess": "raw"}
    if network.labelled and images:
        data, how = images / "train", {"preprocess": "cifar10", "limit": IMAGES, "batch_size": 32}
    made = quantkit.calibrate(
        model, data, rule="entropy", backend="onnxruntime", tensorrt_version=TENSORRT,
        output=model.with_suffix(".calib"), force=True, **how,
    )  # fmt: skip
    quantkit.quantize(
        model, model.with_suffix(".default.onnx"), statistics=made.statistics, tensorrt_version=TENSORRT, force=True
    )


def quantize_with_modelopt(network: BenchmarkNetwork, model: Path, images: Path | None, folder: Path) -> None:
    """Write `x.modelopt.onnx` with modelopt's defaults, but calibrated on the CPU, and float layers left in FP32:
    TensorRT 8.6 chooses FP16 itself, for every contestant alike."""
    from modelopt.onnx.quantization import quantize

    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / "model.onnx"  # it writes files of its own beside the model that it is given
    shutil.copyfile(model, copy)
    name = input_name(model)
    data = read_images(images / "train") if network.labelled and images else made_up_images(network)
    quantize(
        str(copy), quantize_mode="int8", calibration_method="entropy", calibration_data={name: data},
        calibration_eps=["cpu"], high_precision_dtype="fp32", output_path=str(folder / "quantized.onnx"),
        log_level="ERROR",
    )  # fmt: skip
    (folder / "quantized.onnx").replace(model.with_suffix(".modelopt.onnx"))

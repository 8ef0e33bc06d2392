"""Networks of real size on a GPU: FP16 beside quantkit's Q/DQ model, by TensorRT. Writes real_size.json.

    python benchmarks/real_size.py export FOLDER [NETWORK…]      where torch and timm are installed
    python benchmarks/real_size.py quantize FOLDER [NETWORK…]    where quantkit is installed; no GPU
    python benchmarks/real_size.py time FOLDER [NETWORK…]        where TensorRT and a GPU are

The architectures are timm's, with random weights of usual size: latency and placement mean something, accuracy does
not. Times are medians of a batch alone, with a CUDA graph, at builder optimization level LEVEL.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = {
    "resnet50": "resnet50",
    "mobilenetv3": "mobilenetv3_large_100",
    "efficientnet-b0": "efficientnet_b0",
    "regnety": "regnety_016",
    "deit-small": "deit_small_patch16_224",
    "convnext-tiny": "convnext_tiny",
}
SIDE, SAMPLES, BATCHES, LEVEL = 224, 16, (1, 32), 1
SEED = 0


def export(folder: Path, name: str) -> None:
    """Export an architecture with random weights."""
    import timm
    import torch

    torch.manual_seed(SEED)
    network = timm.create_model(NETWORKS[name], pretrained=False).eval()
    for (
        module
    ) in network.modules():  # residual blocks begin with a scale of 0: TensorRT 8.6 builds no Q/DQ around zeros
        if isinstance(module, torch.nn.BatchNorm2d) and not module.weight.abs().max():
            torch.nn.init.constant_(module.weight, 0.5)
    torch.onnx.export(
        network, torch.randn(1, 3, SIDE, SIDE), str(folder / f"{name}.onnx"), input_names=["image"],
        output_names=["logits"], dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}}, opset_version=17, dynamo=False,
    )  # fmt: skip


def quantize_network(folder: Path, name: str) -> None:
    """Calibrate on noise, and write the Q/DQ model for TensorRT 8.6."""
    import quantkit

    random = np.random.default_rng(SEED)
    coarse = random.normal(0, 1, (SAMPLES, 3, SIDE // 16, SIDE // 16))
    images = (coarse.repeat(16, 2).repeat(16, 3) + 0.2 * random.normal(0, 1, (SAMPLES, 3, SIDE, SIDE))).astype(
        "float32"
    )
    model = folder / f"{name}.onnx"
    made = quantkit.calibrate(
        model, [{"image": images[k : k + 8]} for k in range(0, SAMPLES, 8)], rule="entropy", backend="onnxruntime",
        tensorrt_version="8.6.0", preprocess="raw", output=folder / f"{name}.calib", force=True,
    )  # fmt: skip
    quantkit.quantize(
        model, folder / f"{name}.qdq.onnx", statistics=made.statistics, tensorrt_version="8.6.0", force=True
    )


def time_network(folder: Path, name: str) -> dict[str, Any]:
    """Build and time engines of one network."""
    import quantkit

    found: dict[str, Any] = {}
    for kind, file, precision in (
        ("fp16", f"{name}.onnx", "fp16"), ("table", f"{name}.onnx", "int8"), ("qdq", f"{name}.qdq.onnx", "int8"),
    ):  # fmt: skip
        (folder / kind).mkdir(exist_ok=True)
        try:
            made = quantkit.bench(
                [folder / file], precisions=precision, batches=BATCHES, streams=1, graphs=True, seconds=0.5,
                build_options=quantkit.BuildOptions(level=LEVEL, precision=precision), output=folder / kind,
                table=folder / f"{name}.calib" if kind == "table" else None,
            )  # fmt: skip
        except quantkit.QuantkitError as error:
            found[kind] = {"error": error.problem[:300]}
            continue
        (subject,) = made.subjects
        found[kind] = {
            "milliseconds": {x.batch: {"median": x.median, "p90": x.p90} for x in made.latencies},
            "build_seconds": subject.build_seconds,
            "bytes": subject.bytes,
            "layers": dict(subject.counts),
        }
    return found


def machine() -> str:
    """The GPU and TensorRT that times are of."""
    from quantkit.backends.tensorrt.device import open_device
    from quantkit.backends.tensorrt.versions import detect_features, tensorrt

    return f"{open_device().name}, TensorRT {detect_features(tensorrt()).version}"


def main() -> None:
    """Run one stage."""
    stage, folder, names = sys.argv[1], Path(sys.argv[2]), sys.argv[3:] or list(NETWORKS)
    output = Path(os.environ.get("OUT", folder)) / f"real_size.{'_'.join(names)}.json"
    networks: dict[str, Any] = {}
    for name in names:
        started = time.monotonic()
        if stage == "time":
            networks[name] = time_network(folder, name)
            document = {"machine": machine(), "date": date.today().isoformat(), "level": LEVEL, "networks": networks}
            output.write_text(json.dumps(document, indent=1))
        else:
            {"export": export, "quantize": quantize_network}[stage](folder, name)
        print(stage, name, f"{time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()

"""Q/DQ models of other tools from the same calibration images, for `accuracy.py` and `rules.py`.

    python benchmarks/peer_models.py TARGET CALIBRATION NETWORK.onnx… [--peers NAME…]

CALIBRATION is an `.npz` with `x`: uint8 [N, H, W, 3], which networks read normalized by CIFAR-10's mean and deviation,
or float32, which they read as it is.
Needs nvidia-modelopt and onnxruntime, and no quantkit. Writes TARGET/NETWORK.PEER.onnx, and TARGET/NETWORK.PEER.txt
with the reason where a tool fails. Two defaults of modelopt are changed: it calibrates on the CPU, and what is not INT8
stays FP32. onnxruntime quantizes weights per channel, and symmetrically.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from architectures.compositions import network_input

BATCH = 32


class Reader:
    """Batches of images, as both tools read them."""

    def __init__(self, model: Path, images: Any) -> None:
        import onnx

        self.name = onnx.load(model, load_external_data=False).graph.input[0].name
        self.images = images
        self.batches = self.start()

    def start(self) -> Iterator[dict[str, Any]]:
        """From the first batch on."""
        return iter([{self.name: self.images[k : k + BATCH]} for k in range(0, len(self.images), BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None."""
        return next(self.batches, None)

    def get_first(self) -> dict[str, Any]:
        """The first batch."""
        return {self.name: self.images[:BATCH]}

    def rewind(self) -> None:
        """Start again."""
        self.batches = self.start()


def by_modelopt(method: str, model: Path, images: Any, target: Path) -> None:
    """Quantize by NVIDIA's Model Optimizer."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(model), quantize_mode="int8", calibration_method=method, calibration_data_reader=Reader(model, images),
        calibration_eps=["cpu"], high_precision_dtype="fp32", output_path=str(target),
    )  # fmt: skip


def by_onnxruntime(method: str, model: Path, images: Any, target: Path) -> None:
    """Quantize by onnxruntime's `quantize_static`."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        model, target, Reader(model, images), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod[method],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )  # fmt: skip


PEERS: dict[str, Callable[[Path, Any, Path], None]] = {
    "onnxruntime static": partial(by_onnxruntime, "MinMax"),
    "modelopt max": partial(by_modelopt, "max"),
    "modelopt entropy": partial(by_modelopt, "entropy"),
}
"""In this order: modelopt replaces parts of onnxruntime's quantizer when it is imported."""


def versioned(peer: str) -> str:
    """Return a peer's name with its version: `modelopt 0.47 max`."""
    tool, method = peer.split(" ")
    package = {"modelopt": "nvidia-modelopt"}.get(tool, tool)
    return f"{tool} {'.'.join(version(package).split('.')[:2])} {method}"


def main() -> None:
    """Quantize every network by every peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("networks", nargs="+", type=Path)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    given = parser.parse_args()
    with np.load(given.calibration) as file:
        images = file["x"] if file["x"].dtype == np.float32 else network_input(file["x"])
    given.target.mkdir(parents=True, exist_ok=True)
    for name in (peer for peer in PEERS if peer in given.peers):
        for network in given.networks:
            target = given.target / f"{network.stem}.{versioned(name)}.onnx"
            target.unlink(missing_ok=True)  # an older one must not stand for a tool that fails
            with TemporaryDirectory() as folder:
                copy = Path(shutil.copy(network, folder))  # modelopt writes its own version over what it reads
                made = Path(folder) / "quantized.onnx"
                try:
                    PEERS[name](copy, images, made)
                    shutil.move(made, target)
                    print(target.name, flush=True)
                except Exception as failure:
                    target.with_suffix(".txt").write_text(f"{type(failure).__name__}: {failure}\n")
                    print(f"{target.name}: {failure}", flush=True)


if __name__ == "__main__":
    main()

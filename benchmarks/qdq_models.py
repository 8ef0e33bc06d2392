"""The Q/DQ models that `gpu_acceptance.py explicit --qdq DIR` builds, with what onnxruntime predicts by each of them.

    python benchmarks/qdq_models.py DIR --images DIR

Writes NETWORK.quantkit.onnx (and one with attention for vit) for TensorRT 8.6, NETWORK.calib, and the class of every
test image as NETWORK.….guesses.npy, so that no GPU waits for it. Other tools' models can be laid there before.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import CALIBRATION, NETWORKS, SHARED, SPEC, outputs, test_images

import quantkit
from quantkit import CalibrateOptions, QuantizeOptions
from quantkit.graph import load_model

WAYS: dict[str, dict[str, Any]] = {"quantkit": {}, "quantkit, attention too": {"include": ("MatMul",)}}


def main() -> None:
    """Make them, and predict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    arguments = parser.parse_args()
    for network in NETWORKS:
        path = SHARED / "models" / f"{network}.onnx"
        pixels, _ = test_images(load_model(path), arguments.images)
        options = CalibrateOptions(backend="onnxruntime", tensorrt_version="8.6.0", force=True)
        table = arguments.folder / f"{network}.calib"
        made = quantkit.calibrate(path, CALIBRATION, rule="entropy", preprocess=SPEC, output=table, options=options)
        for name, settings in WAYS.items():
            if settings and network != "vit":
                continue
            target = arguments.folder / f"{network}.{name}.onnx"
            chosen = QuantizeOptions(tensorrt_version="8.6.0", force=True, **settings)
            quantkit.quantize(
                path, target, statistics=made.statistics, data=CALIBRATION, preprocess=SPEC, options=chosen
            )
        for model in sorted(arguments.folder.glob(f"{network}.*.onnx")):
            np.save(model.with_suffix(".guesses.npy"), outputs(load_model(model), pixels).argmax(axis=1))
            print(model.name, flush=True)


if __name__ == "__main__":
    main()

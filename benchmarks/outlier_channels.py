"""A network some of whose channels are far larger than the others: rules beside each other at its outputs.

    python benchmarks/outlier_channels.py yolox_nano.onnx --images DIR --source URL

The network reads pixels as they are, BGR, float32 [1, 3, H, W]. DIR has images; the first 16 calibrate, 16 others are
compared. Writes results/outlier_channels.json. The network stays where it is: only figures are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from architectures.judging import sqnr
from harness.machine import this_machine
from PIL import Image

import quantkit
from quantkit import CalibrateOptions, QuantizeOptions
from quantkit.backends.session import open_session
from quantkit.graph import Model, load_model

OUTPUT = Path(__file__).resolve().parent / "results" / "outlier_channels.json"
RULES = ("wmse", "mse", "minmax", "entropy", "percentile:99.99")
SAMPLES = 16


def pixels(path: Path, width: int, height: int) -> Any:
    """An image as the network reads it: float32 [1, 3, H, W]."""
    with Image.open(path) as image:
        values = np.asarray(image.convert("RGB").resize((width, height)), np.float32)
    return np.ascontiguousarray(values[:, :, ::-1].transpose(2, 0, 1))[None]


def predictions(model: Model, samples: Any) -> Any:
    """The first output for every sample."""
    run = open_session(model, model.outputs).runner()
    return np.concatenate([np.asarray(run({model.inputs[0].name: x})[model.outputs[0]]) for x in samples])


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--source", required=True)
    given = parser.parse_args()
    model = load_model(given.network)
    height, width = model.inputs[0].shape[2:]
    files = sorted(path for path in given.images.iterdir() if path.is_file())
    if len(files) < 2 * SAMPLES:
        parser.error(f"{given.images} has {len(files)} images; {SAMPLES} calibrate, and {SAMPLES} others are compared")
    seen, unseen = ([pixels(path, width, height) for path in part] for part in (files[:SAMPLES], files[-SAMPLES:]))
    reference = predictions(model, unseen)
    with TemporaryDirectory() as folder:
        np.savez(data := Path(folder) / "seen.npz", x=np.concatenate(seen))
        made = quantkit.calibrate(given.network, data, options=CalibrateOptions(backend="onnxruntime"))
    figures = {}
    for rule in RULES:
        options = QuantizeOptions(rule=rule)
        proto = quantkit.quantize(given.network, statistics=made.statistics, options=options).proto
        figures[rule] = round(sqnr(reference, predictions(Model(given.network, proto, ""), unseen)), 2)
        print(rule, figures[rule], flush=True)
    document = {
        "network": given.network.name,
        "source": given.source,
        "sha256": hashlib.sha256(given.network.read_bytes()).hexdigest(),
        "samples": SAMPLES,
        "sqnr_db": figures,
        "machine": asdict(this_machine()),
        "onnxruntime": version("onnxruntime"),
    }
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

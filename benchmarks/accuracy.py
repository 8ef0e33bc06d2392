"""What Q/DQ costs in accuracy: quantkit's defaults, and Q/DQ files of peers, on the same 10,000 images by onnxruntime.

    python benchmarks/accuracy.py --images DIR [--collages FOLDER] [--peers DIR] [--networks NAME…]

Needs a folder with `models/` and `golden/networks/` (QUANTKIT_SHARED, default `../shared`), DIR with the class folders
of CIFAR-10's test images, and for yolov8n FOLDER with the collages. Peers' files (`peer_models.py`) are
NETWORK.PEER.onnx, made from the same 512 calibration images. Q and DQ are computed as they stand (fake quantization).
Writes results/accuracy.json and accuracy.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import quantkit
from quantkit import CalibrateOptions, DataOptions, QuantizeOptions
from quantkit.backends.session import open_session
from quantkit.data import open_data
from quantkit.data.image_folder import list_images
from quantkit.graph import Model, load_model

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("QUANTKIT_SHARED", HERE.parent.parent / "shared"))
CALIBRATION = SHARED / "golden" / "networks" / "calibration_512.npz"
NETWORKS = ("resnet20", "mobilenetv2", "vit")
DETECTOR = "yolov8n"
SPEC = "cifar10"
TENSORRT = "10.3.0"
"""What the Q/DQ models are for, whichever version is installed: placements differ."""


def test_images(model: Model, folder: Path) -> tuple[Any, Any]:
    """All images of a folder, preprocessed, and their classes."""
    labels = list_images(folder).labels
    feed, _ = open_data(folder, model.inputs, quantkit.PRESETS[SPEC], DataOptions(limit=len(labels)))
    return np.concatenate([portion.batch["image"] for portion in feed.portions()]), np.array(labels)


def outputs(model: Model, images: Any) -> Any:
    """What a network predicts, [N, classes]."""
    run = open_session(model, model.outputs, threads=len(os.sched_getaffinity(0))).runner()
    return np.concatenate(
        [np.array(run({"image": images[k : k + 200]})[model.outputs[0]]) for k in range(0, len(images), 200)]
    )


def compared(reference: Any, predictions: Any, labels: Any) -> dict[str, float]:
    """Drop in points, agreement in percent, SQNR in dB: 10·log10(Σ FP32² / Σ (FP32 − INT8)²)."""
    exact, guess = reference.argmax(axis=1), predictions.argmax(axis=1)
    noise = float(np.square(reference.astype(np.float64) - predictions).sum())
    return {
        "top1": round(100 * float((guess == labels).mean()), 2),
        "drop": round(100 * float((exact == labels).mean() - (guess == labels).mean()), 2),
        "drop_standard_error": round(
            100 * float(np.std((exact == labels).astype(float) - (guess == labels)) / len(labels) ** 0.5), 2
        ),
        "agreement": round(100 * float((exact == guess).mean()), 2),
        "sqnr_db": round(10 * float(np.log10(np.square(reference, dtype=np.float64).sum() / noise)), 2),
    }


def ways(path: Path, network: str) -> dict[str, Callable[[], Any]]:
    """quantkit's ways by name."""
    made = quantkit.calibrate(path, CALIBRATION, preprocess=SPEC, options=CalibrateOptions(backend="onnxruntime"))

    def quantized(data: bool, **settings: Any) -> Callable[[], Any]:
        given = {"data": CALIBRATION, "preprocess": SPEC} if data else {}
        options = QuantizeOptions(tensorrt_version=TENSORRT, **settings)
        return lambda: quantkit.quantize(path, statistics=made.statistics, options=options, **given).proto

    found = {
        "quantkit, statistics only": quantized(False),
        "quantkit, with the data": quantized(True),
        "quantkit, statistics only, entropy": quantized(False, rule="entropy"),
        "quantkit, statistics only, minmax": quantized(False, rule="minmax"),
    }
    if network == "vit":
        found["quantkit, with the data, attention too"] = quantized(True, include=("MatMul",))
    return found


def rows(network: str, images: Path, peers: Path | None) -> Iterator[tuple[str, dict[str, float]]]:
    """Name → figures, for every way and every peer."""
    path = SHARED / "models" / f"{network}.onnx"
    model = load_model(path)
    pixels, labels = test_images(model, images)
    reference = outputs(model, pixels)
    yield "FP32", {"top1": round(100 * float((reference.argmax(axis=1) == labels).mean()), 2)}
    for name, way in ways(path, network).items():
        yield name, compared(reference, outputs(Model(path, way(), ""), pixels), labels)
    for file in sorted(peers.glob(f"{network}.*.onnx")) if peers else []:
        name = file.name[len(network) + 1 : -5]
        yield name, compared(reference, outputs(load_model(file), pixels), labels)


def detector_rows(collages: Path, peers: Path | None) -> dict[str, dict[str, Any]]:
    """Name → mAP50-95 in percent, drop in points and its 95 % interval, on the labelled collages."""
    path, common = SHARED / "models" / f"{DETECTOR}.onnx", {"preprocess": "yolo"}
    train = collages / "images" / "train"
    made = quantkit.calibrate(path, train, options=CalibrateOptions(backend="onnxruntime"), **common)
    with TemporaryDirectory() as folder:
        ways: dict[str, dict[str, Any]] = {
            "quantkit, statistics only": {},
            "quantkit, with the data": {"data": train, **common},
            "quantkit, statistics only, entropy": {"rule": "entropy"},
            "quantkit, statistics only, minmax": {"rule": "minmax"},
        }
        found = {"FP32": path} | {name: Path(folder) / f"{k}.onnx" for k, name in enumerate(ways)}
        for name, given in ways.items():
            quantkit.quantize(path, found[name], statistics=made.statistics, tensorrt_version=TENSORRT, **given)
        for file in sorted(peers.glob(f"{DETECTOR}.*.onnx")) if peers else []:
            found[file.name[len(DETECTOR) + 1 : -5]] = file
        judged = quantkit.evaluate(list(map(str, found.values())), collages / "data.yaml", **common)
    rows: dict[str, dict[str, Any]] = {}
    for name, score in zip(found, judged.models, strict=True):
        lost = score.difference
        rows[name] = {"map": round(100 * score.metrics[judged.metric], 2)}
        if lost is not None:
            rows[name] |= {"drop": round(lost.value, 2), "interval": [round(lost.low, 2), round(lost.high, 2)]}
    return rows


def rendered(document: dict[str, Any]) -> str:
    """The page."""
    machine = document["machine"]
    text = [
        "# What Q/DQ costs in accuracy",
        "",
        f"10,000 CIFAR-10 test images, 512 calibration images, onnxruntime {machine['onnxruntime']} with fake "
        f"quantization, {machine['date']}. Symmetric INT8 throughout, placed as for TensorRT {TENSORRT}.",
        "The standard error of a drop is about 0.1 point, that of an agreement 0.1 %.",
        "`statistics only` is `quantkit quantize MODEL`; `with the data` is the same with `--data`.",
    ]
    for network, figures in document["networks"].items():
        if network == DETECTOR:
            continue
        text += ["", f"## {network}, FP32 {figures['FP32']['top1']:.2f} %", ""]
        text += ["| | drop, points | agreement, % | SQNR, dB |", "|---|---|---|---|"]
        text += [
            f"| {name} | {f['drop']:.2f} ± {f['drop_standard_error']:.2f} | {f['agreement']:.2f} | {f['sqnr_db']:.1f} |"
            for name, f in figures.items()
            if name != "FP32"
        ]
    if DETECTOR in document["networks"]:
        figures = document["networks"][DETECTOR]
        text += ["", f"## {DETECTOR}, 1,000 collages, FP32 {figures['FP32']['map']:.2f} % mAP50-95", ""]
        text += ["| | mAP50-95, % | drop, points | 95 % interval |", "|---|---|---|---|"]
        text += [
            f"| {name} | {f['map']:.2f} | {f['drop']:.2f} | {f['interval'][0]:.2f} … {f['interval'][1]:.2f} |"
            for name, f in figures.items()
            if name != "FP32"
        ]
    return "\n".join(text) + "\n"


def main() -> None:
    """Measure, and write after each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--collages", type=Path)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    arguments = parser.parse_args()
    output = HERE / "results" / "accuracy.json"
    document = json.loads(output.read_text()) if output.exists() else {"networks": {}}
    document["machine"] = {
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
        "quantkit": quantkit.__version__,
    }
    for network in arguments.networks:
        document["networks"][network] = {}
        for name, figures in rows(network, arguments.images, arguments.peers):
            document["networks"][network][name] = figures
            print(network, name, figures, flush=True)
        output.write_text(json.dumps(document, indent=2) + "\n")
        output.with_suffix(".md").write_text(rendered(document))
    if arguments.collages:
        document["networks"][DETECTOR] = detector_rows(arguments.collages, arguments.peers)
        print(DETECTOR, document["networks"][DETECTOR], flush=True)
        output.write_text(json.dumps(document, indent=2) + "\n")
        output.with_suffix(".md").write_text(rendered(document))


if __name__ == "__main__":
    main()

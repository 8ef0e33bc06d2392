"""What each rule costs, over many networks and few and many calibration images, on images that no rule has seen.

    python benchmarks/rules.py --networks FOLDER --images DIR [--counts 8 512] [--every 20] [--peers DIR]

FOLDER holds classifiers of CIFAR-10 (`image` → `logits`) as NETWORK.onnx; those of the shared folder (QUANTKIT_SHARED,
default `../shared`) are added. DIR has the class folders of CIFAR-10's test images, of which every so many are taken.
Calibration takes the first images of the shared 512. Peers' files are NETWORK.PEER.onnx, from the same 512. Only
statistics are used, no repairs that need data. Writes results/rules.json and rules.md after each network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from accuracy import CALIBRATION, HERE, NETWORKS, SHARED, compared, outputs, test_images

import quantkit
from quantkit import CalibrateOptions, QuantizeOptions
from quantkit.graph import Model, load_model

RULES = ("wmse", "mse", "minmax", "entropy")
SPEC = "cifar10"


def rows(path: Path, counts: list[int], test: tuple[Any, Any], peers: Path | None) -> Iterator[tuple[str, Any]]:
    """Name → figures for every rule and number of images, and for every peer."""
    model = load_model(path)
    pixels, labels = test
    reference = outputs(model, pixels)
    yield "FP32", {"top1": round(100 * float((reference.argmax(axis=1) == labels).mean()), 2)}
    with np.load(CALIBRATION) as file:
        images = file["x"]
    for count in counts:
        with TemporaryDirectory() as folder:
            np.savez(first := Path(folder) / "first.npz", x=images[:count])
            options = CalibrateOptions(backend="onnxruntime")
            made = quantkit.calibrate(path, first, preprocess=SPEC, options=options)
        for rule in RULES:
            proto = quantkit.quantize(path, statistics=made.statistics, options=QuantizeOptions(rule=rule)).proto
            yield f"{rule}, {count} images", compared(reference, outputs(Model(path, proto, ""), pixels), labels)
    for file in sorted(peers.glob(f"{path.stem}.*.onnx")) if peers else []:
        yield file.name[len(path.stem) + 1 : -5], compared(reference, outputs(load_model(file), pixels), labels)


def rendered(document: dict[str, Any]) -> str:
    """The page."""
    machine, text = document["machine"], ["# Rules over many networks", ""]
    text += [
        f"{document['images']:,} CIFAR-10 test images, statistics only, onnxruntime {machine['onnxruntime']} with fake "
        f"quantization, {machine['date']}.",
        "SQNR of the logits in dB, and agreement with FP32 in %. The calibration images are the first of 512.",
    ]
    for count in document["counts"]:
        text += ["", f"## {count} calibration images", ""]
        text += ["| network | " + " | ".join(RULES) + " | below the best |", "|---|" + "---|" * (len(RULES) + 1)]
        for network, figures in document["networks"].items():
            found = [figures[f"{rule}, {count} images"] for rule in RULES]
            below = max(f["sqnr_db"] for f in found) - found[0]["sqnr_db"]
            cells = [f"{f['sqnr_db']:.1f} ({f['agreement']:.1f})" for f in found]
            text += [f"| {network} | {' | '.join(cells)} | {below:.1f} |"]
    peers = sorted({n for f in document["networks"].values() for n in f if n != "FP32" and " images" not in n})
    if peers:
        text += ["", "## Peers, 512 calibration images", "", "| network | " + " | ".join(peers) + " |"]
        text += ["|---|" + "---|" * len(peers)]
        for network, figures in document["networks"].items():
            have = [figures.get(name) for name in peers]
            cells = [f"{f['sqnr_db']:.1f} ({f['agreement']:.1f})" if f else "none" for f in have]
            text += [f"| {network} | {' | '.join(cells)} |"]
    return "\n".join(text) + "\n"


def main() -> None:
    """Measure, and write after each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[8, 512])
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--only", nargs="+")
    arguments = parser.parse_args()
    output = HERE / "results" / "rules.json"
    document = json.loads(output.read_text()) if output.exists() else {"networks": {}}
    pixels, labels = test_images(load_model(SHARED / "models" / f"{NETWORKS[0]}.onnx"), arguments.images)
    test = pixels[:: arguments.every], labels[:: arguments.every]
    document["images"], document["counts"] = len(test[1]), arguments.counts
    document["machine"] = {
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
        "quantkit": quantkit.__version__,
    }
    paths = [*(SHARED / "models" / f"{name}.onnx" for name in NETWORKS), *sorted(arguments.networks.glob("*.onnx"))]
    for path in paths:
        if arguments.only and path.stem not in arguments.only:
            continue
        figures = document["networks"].setdefault(path.stem, {})
        for name, found in rows(path, arguments.counts, test, arguments.peers):
            figures[name] = found
            print(path.stem, name, found, flush=True)
        output.write_text(json.dumps(document, indent=2) + "\n")
        output.with_suffix(".md").write_text(rendered(document))


if __name__ == "__main__":
    main()

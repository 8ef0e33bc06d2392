"""What each rule costs, over many networks and few and many calibration images, on images that no rule has seen.

    python benchmarks/rules.py NETWORKS --images CIFAR10 [--peers DIR] [--counts 8 24 64 512] [--every 10] [--jobs 2]

NETWORKS is a folder with what `train_architectures.py` wrote; the classifiers of the shared folder (QUANTKIT_SHARED,
default `../shared`) are added. CIFAR10 has `train/CLASS` and `test/CLASS`; of the test images every so many are taken,
of compositions 500. Calibration takes the first images of 512. Peers' files (`peer_models.py`) are from all 512. Adds
to results/rules.json and writes rules.md at the end.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from architectures.judging import Judge, Predictions, judge_of_classes, judge_of_compositions
from harness.machine import this_machine
from rule_page import DEFAULT, SINGLE, rendered

import quantkit
from quantkit import CalibrateOptions, QuantizeOptions
from quantkit.backends.session import open_session
from quantkit.data import DataOptions
from quantkit.graph import Model, load_model
from quantkit.histogram import Histogram
from quantkit.rewrites.fp16 import convert_to_fp16
from quantkit.rules.squared_error import least_error_threshold
from quantkit.rules.wmse import FEW

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("QUANTKIT_SHARED", HERE.parent.parent / "shared"))
CALIBRATION = SHARED / "golden" / "networks" / "calibration_512.npz"
OUTPUT = HERE / "results" / "rules.json"
NETWORKS = ("resnet20", "mobilenetv2", "vit")
COMPOSED = {"unet": ("masks", 64), "detector": ("boxes", 96)}
TESTED_COMPOSITIONS = 500
TENSORRT = "8.6.0"
"""What the Q/DQ models are for, whichever version is installed: placements differ."""
BATCH = 50


@dataclass(frozen=True, slots=True)
class SquaredError:
    """A candidate for the default: clipped values count `clipped` + 28/n times, channels by use or equally."""

    clipped: float
    weighted: bool

    @property
    def name(self) -> str:
        """As the results call it."""
        return f"{'wmse' if self.weighted else 'mse'}, clipped × {self.clipped:g}"

    def threshold(self, histogram: Histogram) -> float:
        """Return a bin edge."""
        clipping = self.clipped + FEW / histogram.samples
        return least_error_threshold(histogram, histogram.weighted_counts if self.weighted else None, clipping)


CANDIDATES = tuple(SquaredError(c, weighted) for weighted in (True, False) for c in (1.0, 1.25, 1.5, 2.0, 3.0))
CANDIDATES_FROM = 64
"""Calibration images from which on the candidates are measured too."""


@dataclass(frozen=True, slots=True)
class Task:
    """A network, and the number of its calibration images; none for FP32 and the peers."""

    path: Path
    count: int | None
    images: Path
    every: int
    peers: Path | None

    def judge(self) -> Judge:
        """What it reads and how it is judged."""
        if self.path.stem in COMPOSED:
            task, side = COMPOSED[self.path.stem]
            return judge_of_compositions(task, self.images, side, TESTED_COMPOSITIONS)
        return judge_of_classes(CALIBRATION, self.images, self.every)


def predictions(model: Model, pixels: Any) -> Predictions:
    """What a network says, by output."""
    run = open_session(model, model.outputs, threads=1).runner()
    kind = np.float16 if model.inputs[0].dtype == np.float16 else np.float32
    parts = [run({"image": pixels[k : k + BATCH].astype(kind)}) for k in range(0, len(pixels), BATCH)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in model.outputs}


def measured(task: Task) -> dict[str, dict[str, float]]:
    """Way → figures."""
    judge, model = task.judge(), load_model(task.path)
    reference = predictions(model, judge.pixels)
    of = partial(judge.figures, reference)
    if task.count is None:
        found = {"FP32": {"right": round(judge.right(reference), 2)}}
        for file in sorted(task.peers.glob(f"{task.path.stem}.*.onnx")) if task.peers else []:
            found[file.name[len(task.path.stem) + 1 : -5]] = of(predictions(load_model(file), judge.pixels))
        return found
    with TemporaryDirectory() as folder:
        np.savez(first := Path(folder) / "first.npz", x=judge.calibration[: task.count])
        rules = (*SINGLE, *(CANDIDATES if task.count >= CANDIDATES_FROM else ()))
        found = {name: of(predictions(made, judge.pixels)) for name, made in quantized(model, first, rules)}
        if task.count == len(judge.calibration):
            half = Model(model.path, convert_to_fp16(model).proto, "")
            for name, made in quantized(half, first, (DEFAULT,)):
                found[f"float16, {name}"] = of(predictions(made, judge.pixels))
    return found


def quantized(model: Model, images: Path, rules: tuple[Any, ...]) -> Any:
    """Name and Q/DQ model of every rule by statistics alone, then of the default with data."""
    common = {"preprocess": "cifar10"}
    proto = model.proto
    statistics = quantkit.calibrate(proto, images, options=CalibrateOptions(backend="onnxruntime"), **common).statistics
    for rule in rules:
        name = rule if isinstance(rule, str) else rule.name
        alone = QuantizeOptions(rule=rule, tensorrt_version=TENSORRT)
        yield name, Model(model.path, quantkit.quantize(proto, statistics=statistics, options=alone).proto, "")
    threads = DataOptions(threads=1)  # as many tasks as cores run beside each other
    chosen = QuantizeOptions(data=threads, tensorrt_version=TENSORRT)
    yield "with data", Model(model.path, quantkit.quantize(proto, data=images, options=chosen, **common).proto, "")


def main() -> None:
    """Measure, and write after each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[8, 24, 64, 512])
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    document = json.loads(given.output.read_text()) if given.output.exists() else {"networks": {}}
    document.pop("remark", None)
    document |= {
        "machine": asdict(this_machine()),
        "onnxruntime": version("onnxruntime"),
        "tensorrt": TENSORRT,
        "images": 10_000 // given.every,
    }
    document["compositions"] = TESTED_COMPOSITIONS
    paths = [*(SHARED / "models" / f"{name}.onnx" for name in NETWORKS), *sorted(given.networks.glob("*.onnx"))]
    tasks = [
        Task(path, count, given.images, given.every, given.peers)
        for count in (*sorted(given.counts, reverse=True), None)
        for path in paths
        if not given.only or path.stem in given.only
    ]
    with ProcessPoolExecutor(given.jobs) as pool:
        running = {pool.submit(measured, task): task for task in tasks}
        for done in as_completed(running):
            task = running[done]
            figures = document["networks"].setdefault(task.path.stem, {})
            figures["peers" if task.count is None else str(task.count)] = done.result()
            print(task.path.stem, task.count, done.result(), flush=True)
            given.output.write_text(json.dumps(document, indent=2) + "\n")
    given.output.with_suffix(".md").write_text(rendered(document))


if __name__ == "__main__":
    main()

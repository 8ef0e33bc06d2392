"""What `quantkit quantize` costs: CPU time, wall time and peak memory, from statistics and with data.

    python benchmarks/quantize_cost.py --models DIR --images DIR --collages DATA.yaml [--before DIR] [--repeats N]
                                       [--only NAME…] [--heavy MB…] [--ways WAY…] [--output results/quantize_cost.json]

Every run is a new process, measured from outside to its end. `--before` names a checkout of an earlier release, which
takes turns with this one. An idle process, which has imported quantkit and onnxruntime, is measured as well: what is
above it is the cost. `--heavy` makes networks of so many megabytes, matrix products and convolutions of few
activations, whose weights are a pattern: only cost means something there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.machine import REPOSITORY, child_environment, this_machine
from harness.process import Limits, Outcome, measure

LIMITS = Limits(seconds=3600, mib=16384)
IDLE = "import numpy, onnx, onnxruntime, quantkit, quantkit.quantization.quantize"
WAYS = ("statistics", "data")
HEAVY_SAMPLES = "128"
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """A network, the samples for it, and options of both `calibrate` and `quantize`."""

    name: str
    model: Path
    data: Path
    options: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write. 1 if a command failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--collages", type=Path, required=True)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=["resnet20", "mobilenetv2", "vit", "yolov8n"])
    parser.add_argument("--heavy", type=int, nargs="*", default=[])
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--output", type=Path, metavar="JSON")
    given = parser.parse_args(arguments)
    checkouts = {"now": REPOSITORY} | ({"before": given.before.resolve()} if given.before else {})
    machine, runs = this_machine(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        idle = {name: run_idle(checkout, Path(folder)) for name, checkout in checkouts.items()}
        record = {"kind": "quantize_cost", "machine": asdict(machine), "python": sys.version.split()[0]}
        record |= {"idle": {name: asdict(outcome) for name, outcome in idle.items()}, "runs": runs}
        for case in cases(given, Path(folder)):
            for number in range(given.repeats):
                for name, checkout in checkouts.items():
                    for way, outcome in run_case(case, given.ways, checkout, Path(folder)):
                        where = {"checkout": name, "way": way, "repeat": number, "load": os.getloadavg()[0]}
                        runs.append(figures(case, outcome, idle[name]) | where)
                        print(json.dumps(runs[-1]), flush=True)
                        if given.output:
                            given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(any(run["failure"] for run in runs))


def figures(case: Case, outcome: Outcome, idle: Outcome) -> dict[str, Any]:
    """Return what a run took, and its peak above that of an idle process."""
    size, above = case.model.stat().st_size, (outcome.mib - idle.mib) * MEBIBYTE
    sizes = {"model_mb": size / 1e6, "above_idle_mb": above / 1e6, "times_model": above / size}
    return {"network": case.name, **sizes, **asdict(outcome)}


def cases(given: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """Yield the networks that were asked for; heavy ones are made when it is their turn."""
    for name in given.only:
        data, options = (
            (given.collages, ("--preprocess", "yolo"))
            if name == "yolov8n"
            else (given.images, ("--preprocess", "cifar10"))
        )
        yield Case(name, given.models / f"{name}.onnx", data, options)
    for megabytes in given.heavy:
        for kind in ("products", "convolutions"):
            path = folder / f"{kind}-{megabytes}.onnx"
            make = [sys.executable, "-m", "harness.heavy_networks", kind, str(megabytes * 10**6), str(path)]
            subprocess.run(make, check=True, cwd=Path(__file__).parent)  # a child's peak counts its parent's memory
            yield Case(path.stem, path, given.images, ("--preprocess", "cifar10", "--limit", HEAVY_SAMPLES))
            path.unlink()


def run_case(case: Case, ways: Sequence[str], checkout: Path, folder: Path) -> Iterator[tuple[str, Outcome]]:
    """Yield each way with its outcome. Statistics are collected before, which is not measured."""
    statistics, target = folder / "model.stats.safetensors", folder / "model.int8.onnx"
    table, command = folder / "model.calib", [sys.executable, "-m", "quantkit"]
    common = [str(case.model), "-q", "--force", *case.options]
    collect = [*command, "calibrate", *common, "--data", str(case.data), "-o", str(table)]
    prepared = run(collect, checkout, folder)
    if prepared.failure:
        raise SystemExit(f"{case.name}: calibrate failed: {prepared.failure}")
    common = [*common[:3], "-o", str(target), "--tensorrt-version", "10.3.0"]
    options = {"statistics": ["--stats", str(statistics)], "data": [*case.options, "--data", str(case.data)]}
    for way in ways:
        yield way, run([*command, "quantize", *common, *options[way]], checkout, folder)


def run_idle(checkout: Path, folder: Path) -> Outcome:
    """Return what a process takes that only imports."""
    return run([sys.executable, "-c", IDLE], checkout, folder)


def run(command: Sequence[str], checkout: Path, folder: Path) -> Outcome:
    """Run one command with the package of a checkout."""
    environment = child_environment(PYTHONPATH=str(checkout))
    return measure(command, env=environment, folder=folder, limits=LIMITS)


if __name__ == "__main__":
    raise SystemExit(main())

"""What an evaluation costs beside onnxruntime alone, and whether its memory grows with the images.

    python benchmarks/evaluation.py --images FOLDER [--shared FOLDER] [--count N] [--rounds N]

FOLDER holds CIFAR-10's test images in class folders. Each network is quantized from the same 512 images; then, taking
turns, the same Q/DQ model runs over the same images in batches of 32:

    plain      onnxruntime with its own threads, Q and DQ as they stand, on batches that lie decoded in memory
    fused      the same with onnxruntime's INT8 kernels (its default), whose sums differ
    evaluate   quantkit.evaluate: images are read and decoded, the model runs, metrics and predictions are kept

Ratios are of the medians. Memory is the peak of whole processes that evaluate growing numbers of images.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from harness.machine import BENCHMARKS, REPOSITORY, this_machine
from harness.process import Limits, measure
from harness.tables import digits, markdown, plain_text

NETWORKS = ("resnet20", "vit")
BATCH = 32
COUNTS = (250, 1000, 4000)
TIMES = "\N{MULTIPLICATION SIGN}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write. All work is done by children, since the peak memory of one starts from its parent's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared")
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        step, folder = given.child[0], Path(given.child[1])
        STEPS[step](given, folder)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child("quantize", given, folder)
        results: dict[str, Any] = {"machine": asdict(this_machine()), "load": os.getloadavg()[0]}
        results |= {"count": given.count, "batch": BATCH, "rounds": given.rounds}
        results["mib"] = {str(count): child("evaluate", given, folder, count) for count in COUNTS}
        child("time", given, folder)
        results |= json.loads((folder / "times.json").read_text())
    write(results)
    return 0


def child(step: str, given: argparse.Namespace, folder: Path, count: int | None = None) -> float:
    """Run a step in a process of its own; its peak memory in MiB."""
    command = [sys.executable, str(BENCHMARKS / "evaluation.py"), "--child", step, str(folder)]
    command += ["--images", str(given.images), "--shared", str(given.shared)]
    command += ["--count", str(count or given.count), "--rounds", str(given.rounds)]
    outcome = measure(command, env=os.environ, folder=folder, limits=Limits(3600.0, 16384.0))
    if outcome.failure:
        raise SystemExit(f"{step}: {outcome.failure}")
    return round(outcome.mib, 1)


def quantize_step(given: argparse.Namespace, folder: Path) -> None:
    """The Q/DQ models."""
    for name in NETWORKS:
        quantized(given.shared, name, folder)


def evaluate_step(given: argparse.Namespace, folder: Path) -> None:
    """One evaluation, whose memory is measured from outside."""
    evaluated(folder / f"{NETWORKS[0]}.int8.onnx", given.images, given.count)


def time_step(given: argparse.Namespace, folder: Path) -> None:
    """All rounds of all networks, and the versions."""
    import onnxruntime

    import quantkit

    seconds = {
        name: timed(contestants(folder / f"{name}.int8.onnx", given.images, given.count), given.rounds)
        for name in NETWORKS
    }
    versions = {"quantkit": quantkit.__version__, "onnxruntime": onnxruntime.__version__}
    (folder / "times.json").write_text(json.dumps({"seconds": seconds, "versions": versions}))


STEPS = {"quantize": quantize_step, "evaluate": evaluate_step, "time": time_step}


def quantized(shared: Path, name: str, folder: Path) -> None:
    """A Q/DQ model from the shared calibration images."""
    import quantkit

    source = shared / "models" / f"{name}.onnx"
    made = quantkit.calibrate(
        source,
        shared / "golden" / "networks" / "calibration_512.npz",
        preprocess="cifar10",
        options=quantkit.CalibrateOptions(backend="onnxruntime"),
    )
    quantkit.quantize(source, folder / f"{name}.int8.onnx", statistics=made.statistics)


def evaluated(path: Path, images: Path, count: int) -> None:
    """One evaluation."""
    from quantkit import DataOptions
    from quantkit.evaluation.evaluate import evaluate
    from quantkit.evaluation.options import EvaluateOptions

    options = EvaluateOptions(data=DataOptions(limit=count, batch_size=BATCH))
    evaluate(path, images, preprocess="cifar10", options=options)


def contestants(path: Path, images: Path, count: int) -> Mapping[str, Callable[[], object]]:
    """What is run, by name."""
    from quantkit import PRESETS, DataOptions
    from quantkit.data import open_data
    from quantkit.values import ModelInput

    image = ModelInput("image", "float32", (None, 3, 32, 32))
    feed, _ = open_data(images, [image], PRESETS["cifar10"], DataOptions(limit=count, batch_size=BATCH))
    batches = [portion.batch["image"] for portion in feed.portions()]
    return {
        "plain": loop(path, batches, fused=False),
        "fused": loop(path, batches, fused=True),
        "evaluate": lambda: evaluated(path, images, count),
    }


def loop(path: Path, batches: Sequence[Any], *, fused: bool) -> Callable[[], object]:
    """onnxruntime alone over batches in memory; the session is open already."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not fused:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: [session.run(None, {name: batch}) for batch in batches]


def timed(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every round; contestants take turns, and a first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if number:
                found[name].append(round(time.perf_counter() - started, 4))
    return found


def write(results: Mapping[str, Any]) -> None:
    """The JSON, the page, and the tables on the terminal."""
    head = ("network", "plain s", "fused s", "evaluate s", f"{TIMES} plain", f"{TIMES} fused")
    rows = []
    for name, seconds in results["seconds"].items():
        plain, fused, ours = (median(seconds[who]) for who in ("plain", "fused", "evaluate"))
        rows.append((name, *map(digits, (plain, fused, ours)), digits(ours / plain), digits(ours / fused)))
    about = ("images", *(f"{int(count):,}" for count in results["mib"]))
    memory_row = ("peak MiB", *(f"{mib:,.0f}" for mib in results["mib"].values()))
    machine = results["machine"]
    count, batch, rounds = results["count"], results["batch"], results["rounds"]
    page = f"""# What an evaluation costs

The same Q/DQ model over the same {count:,} images in batches of {batch}, contestants taking turns, medians of {rounds}.
`plain` is onnxruntime alone on batches that lie decoded in memory, Q and DQ as they stand; `fused` the same with its
own INT8 kernels, whose sums differ; `evaluate` reads and decodes the images as well, opens the model, and keeps score.

{markdown(head, rows)}

Peak memory of a whole process that evaluates resnet20 on growing numbers of images:

{markdown(about, [memory_row])}

{machine["cpu"]}, {machine["cores"]} cores, load average {results["load"]:.1f} at the start, {machine["date"][:10]};
quantkit {results["versions"]["quantkit"]}, onnxruntime {results["versions"]["onnxruntime"]}.
Made by `benchmarks/evaluation.py`; every round is in `evaluation.json`.
"""
    folder = BENCHMARKS / "results"
    (folder / "evaluation.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "evaluation.md").write_text(page, encoding="utf-8")
    print(plain_text(head, rows), plain_text(about, [memory_row]), sep="\n\n")


if __name__ == "__main__":
    raise SystemExit(main())

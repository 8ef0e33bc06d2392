"""Placements side by side on a GPU: FP16, a table, modelopt, quantkit's default and quantkit's tuned model.

    python benchmarks/placement.py FOLDER --models DIR --images DIR --modelopt DIR [--output DIR] [NETWORK…]

FOLDER holds everything and lets a run that was cut short go on. --models: trained networks (NETWORK.onnx); --images:
CIFAR-10 as train/ and test/ class folders; --modelopt: where nvidia-modelopt 0.47.0 is installed. Two Pythons: --torch
exports and runs modelopt (torch, timm), --python has TensorRT, pycuda and quantkit. Writes OUTPUT/placement.json, which
becomes results/placement.json, after each step.

Networks with random weights tell times and nothing else; those with labels are counted on 10,000 images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from placements import engines, quantized  # noqa: E402
from placements.networks import NETWORKS, write_network  # noqa: E402

REPEATED = ("resnet20", "resnet50")
"""Networks that are tuned twice."""
ON_GPU = {
    "build": engines.build_engines, "tune": engines.tune_network, "time": engines.time_engines,
    "count": engines.count_correct, "repeat": lambda bench: engines.tune_network(bench, "repeat"),
    "time-repeat": engines.time_repetition,
}  # fmt: skip


class Conductor:
    """Runs the steps of all networks: preparation on the CPU, and one process at a time on each GPU."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.folder: Path = arguments.folder
        self.started = time.monotonic()
        self.log = (arguments.output / "placement.log").open("a")
        self.waiting = list(arguments.networks)
        self.prepared: set[str] = set()
        self.separately, self.crashed = bool(arguments.separately), False
        self.lock = threading.Lock()

    def left(self) -> float:
        """Return the seconds that are left."""
        return float(self.arguments.limit) - (time.monotonic() - self.started)

    def say(self, *words: object) -> None:
        """Print what happens, with the seconds since the start."""
        print(f"{time.monotonic() - self.started:6.1f}", *words, flush=True)

    def step(self, stage: str, name: str, gpu: int | None = None) -> bool:
        """Run one step in a process of its own; False if it failed or no time was left."""
        if self.left() < 5:
            return False
        python = self.arguments.torch if stage in ("export", "modelopt") else self.arguments.python
        words = [*python.split(), __file__, self.folder, name, "--stage", stage]
        given = {k: getattr(self.arguments, k) for k in ("models", "images", "modelopt")}
        words += [w for option, value in given.items() if value is not None for w in (f"--{option}", value)]
        words += ["--separately"] if self.separately else []
        environment = {**os.environ, "OMP_NUM_THREADS": "8", "PYTHONUNBUFFERED": "1"}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        began = time.monotonic()
        process = subprocess.Popen(list(map(str, words)), stdout=self.log, stderr=subprocess.STDOUT, env=environment)
        try:
            code: object = process.wait(self.left())
        except subprocess.TimeoutExpired:
            process.kill()
            code = "no time left"
        self.say(stage, name, f"{time.monotonic() - began:.1f} s", code or "")
        self.collect()
        self.crashed = isinstance(code, int) and code < 0
        return code == 0

    def prepare(self, name: str) -> None:
        """Export and quantize a network, if that was not done."""
        path = self.folder / f"{name}.onnx"
        if path.exists() or self.step("export", name):
            todo = [s for s, made in (("quantize", ".default.onnx"), ("modelopt", ".modelopt.onnx"))
                    if not path.with_suffix(made).exists()]  # fmt: skip
            run_together([lambda stage=stage: self.step(stage, name) for stage in todo])
        with self.lock:
            self.prepared.add(name)

    def next_network(self) -> str | None:
        """Take the first network that is prepared, waiting for one; None if none is left, or no time."""
        while self.left() > 5:
            with self.lock:
                name = next((n for n in self.waiting if n in self.prepared), None)
                if name is not None:
                    self.waiting.remove(name)
                if name is not None or not self.waiting:
                    return name
            time.sleep(0.2)
        return None

    def measure(self, gpu: int, delay: float) -> None:
        """Take networks one after the other: nothing else runs on this GPU while an engine is built or timed."""
        time.sleep(delay)
        taken = []
        while (name := self.next_network()) is not None:
            taken.append(name)
            for stage in self.arguments.steps.split(","):
                if not self.step(stage, name, gpu) and self.crashed and not self.separately:
                    self.separately = True  # the builds of a process share nothing from now on
                    self.step(stage, name, gpu)
        for name in (name for name in taken if name in REPEATED and "tune" in self.arguments.steps):
            self.step("repeat+time-repeat", name, gpu)

    def collect(self) -> None:
        """Write what is known of all networks."""
        with self.lock:
            known = {name: engines.Bench(NETWORKS[name], self.folder, None).known() for name in NETWORKS}
            machine = self.folder / "machine.txt"
            document = {
                "machine": machine.read_text() if machine.exists() else "",
                "date": date.today().isoformat(),
                "level": engines.LEVEL,
                "networks": {name: found for name, found in known.items() if found},
            }
            (self.arguments.output / "placement.json").write_text(json.dumps(document, indent=1) + "\n")

    def run(self) -> None:
        """Run everything that is not done, as far as the time goes."""
        gpus = [gpu.partition("@") for gpu in self.arguments.gpus.split(",")]
        run_together(
            [lambda name=name: self.prepare(name) for name in self.arguments.networks]
            + [lambda gpu=gpu, delay=delay: self.measure(int(gpu), float(delay or 0)) for gpu, _, delay in gpus]
        )
        self.collect()


def run_together(work: Sequence[Callable[[], object]]) -> None:
    """Run functions in threads, and wait for all."""
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_stage(stage: str, name: str, arguments: argparse.Namespace) -> None:
    """Run one step of one network in this process."""
    network, folder = NETWORKS[name], arguments.folder
    path = folder / f"{name}.onnx"
    if stage == "export":
        part = path.with_suffix(".part")
        write_network(network, arguments.models, part)
        part.replace(path)
    elif stage == "quantize":
        quantized.quantize_with_quantkit(network, path, arguments.images)
    elif stage == "modelopt":
        sys.path.insert(0, str(arguments.modelopt))
        quantized.quantize_with_modelopt(network, path, arguments.images, folder / "modelopt" / name)
    else:
        from quantkit.engines.bench import machine_name

        (folder / "machine.txt").write_text(machine_name(0))
        run_on_gpu(stage, engines.Bench(network, folder, arguments.images, separately=arguments.separately))


def run_on_gpu(stage: str, bench: engines.Bench) -> None:
    """Run stages one after the other, `tune+build+time`, so that their builds share kernel times; exit with 1 if one of
    them failed."""
    from quantkit.backends.tensorrt.build import kernels_loaded

    failed = 0
    with nullcontext() if bench.separately else kernels_loaded():
        for part in stage.split("+"):
            try:
                ON_GPU[part](bench)
            except Exception:
                traceback.print_exc()
                failed += 1
    sys.stdout.flush()
    os._exit(min(failed, 1))


def main() -> None:
    """Run everything, or one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=list(NETWORKS))
    for name in ("models", "images", "modelopt"):
        parser.add_argument(f"--{name}", type=Path, required=name != "images")
    parser.add_argument("--separately", action="store_true", help="builds share no kernel times")
    parser.add_argument("--output", type=Path, help="default: FOLDER")
    parser.add_argument("--torch", default="python3")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--gpus", default="0", help="numbers; 1@60 begins after 60 seconds")
    parser.add_argument(
        "--steps", default="tune+build+time+count", help="on a GPU, for each network: a comma begins a process"
    )
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds; everything ends by then")
    parser.add_argument("--stage", help="for the processes that this program starts")
    arguments = parser.parse_args()
    arguments.output = arguments.output or arguments.folder
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.stage:
        run_stage(arguments.stage, arguments.networks[0], arguments)
    else:
        Conductor(arguments).run()


if __name__ == "__main__":
    main()

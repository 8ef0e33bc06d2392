"""Placements side by side on a GPU: FP16, a table, modelopt, quantkit's default and quantkit's tuned model.

    python benchmarks/placement.py FOLDER --models DIR --images DIR --modelopt DIR [--output DIR] [NETWORK…]

FOLDER holds everything and lets a run that was cut short go on. --models: trained networks (NETWORK.onnx); --images:
CIFAR-10 as train/ and test/ class folders; --modelopt: where nvidia-modelopt 0.47.0 is installed. Two Pythons: --torch
exports and runs modelopt (torch, timm), --python has TensorRT, pycuda and quantkit. Writes OUTPUT/placement.json, which
becomes results/placement.json, after each step: rows of --previous stay, as earlier ones where the default placement of
their network has changed.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from placements import engines, quantized  # noqa: E402
from placements.earlier import PAIRS, placement_digest, with_previous  # noqa: E402
from placements.networks import NETWORKS, write_network  # noqa: E402

AFTER = "resnet20:repeat+time-repeat,resnet50:repeat+time-repeat,resnet20:budget,shared-head:as-exported+time"
"""Two tunings again, each in a process that knows nothing of the first; one inside a budget; what cleaning is worth."""
ON_GPU: dict[str, Callable[[engines.Bench], None]] = {
    "build": engines.build_engines, "tune": engines.tune_network, "time": engines.time_engines,
    "as-exported": engines.build_as_exported, "budget": engines.tune_within_budget,
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
        for name in NETWORKS:  # what an earlier run did not end, this one does
            if not (self.folder / f"{name}.done").exists():
                (self.folder / f"{name}.begun").unlink(missing_ok=True)
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
        names = self.arguments.networks if stage == "serve" else [name]
        words = [*python.split(), __file__, self.folder, *names, "--stage", stage]
        words += [w for k in ("steps", "level", "minutes") for w in (f"--{k}", getattr(self.arguments, k))]
        if gpu is None:
            words = ["nice", "-n", "10", *words]  # a builder needs its core
        given = {k: getattr(self.arguments, k) for k in ("models", "images", "modelopt")}
        words += [w for option, value in given.items() if value is not None for w in (f"--{option}", value)]
        environment = {**os.environ, "OMP_NUM_THREADS": "8", "PYTHONUNBUFFERED": "1"}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        began = time.monotonic()
        process = subprocess.Popen(list(map(str, words)), stdout=self.log, stderr=subprocess.STDOUT, env=environment)
        while (code := process.poll()) is None and self.left() > 0:
            time.sleep(0.2)
            if int(time.monotonic()) % 10 == 0:
                self.collect()
        if code is None:
            process.kill()
            process.wait()
        self.say(stage, name, f"{time.monotonic() - began:.1f} s", "no time left" if code is None else code or "")
        self.collect()
        return code == 0

    def prepare(self, name: str) -> None:
        """Export and quantize a network, if that was not done."""
        path = self.folder / f"{name}.onnx"
        if path.exists() or self.step("export", name):
            todo = [s for s, made in (("quantize", ".default.onnx"), ("modelopt", ".modelopt.onnx"))
                    if not path.with_suffix(made).exists()]  # fmt: skip
            run_together([lambda stage=stage: self.step(stage, name) for stage in todo])
        (self.folder / f"{name}.prepared").touch()

    def unfinished(self) -> list[str]:
        """Return the networks that no process has begun."""
        return [name for name in self.arguments.networks if not (self.folder / f"{name}.begun").exists()]

    def measure(self, gpu: int, delay: float) -> None:
        """One process builds and times all networks on a GPU, one after the other, and nothing else runs there; if
        TensorRT crashes, another goes on with the next network."""
        time.sleep(delay)
        while (before := self.unfinished()) and self.left() > 5:
            if not self.step("serve", self.arguments.networks[0], gpu) and self.unfinished() == before:
                break  # it does not even begin: TensorRT or the GPU is missing
        for stage in filter(None, self.arguments.after.split(",")):
            name, _, steps = stage.partition(":")
            self.step(steps, name, gpu)

    def collect(self) -> None:
        """Write what is known of all networks."""
        with self.lock:
            known = {name: engines.Bench(NETWORKS[name], self.folder, None).known() for name in NETWORKS}
            machine = self.folder / "machine.txt"
            document = {
                "machine": machine.read_text() if machine.exists() else "",
                "date": date.today().isoformat(),
                "level": self.arguments.level,
                "networks": {name: without_paths(found) for name, found in known.items() if found},
            }
            made = with_previous(document, json.loads(self.arguments.previous.read_text()))
            (self.arguments.output / "placement.json").write_text(json.dumps(made, indent=1) + "\n")

    def run(self) -> None:
        """Run everything that is not done, as far as the time goes."""
        gpus = [gpu.partition("@") for gpu in self.arguments.gpus.split(",")]
        run_together(
            [lambda name=name: self.prepare(name) for name in self.arguments.networks]
            + [lambda gpu=gpu, delay=delay: self.measure(int(gpu), float(delay or 0)) for gpu, _, delay in gpus]
        )
        self.collect()


def without_paths(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a network, without the places of engines on this machine."""
    inside = {k: v for k, v in known.items() if k in ("tuning", "repeat")}
    return {**known, **{key: {k: v for k, v in found.items() if k != "paths"} for key, found in inside.items()}}


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
        bench_of(name, arguments).learn(PAIRS, placement_digest(path.with_suffix(".default.onnx")))
    elif stage == "modelopt":
        sys.path.insert(0, str(arguments.modelopt))
        quantized.quantize_with_modelopt(network, path, arguments.images, folder / "modelopt" / name)
    else:
        from quantkit.engines.bench import machine_name

        (folder / "machine.txt").write_text(machine_name(0))
        serve(arguments) if stage == "serve" else run_on_gpu(stage, [bench_of(name, arguments)])


def bench_of(name: str, arguments: argparse.Namespace) -> engines.Bench:
    """The place of a network."""
    how = {"level": arguments.level, "minutes": arguments.minutes}
    return engines.Bench(NETWORKS[name], arguments.folder, arguments.images, say=say, **how)


def say(text: str) -> None:
    """Print with the time of day."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def serve(arguments: argparse.Namespace) -> None:
    """Run the steps of all networks that no other process has begun, as soon as they are prepared."""

    def begun() -> Iterator[engines.Bench]:
        waiting = list(arguments.networks)
        while waiting:
            for name in waiting:
                if (arguments.folder / f"{name}.begun").exists():
                    waiting.remove(name)
                    break
                if (arguments.folder / f"{name}.prepared").exists():
                    try:
                        (arguments.folder / f"{name}.begun").touch(exist_ok=False)
                    except FileExistsError:
                        continue
                    yield bench_of(name, arguments)
                    (arguments.folder / f"{name}.done").touch()
                    break
            else:
                time.sleep(0.2)

    run_on_gpu(arguments.steps, begun())


def run_on_gpu(stage: str, benches: Iterable[engines.Bench]) -> None:
    """Run stages one after the other, as builds in one process share kernel times; exit with 1 if any failed."""
    from quantkit.backends.tensorrt.build import kernels_loaded

    failed = 0
    with kernels_loaded():
        for bench in benches:
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
    parser.add_argument("--output", type=Path, help="default: FOLDER")
    parser.add_argument(
        "--previous", type=Path, default=HERE / "results" / "placement.json", help="results to go on with"
    )
    parser.add_argument("--torch", default="python3")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--gpus", default="0", help="numbers; 1@60 begins after 60 seconds")
    parser.add_argument("--steps", default="tune+build+time+count", help="on a GPU, for each network")
    parser.add_argument("--after", default=AFTER, help="NETWORK:STEPS, when all networks are done")
    parser.add_argument("--level", type=int, default=engines.LEVEL, help="of TensorRT's builder optimization")
    parser.add_argument("--minutes", type=float, default=engines.MINUTES, help="for tuning one network")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds; everything ends by then")
    parser.add_argument("--stage", help="for the processes that this program starts")
    arguments = parser.parse_args()
    arguments.output = arguments.output or arguments.folder
    for folder in (arguments.folder, arguments.output):
        folder.mkdir(parents=True, exist_ok=True)
    if arguments.stage:
        run_stage(arguments.stage, arguments.networks[0], arguments)
    else:
        Conductor(arguments).run()


if __name__ == "__main__":
    main()

"""Commands that run on Ray are killed, and started again: do they end with the bytes of one run?

    python benchmarks/scale_kills.py [--count 30] [--output results/scale.json]

In each trial, one worker is killed with SIGKILL at a random moment, then the command that started it, and then the same
command runs to its end. Table and statistics have to be the bytes of one run in one process. 1, 2 and 3 workers and
both histogram modes take turns. A trial in which the run was over before both kills does not count, and is repeated.
The figures are added to those of `scale.py`, as `kills`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.machine import child_environment, this_machine

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLED = REPOSITORY / "calibration_data"
MODES = ("tensorrt", "invariant")
SHARDS = 100
WORKERS = (1, 2, 3)
ACTOR = "ray::ShardActor"
PATIENCE = 60.0
"""Seconds after which a trial in which nothing happens does not count."""
LEAVING = 5.0
"""Seconds that the processes of a cluster have to end by themselves."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial. kept: shards that were there when the command was killed. equal: the bytes are those of one run."""

    workers: int
    histogram: str
    kept: int
    equal: bool


def command(output: str, histogram: str, *options: str) -> list[str]:
    """The command line, in a folder with the network and its images."""
    line = [sys.executable, "-m", "quantkit", "calibrate", "model.onnx", "--data", "images", "--batch-size", "2"]
    return [*line, "--backend", "onnxruntime", "--histogram", histogram, "-q", "-o", f"{output}.calib", *options]


def environment() -> dict[str, str]:
    """A cluster of its own, with three CPUs on any machine."""
    cpus = json.dumps({"CPU": max(WORKERS)})
    return child_environment(PYTHONPATH=str(REPOSITORY), RAY_ADDRESS="local", RAY_OVERRIDE_RESOURCES=cpus)


def descendants(pid: int) -> dict[int, str]:
    """The processes that a running process has started, and those started by these, with their command lines."""
    parents: dict[int, int] = {}
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit():
                parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    found, reached = {}, {pid}
    while reached := {child for child, parent in parents.items() if parent in reached}:
        for child in reached:
            with contextlib.suppress(OSError):
                found[child] = Path("/proc", str(child), "cmdline").read_text().replace("\0", " ").strip()
    return found


def results(folder: Path, output: str) -> tuple[bytes, bytes]:
    """The bytes of table and statistics."""
    return (folder / f"{output}.calib").read_bytes(), (folder / f"{output}.stats.safetensors").read_bytes()


def kept_shards(folder: Path) -> int:
    """How many shards are there."""
    return len(list(folder.glob("out.calib.shards/*.safetensors")))


def kill_worker(folder: Path, running: subprocess.Popen[bytes], drawn: random.Random) -> bool:
    """Kill a worker once a random number of shards is there; False where the run was over first."""
    moment, until = drawn.randint(0, SHARDS - 20), time.monotonic() + PATIENCE
    while running.poll() is None and time.monotonic() < until:
        if kept_shards(folder) >= moment:
            actors = [pid for pid, line in descendants(running.pid).items() if line.startswith(ACTOR)]
            if actors:
                os.kill(drawn.choice(actors), signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False


def end_leftovers(started: Iterable[int]) -> None:
    """Wait until the processes of the killed command's cluster are gone, and kill those that stay."""
    until, left = time.monotonic() + LEAVING, list(started)
    while left and time.monotonic() < until:
        time.sleep(0.05)
        left = [pid for pid in left if Path("/proc", str(pid)).exists()]
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def run_trial(folder: Path, workers: int, histogram: str, whole: tuple[bytes, bytes], seed: int) -> Trial | None:
    """Kill a worker and the command, and run it again; None where it was over before."""
    drawn, line = random.Random(seed), command("out", histogram, "--on", "ray", "--workers", str(workers))
    running = subprocess.Popen(line, cwd=folder, env=environment(), stderr=subprocess.DEVNULL)
    struck = kill_worker(folder, running, drawn)
    time.sleep(drawn.uniform(0.0, 0.5))
    struck = struck and running.poll() is None
    started = descendants(running.pid)
    running.kill()
    running.wait()
    end_leftovers(started)
    kept = kept_shards(folder)
    if struck:
        subprocess.run(line, cwd=folder, env=environment(), check=True)
    equal = struck and results(folder, "out") == whole and not list(folder.glob("*.shards"))
    for path in [*folder.glob("out.*"), *folder.glob(".quantkit*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return Trial(workers, histogram, kept, equal) if struck else None


def kills(folder: Path, count: int) -> list[Trial]:
    """Run trials until so many count."""
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copy(BUNDLED / name, folder)
    shutil.copytree(BUNDLED / "images", folder / "images")
    for histogram in MODES:
        subprocess.run(command(histogram, histogram), cwd=folder, env=environment(), check=True)
    wholes = {histogram: results(folder, histogram) for histogram in MODES}
    found: list[Trial] = []
    for seed in range(4 * count):
        if len(found) == count:
            break
        workers, histogram = WORKERS[len(found) % len(WORKERS)], MODES[len(found) // len(WORKERS) % len(MODES)]
        trial = run_trial(folder, workers, histogram, wholes[histogram], seed)
        if trial is not None:
            found.append(trial)
        print(len(found), trial or "over before it was killed", flush=True)
    return found


def summary(trials: list[Trial]) -> dict[str, Any]:
    """The figures to keep."""
    by_workers = {str(n): sum(trial.workers == n for trial in trials) for n in WORKERS}
    return {
        "machine": asdict(this_machine()),
        "trials": len(trials),
        "equal": sum(trial.equal for trial in trials),
        "by_workers": by_workers,
        "by_histogram": {mode: sum(trial.histogram == mode for trial in trials) for mode in MODES},
        "shards": SHARDS,
        "shards_kept": sorted(trial.kept for trial in trials),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "scale.json")
    parser.add_argument("--count", type=int, default=30)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trials = kills(Path(folder).resolve(), chosen.count)
    known = json.loads(chosen.output.read_text(encoding="utf-8")) if chosen.output.exists() else {"kind": "scale"}
    known["kills"] = summary(trials)
    chosen.output.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(known["kills"])
    sys.exit(known["kills"]["equal"] != chosen.count)


if __name__ == "__main__":
    main()

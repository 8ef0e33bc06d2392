"""Operators in chains on a GPU: FP16 beside INT8, layer by layer, by TensorRT. Writes a GPU profile.

    python benchmarks/kernels.py -o results/kernels-h200-trt8.6.json --seconds 300

`quantkit profile` measures the same, and needs no repository. This script also keeps what TensorRT's inspector says of
every layer (its kernel, and the formats that it reads and writes), and can measure some kinds of chains first.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")

from quantkit.gpu_profile.engine_file import branch_documents, write_engines
from quantkit.gpu_profile.measure import LayerTimer, MeasuredEngine
from quantkit.gpu_profile.plan import BATCHES, EnginePlan, engine_plans
from quantkit.gpu_profile.profile import write_profile
from quantkit.gpu_profile.profiling import measured_engines, opened_file


def keep_inspection(path: Path, plan: EnginePlan, made: MeasuredEngine) -> None:
    """Append one engine to a file of lines."""
    times = {layer.name: layer.milliseconds for layer in made.layers}
    line = {"branches": branch_documents(plan), "graph": made.graph, "times": times, "inspector": made.document}
    with gzip.open(path, "at") as file:
        file.write(json.dumps(line) + "\n")


def main() -> None:
    """Measure until the time is over."""
    options = argparse.ArgumentParser()
    options.add_argument("-o", "--output", type=Path, default=Path(os.environ.get("OUT", ".")) / "kernels.json")
    options.add_argument("--seconds", type=float, default=300)
    options.add_argument("--level", type=int, default=1)
    options.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    options.add_argument("--first", nargs="*", default=[], help="kinds of chains that are measured first")
    given = options.parse_args()
    started, raw = time.monotonic(), given.output.with_suffix(".engines.json")
    timer = LayerTimer(given.level)
    file = opened_file(raw, timer, force=False)
    ranks = {kind: rank for rank, kind in enumerate(given.first)}
    plans = sorted(engine_plans(given.batches), key=lambda plan: ranks.get(plan.branches[0][0].kind, len(ranks)))
    with timer.started():
        for plan in plans:
            if file.has(plan):
                continue
            if time.monotonic() - started > given.seconds:
                break
            keep = partial(keep_inspection, given.output.with_suffix(".inspector.jsonl.gz"), plan)
            for engine in measured_engines(timer, plan, keep):
                file.engines.append(engine)
                write_engines(file, raw)
                write_profile(file.profile, given.output)
                about = engine.get("error") or f"build {engine['build_seconds']} s, graph {engine['graph'][1]} ms"
                print(f"{time.monotonic() - started:6.1f} s  {plan.words}, {plan.branches[0][0]}: {about}", flush=True)


if __name__ == "__main__":
    main()

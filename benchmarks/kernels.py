"""Operators in chains on a GPU: FP16 beside INT8, layer by layer, by TensorRT. Writes kernels.json.

    python benchmarks/kernels.py -o kernels.json --seconds 300

The most important chains come first; the file is written after every engine, so that a part of it is valid as well, and
a second run goes on where the first one stopped. Nothing else may run on the GPU meanwhile.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from quantkit.gpu_profile.branch_writer import branches_model
from quantkit.gpu_profile.chain import ALONE, chain_branch
from quantkit.gpu_profile.measure import LayerTimer, MeasuredEngine
from quantkit.gpu_profile.plan import BATCHES, EnginePlan, engine_plans


def plan_key(plan: EnginePlan) -> str:
    """What tells one engine from all others."""
    return json.dumps([[chain.document(), form] for chain, form in plan.branches], sort_keys=True)


def engine_row(plan: EnginePlan, made: MeasuredEngine) -> dict[str, Any]:
    """One engine as it is written."""
    return {
        "quantized": plan.quantized,
        "branches": [{**chain.document(), "form": form} for chain, form in plan.branches],
        "graph": [round(value, 5) for value in made.graph],
        "overhead": round(made.overhead, 5),
        "build_seconds": round(made.build_seconds, 2),
        "layers": [layer.document() for layer in made.layers],
    }


def main() -> None:
    """Measure until the time is over."""
    options = argparse.ArgumentParser()
    options.add_argument("-o", "--output", type=Path, default=Path(os.environ.get("OUT", ".")) / "kernels.json")
    options.add_argument("--seconds", type=float, default=300)
    options.add_argument("--level", type=int, default=1)
    options.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    options.add_argument("--resume", type=Path, help="a file of an earlier run, whose engines are not built again")
    given = options.parse_args()
    started = time.monotonic()
    earlier = given.resume or given.output
    document: dict[str, Any] = json.loads(earlier.read_text()) if earlier.exists() else {"engines": []}
    have = {json.dumps([[{k: v for k, v in b.items() if k != "form"}, b["form"]] for b in e["branches"]],
                       sort_keys=True) for e in document["engines"]}  # fmt: skip
    timer = LayerTimer(given.level)
    with timer.started():
        document |= {
            "gpu": timer.device.name, "compute_capability": ".".join(map(str, timer.device.capability)),
            "tensorrt": timer.version, "date": date.today().isoformat(), "level": given.level,
        }  # fmt: skip
        print(f"ready after {time.monotonic() - started:.1f} s", flush=True)
        for plan in engine_plans(given.batches):
            if plan_key(plan) in have:
                continue
            if time.monotonic() - started > given.seconds:
                break
            for row in measured_rows(timer, plan, given.output):
                document["engines"].append(row)
                given.output.write_text(json.dumps(document))
                label, first = "int8" if row["quantized"] else "fp16", row["branches"][0]
                spent = f"build {row.get('build_seconds')} s, graph {row.get('graph', [0, 0])[1]} ms"
                about = f"{len(row['branches']):3} branches, {len(row['layers'])} layers, first {first}"
                print(f"{time.monotonic() - started:6.1f} s  {label} {about}: {row.get('error') or spent}", flush=True)


def measured_rows(timer: LayerTimer, plan: EnginePlan, output: Path) -> Iterator[dict[str, Any]]:
    """Measure one engine; where its build fails, its halves, so that one chain does not cost the others."""
    row = measure_plan(timer, plan, output)
    if "error" not in row or len(plan.branches) == 1:
        yield row
        return
    print(f"  {row['error'][:200]}", flush=True)
    middle = len(plan.branches) // 2
    for branches in (plan.branches[:middle], plan.branches[middle:]):
        yield from measured_rows(timer, EnginePlan(branches, plan.quantized), output)


def measure_plan(timer: LayerTimer, plan: EnginePlan, output: Path) -> dict[str, Any]:
    """Measure one engine; what TensorRT says against it is in the row. The inspector's words go beside the file."""
    branches = [chain_branch(chain, form, k) for k, (chain, form) in enumerate(plan.branches)]
    alone = plan.branches[0][0].kind in ALONE
    try:
        made = timer.measure(branches_model(branches), int8=plan.quantized, alone=alone)
    except Exception as error:  # whatever TensorRT does with one chain, the others are measured
        empty = [{**chain.document(), "form": form} for chain, form in plan.branches]
        return {"quantized": plan.quantized, "branches": empty, "error": str(error)[:400], "layers": []}
    with gzip.open(output.with_suffix(".inspector.jsonl.gz"), "at") as file:
        times = {layer.name: layer.milliseconds for layer in made.layers}
        line = {"plan": plan_key(plan), "graph": made.graph, "times": times, "inspector": made.document}
        file.write(json.dumps(line) + "\n")
    return engine_row(plan, made)


if __name__ == "__main__":
    sys.exit(main())

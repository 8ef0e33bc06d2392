"""Readers of quantkit under changed documents, in numbers: what is accepted, what is refused, and what is a fault.

    python benchmarks/fuzz.py [--inputs 1000000] [--kind NAME…] [--first SEED] [--json results/fuzz.json] [--seconds 10]

Documents are samples of each kind, changed by a seed (tests/support/mutation.py). Every kind has a process of its own
with limits of time and memory, which is started again where it dies:

    accepted   the reader returned a value
    refused    one error of quantkit with a remedy
    fault      another exception, a warning, a hang, a process that died; shown with the seed, which makes it again

Kinds that are named replace their figures in the file; others stay. The exit code is 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.machine import REPOSITORY, this_machine

sys.path.insert(0, str(REPOSITORY))
from tests.support.hostile import KINDS, document_of, outcome_of

MEMORY = 8 << 30
SHOWN = 20
POLL = 0.2


@dataclass(slots=True)
class Tally:
    """The outcomes of one kind. examples: seed → what went wrong, of the first faults."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    faults: int = 0
    seconds: float = 0.0
    examples: dict[int, str] = field(default_factory=dict)

    def count_fault(self, seed: int, text: str) -> None:
        self.inputs += 1
        self.faults += 1
        if len(self.examples) < SHOWN:
            self.examples[seed] = text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all kinds together")
    parser.add_argument("--kind", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=10.0, help="the longest that one document may take")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    kinds: dict[str, Any] = {}
    if chosen.json is not None and chosen.json.exists():
        kinds = json.loads(chosen.json.read_text(encoding="utf-8"))["kinds"]
    unit = chosen.inputs / sum(1 / KINDS[name].cost for name in chosen.kind)
    for name in chosen.kind:
        tally = run_kind(name, chosen.first, math.ceil(unit / KINDS[name].cost), chosen.seconds)
        kinds[name] = asdict(tally)
        print(f"{name:<24}{tally.inputs:>9,}{tally.accepted:>9,}{tally.refused:>9,}{tally.faults:>7,}", flush=True)
        for seed, text in tally.examples.items():
            print(f"    seed {seed}: {text}", flush=True)
        if chosen.json is not None:
            ordered = {kind: kinds[kind] for kind in KINDS if kind in kinds}
            document = {"kind": "fuzz", "machine": asdict(this_machine()), "kinds": ordered}
            chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return int(any(kinds[name]["faults"] for name in chosen.kind))


def run_kind(name: str, first: int, count: int, seconds: float) -> Tally:
    """Read the documents of a kind in a process, and start another where it hangs or dies."""
    tally, started = Tally(), time.monotonic()
    context = multiprocessing.get_context("spawn")
    at, end = first, first + count
    while at < end:
        now, results = context.Value("q", at), context.SimpleQueue()
        process = context.Process(target=read_all, args=(name, at, end, now, results))
        process.start()
        seen, since, ready = -1, time.monotonic(), False
        while process.is_alive():
            process.join(POLL)
            while not results.empty():
                ready = add(tally, results.get())
            if now.value != seen:
                seen, since = now.value, time.monotonic()
            elif time.monotonic() - since > (seconds if ready else 120.0):
                process.kill()
                process.join()
        while not results.empty():
            add(tally, results.get())
        at = end if process.exitcode == 0 else now.value + 1
        if process.exitcode:
            died = "takes too long" if process.exitcode == -9 else f"the process ends with {process.exitcode}"
            tally.count_fault(now.value, died)
    tally.seconds = round(time.monotonic() - started, 1)
    return tally


def add(tally: Tally, result: tuple[int, int, int, list[tuple[int, str]]]) -> bool:
    """Add what a process reports."""
    inputs, accepted, refused, faults = result
    tally.inputs += inputs
    tally.accepted += accepted
    tally.refused += refused
    for seed, text in faults:
        tally.count_fault(seed, text)
    return True


def read_all(name: str, first: int, end: int, now: Any, results: Any) -> None:
    """Read documents in a process of its own, and report after every one that is a fault, else after every few."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    warnings.simplefilter("error")
    kind = KINDS[name]
    counts = [0, 0, 0]
    results.put((0, 0, 0, []))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / kind.name
        for seed in range(first, end):
            path.write_bytes(document_of(kind, seed))
            now.value = seed
            found = outcome_of(kind, path)
            if found.text:
                results.put((0, 0, 0, [(seed, found.text)]))
            else:
                counts = [counts[0] + 1, counts[1] + found.accepted, counts[2] + found.refused]
            if seed % 50 == 0 or seed + 1 == end:
                results.put((*counts, []))
                counts = [0, 0, 0]


if __name__ == "__main__":
    sys.exit(main())

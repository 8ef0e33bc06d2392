"""What calibration costs: wall time and peak memory of whole processes, quantkit beside its peers.

    python benchmarks/calibration.py [--peers-python PATH] [--repeats N] [--only NAME,NAME]
    python benchmarks/calibration.py --scaling --images-folder FOLDER

Part one: two trained CIFAR-10 networks, the same 512 images, batches of 32. Every contestant is a
fresh process in a fresh folder, measured from its start to its end, imports included; contestants
take turns (one repeat each, then the next round), and medians are reported.

Part two, `--scaling`: the first 128, 2,048 and 8,192 JPEGs of a folder instead, decoded while
calibrating; quantkit alone unless `--only` names others. It shows whether memory grows with data.

What a run has to do: `plain` infers, `floor` infers with every activation as an output, quantkit
writes four calibration tables, the peers calibrate by one rule and write a Q/DQ model.
A contestant that is not installed is skipped and says so; a run that fails, or that ends without
having written what it should, never counts.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from contestants.job import BATCH_SIZE, Job
from contestants.roster import ROSTER, RULES, Contestant
from harness import tables
from harness.machine import (
    BENCHMARKS,
    REPOSITORY,
    Installed,
    child_environment,
    memory_mib,
    probe,
    this_machine,
)
from harness.process import Limits, Outcome, measure
from harness.results import Results, Sample, write

NETWORKS = ("resnet20", "mobilenetv2")
COUNTS = (128, 2048, 8192)
WIDTH = 80


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run: the contestants and their interpreters, the networks, the image sets."""

    contestants: Sequence[Contestant]
    pythons: Mapping[str, str]
    models: Mapping[str, Path]
    images: Path
    counts: Sequence[int]
    repeats: int
    limits: Limits

    def job(self, network: str, count: int, output: Path) -> Job:
        """The task of one run; an .npz is used whole, of a folder the first ``count``."""
        limit = count if self.images.is_dir() else None
        return Job(self.models[network], self.images, limit, output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write. 1 if quantkit failed, else 0."""
    given = _parse(arguments)
    plan = _plan(given)
    installed = _installed(plan)
    skipped = {name: reason for name, found in installed.items() if (reason := _first(found))}
    ready = [contestant for contestant in plan.contestants if contestant.name not in skipped]
    results = Results(
        kind="scaling" if given.scaling else "calibration",
        machine=this_machine(),
        settings={
            "batch_size": BATCH_SIZE,
            "repeats": plan.repeats,
            "rules": RULES,
            "images": "JPEG folder" if plan.images.is_dir() else plan.images.name,
        },
        versions={c.name: installed[c.name].versions for c in ready},
        skipped=skipped,
        notes=_notes({c.name: installed[c.name] for c in ready}),
        samples=list(_announced(_samples(replace(plan, contestants=ready)))),
    )
    _show(results)
    if given.output:
        write(results, given.output)
    return int(any(s.contestant == tables.OURS and s.failure for s in results.samples))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = ",".join(contestant.name for contestant in ROSTER)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", type=_names, metavar="NAMES", help=f"contestants, of: {names}")
    add("--networks", type=_names, default=NETWORKS, help="of: " + ",".join(NETWORKS))
    add("--repeats", type=int, default=5, help="rounds (default: 5)")
    add(
        "--peers-python",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="interpreter of all peers, or of the one named; may be repeated "
        "(default: the running one, which also runs plain, floor and quantkit)",
    )
    add(
        "--models",
        type=Path,
        metavar="DIR",
        help="folder of the networks (default: models/ in $QUANTKIT_SHARED, else in ../shared beside the repository)",
    )
    add(
        "--images",
        type=Path,
        metavar="NPZ",
        help="the 512 images (default: golden/networks/calibration_512.npz in the same place)",
    )
    add("--scaling", action="store_true", help="part two: many images, from --images-folder")
    add("--images-folder", type=Path, metavar="DIR", help="JPEGs of 32x32, in any subfolders")
    add("--counts", type=_counts, default=COUNTS, help="numbers of images for --scaling")
    add("--timeout", type=float, default=1800, metavar="S", help="stop a run after (1800 s)")
    add(
        "--memory-limit",
        type=float,
        default=memory_mib() * 0.6,
        metavar="MIB",
        help="stop a run above (default: 60 %% of this machine's memory)",
    )
    add("--output", type=Path, metavar="JSON", help="where to write every single repeat")
    given = parser.parse_args(arguments)
    if unknown := set(given.only or ()) - {contestant.name for contestant in ROSTER}:
        parser.error(f"no such contestant: {', '.join(sorted(unknown))}; there are {names}")
    if unknown := set(given.networks) - set(NETWORKS):
        parser.error(f"no such network: {', '.join(sorted(unknown))}")
    if given.scaling and given.images_folder is None:
        parser.error("--scaling needs --images-folder")
    return given


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(count) for count in text.split(","))


def _plan(given: argparse.Namespace) -> Plan:
    """Choose contestants and find every input, or exit saying what is absent."""
    models = given.models or _shared("models")
    if given.scaling:
        images, counts = given.images_folder, tuple(given.counts)
    else:
        images = given.images or _shared("golden/networks/calibration_512.npz")
        counts = (_held(_existing(images)),)
    found = {name: _existing(models / f"{name}.onnx") for name in given.networks}
    wanted = given.only or ([tables.OURS] if given.scaling else [c.name for c in ROSTER])
    contestants = [contestant for contestant in ROSTER if contestant.name in wanted]
    plan = Plan(
        contestants=contestants,
        pythons=_pythons(given.peers_python, contestants),
        models=found,
        images=_existing(images),
        counts=counts,
        repeats=given.repeats,
        limits=Limits(given.timeout, given.memory_limit),
    )
    if given.scaling and (held := len(list(plan.images.rglob("*.jpg")))) < max(counts):
        raise SystemExit(f"the folder holds {held:,} JPEGs, --counts asks for {max(counts):,}")
    return plan


def _shared(name: str) -> Path:
    """A part of the folder that holds networks and images."""
    root = os.environ.get("QUANTKIT_SHARED")
    return (Path(root) if root else REPOSITORY.parent / "shared") / name


def _held(npz: Path) -> int:
    """How many images an .npz holds, from the head of its array."""
    with zipfile.ZipFile(npz) as archive, archive.open("x.npy") as array:
        shape = re.search(rb"'shape': \((\d+),", array.read(256))
    if shape is None:
        raise SystemExit(f'{npz.name} holds no array of images "x"')
    return int(shape[1])


def _existing(path: Path) -> Path:
    if not path.exists():
        raise SystemExit(
            f"not found: {path}\n"
            "  set QUANTKIT_SHARED to the folder that holds models/ and golden/, or name "
            "--models and --images"
        )
    return path.resolve()


def _pythons(options: Iterable[str], contestants: Iterable[Contestant]) -> dict[str, str]:
    """Contestant to interpreter: the running one, unless it is a peer and told otherwise."""
    named = dict(_option(option) for option in options)
    peers = named.pop("", sys.executable)
    if unknown := named.keys() - {contestant.name for contestant in ROSTER if contestant.peer}:
        raise SystemExit(f"--peers-python names no peer: {', '.join(sorted(unknown))}")
    return {c.name: named.get(c.name, peers) if c.peer else sys.executable for c in contestants}


def _option(text: str) -> tuple[str, str]:
    name, _, path = text.rpartition("=")
    if not os.access(path, os.X_OK):
        raise SystemExit(f"--peers-python: not an interpreter: {path}")
    return name, os.path.abspath(path)  # not resolved: a venv's python is a link


def _installed(plan: Plan) -> dict[str, Installed]:
    """Ask each interpreter once for all that its contestants need; tell each its own part."""
    answers: dict[str, Installed] = {}
    with tempfile.TemporaryDirectory() as folder:
        for python in dict.fromkeys(plan.pythons.values()):
            users = [c for c in plan.contestants if plan.pythons[c.name] == python]
            modules = list(dict.fromkeys(module for c in users for module in c.needs))
            everything = probe(python, modules, Path(folder))
            answers |= {c.name: _part(everything, c.needs) for c in users}
    return answers


def _part(everything: Installed, needs: Sequence[str]) -> Installed:
    wanted = {"python", *(module.partition(".")[0] for module in needs)}
    return Installed(
        {name: version for name, version in everything.versions.items() if name in wanted},
        {name: reason for name, reason in everything.missing.items() if name in needs},
        {name: note for name, note in everything.notes.items() if name in wanted},
    )


def _first(found: Installed) -> str | None:
    return next(iter(found.missing.values()), None)


def _notes(installed: Mapping[str, Installed]) -> list[str]:
    """Every oddity once, with the contestants that it concerns."""
    concerned: dict[str, list[str]] = {}
    for name, found in installed.items():
        for note in found.notes.values():
            concerned.setdefault(note, []).append(name)
    return [f"{', '.join(names)}: {note}" for note, names in concerned.items()]


def _samples(plan: Plan) -> Iterator[Sample]:
    """Round after round, everyone once; who failed on a job is not asked again."""
    failed: set[tuple[str, str, int]] = set()
    rounds = product(plan.counts, plan.models, range(plan.repeats), plan.contestants)
    for count, network, repeat, contestant in rounds:
        run = (contestant.name, network, count)
        if run in failed:
            continue
        load = os.getloadavg()[0]
        took = _run(plan, contestant, network, count)
        if took.failure:
            failed.add(run)
        yield Sample(
            *run,
            repeat=repeat,
            seconds=round(took.seconds, 4),
            cpu_seconds=round(took.cpu_seconds, 4),
            mib=round(took.mib, 1),
            load=round(load, 2),
            failure=took.failure,
        )


def _run(plan: Plan, contestant: Contestant, network: str, count: int) -> Outcome:
    """One contestant, one process, one new folder that also takes its temporary files."""
    with tempfile.TemporaryDirectory(prefix="calibration-") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        paths = {} if contestant.name == tables.OURS else {"PYTHONPATH": str(BENCHMARKS)}
        arguments = contestant.arguments(plan.job(network, count, folder))
        took = measure(
            [plan.pythons[contestant.name], *arguments],
            env=child_environment(TMPDIR=str(folder / "tmp"), **paths),
            folder=folder,
            limits=plan.limits,
        )
        if took.failure is None and (complaint := contestant.complaint(folder)):
            took = replace(took, failure=complaint)
    return took


def _announced(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Say each sample as it comes in."""
    for s in samples:
        said = s.failure or f"{s.seconds:.2f} s, {s.mib:,.0f} MiB"
        line = f"{s.network}, {s.images:,} images, round {s.repeat + 1}: {s.contestant}: {said}"
        print(line, file=sys.stderr, flush=True)
        yield s


def _show(results: Results) -> None:
    """The tables, then every skip and failure in words."""
    for title, head, rows in tables.all_tables(results):
        print(f"\n{title}\n\n{tables.plain_text(head, rows)}")
    print()
    for line in tables.remarks(results):
        print(textwrap.fill(line, WIDTH, subsequent_indent="  "))


if __name__ == "__main__":
    sys.exit(main())

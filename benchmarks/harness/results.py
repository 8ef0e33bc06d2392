"""The results of one benchmark run, as JSON: every repeat, and what is needed to judge them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from harness.machine import Machine


@dataclass(frozen=True, slots=True)
class Sample:
    """One contestant, run once. ``load`` is the machine's load average just before."""

    contestant: str
    network: str
    images: int
    repeat: int
    seconds: float
    cpu_seconds: float
    mib: float
    load: float
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """The repeats of one contestant on one network with one number of images, summed up."""

    seconds: float
    fastest: float
    slowest: float
    cpu_seconds: float
    mib: float
    least_mib: float
    most_mib: float
    repeats: int


@dataclass(frozen=True, slots=True)
class Results:
    """A whole run. ``versions`` and ``skipped`` are keyed by contestant."""

    kind: str
    machine: Machine
    settings: Mapping[str, str | int]
    versions: Mapping[str, Mapping[str, str]]
    skipped: Mapping[str, str]
    notes: Sequence[str]
    samples: Sequence[Sample]

    def cell(self, contestant: str, network: str, images: int) -> Cell | str | None:
        """The summary; the reason where every repeat failed; None where there was no run."""
        wanted = (contestant, network, images)
        mine = [s for s in self.samples if (s.contestant, s.network, s.images) == wanted]
        failures = [s.failure for s in mine if s.failure is not None]
        return failures[0] if failures else summarize(mine)

    def contestants(self) -> list[str]:
        """Those that ran, in the order in which they ran."""
        return list(dict.fromkeys(s.contestant for s in self.samples))

    def networks(self) -> list[str]:
        """The networks measured, in order."""
        return list(dict.fromkeys(s.network for s in self.samples))

    def counts(self) -> list[int]:
        """The numbers of images measured, ascending."""
        return sorted({s.images for s in self.samples})


def summarize(samples: Iterable[Sample]) -> Cell | None:
    """Medians and extremes of some repeats; None if there are none."""
    mine = list(samples)
    if not mine:
        return None
    seconds, mib = [s.seconds for s in mine], [s.mib for s in mine]
    return Cell(
        seconds=median(seconds),
        fastest=min(seconds),
        slowest=max(seconds),
        cpu_seconds=median(s.cpu_seconds for s in mine),
        mib=median(mib),
        least_mib=min(mib),
        most_mib=max(mib),
        repeats=len(mine),
    )


def write(results: Results, path: Path) -> None:
    """Write the JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    text = json.dumps(asdict(results), indent=1, ensure_ascii=False)
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(path)


def read(path: Path) -> Results:
    """Read what `write` wrote."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["machine"] = Machine(**raw["machine"])
    raw["samples"] = [Sample(**sample) for sample in raw["samples"]]
    return Results(**raw)

"""Which machine and which versions a measurement was taken with, without names or folders."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent
REPOSITORY = BENCHMARKS.parent


@dataclass(frozen=True, slots=True)
class Machine:
    """The processor as the operating system names it, what of it may be used, and when."""

    date: str
    cpu: str
    cores: int
    memory_gib: float
    system: str


@dataclass(frozen=True, slots=True)
class Installed:
    """What one interpreter can import: versions, why not what it cannot, oddities, by module."""

    versions: Mapping[str, str]
    missing: Mapping[str, str]
    notes: Mapping[str, str]


def this_machine() -> Machine:
    """The machine that this process runs on, now."""
    return Machine(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(memory_mib() / 1024, 1),
        system=f"{platform.system()} {platform.machine()}",
    )


def memory_mib() -> float:
    """Physical memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**2


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or "unknown"


def child_environment(**extra: str) -> dict[str, str]:
    """The environment of every child: as it is, but with bytecode cached (Python's own default).

    PYTHONPATH is emptied, so that what is measured is what is installed; NNCF_CI keeps NNCF from
    sending usage data.
    """
    hidden = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return kept | {"NNCF_CI": "1"} | extra


def probe(python: str, modules: Sequence[str], folder: Path) -> Installed:
    """Import ``modules`` in another interpreter and report versions; warms its caches as well."""
    done = subprocess.run(
        [python, "-m", "contestants.probe", *modules],
        env=child_environment(PYTHONPATH=str(BENCHMARKS)),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise SystemExit(f"{python} cannot be asked for its versions: {last}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Installed(found["versions"], found["missing"], found["notes"])

"""What starting quantkit costs: `python -m quantkit --help` and `import quantkit`.

    python benchmarks/startup.py [--repeats N] [--output results/startup.json]

Every run is a new interpreter, measured from outside to its end: CPU time (user + system) and wall
time. The commands take turns after one uncounted round; medians are shown beside their limits.
Nothing is subtracted: a bare interpreter is measured as well, for the reader to compare.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from harness import tables
from harness.machine import child_environment, this_machine
from harness.process import Limits, Outcome, measure

LIMITS = Limits(seconds=60, mib=4096)


@dataclass(frozen=True, slots=True)
class Start:
    """A way to start Python; ``limit`` in seconds, None for the bare interpreter."""

    name: str
    arguments: tuple[str, ...]
    limit: float | None


STARTS = (
    Start("python -m quantkit --help", ("-m", "quantkit", "--help"), 0.3),
    Start("python -c 'import quantkit'", ("-c", "import quantkit"), 0.1),
    Start("python -c pass", ("-c", "pass"), None),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write. 1 if a command failed or a median is over its limit, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path, metavar="JSON")
    given = parser.parse_args(arguments)
    machine = this_machine()
    rounds = [{start.name: run(start) for start in STARTS} for _ in range(given.repeats + 1)][1:]
    rows = [row(start, [one[start.name] for one in rounds]) for start in STARTS]
    print(tables.plain_text(("command", "CPU s", "wall s", "limit s", "verdict"), rows))
    if given.output:
        record = {
            "kind": "startup",
            "machine": asdict(machine),
            "python": sys.version.split()[0],
            "limits": {start.name: start.limit for start in STARTS},
            "rounds": [{name: asdict(one) for name, one in each.items()} for each in rounds],
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(any(verdict == "over" for *_, verdict in rows))


def run(start: Start) -> Outcome:
    """One start, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        took = measure(
            [sys.executable, *start.arguments],
            env=child_environment(),
            folder=Path(folder),
            limits=LIMITS,
        )
    if took.failure:
        raise SystemExit(f"{start.name}: {took.failure}")
    return took


def row(start: Start, outcomes: Sequence[Outcome]) -> tables.Row:
    """Medians beside the limit; over it if either is."""
    cpu = median(outcome.cpu_seconds for outcome in outcomes)
    wall = median(outcome.seconds for outcome in outcomes)
    shown = (start.name, f"{cpu:.3f}", f"{wall:.3f}")
    if start.limit is None:
        return (*shown, tables.NONE, tables.NONE)
    verdict = "over" if max(cpu, wall) > start.limit else "within"
    return (*shown, f"{start.limit:.1f}", verdict)


if __name__ == "__main__":
    sys.exit(main())

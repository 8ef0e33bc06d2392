"""Turn the JSON that calibration.py wrote into Markdown: ratios first, losses included.

    python benchmarks/report.py [results/calibration.json] [--scaling results/scaling.json]

Nothing is measured here. The Markdown lands beside the JSON under the same name; where a
scaling.json lies beside it too, its table follows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from contestants.roster import ROSTER
from harness import tables
from harness.machine import BENCHMARKS
from harness.results import Cell, Results, read

DEFAULT = BENCHMARKS / "results" / "calibration.json"

INTRODUCTION = f"""\
# What calibration costs

Whole processes from start to end, imports included, each in a fresh folder; contestants take turns.
MiB is the peak resident memory of the process with its children. A ratio belongs to the measure on
its left and divides by the contestant that it names: above 1 is slower, or larger, than that one.
Time and memory are medians; {tables.TO} stands for "not measured".
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=DEFAULT)
    parser.add_argument("--scaling", type=Path, help="default: scaling.json beside the results")
    parser.add_argument("--output", type=Path, help="default: the results' name with .md")
    given = parser.parse_args(arguments)
    if not given.results.exists():
        raise SystemExit(f"not found: {given.results}\n  first run calibration.py --output there")
    scaling = given.scaling or given.results.with_name("scaling.json")
    parts = [INTRODUCTION, *calibration(read(given.results))]
    if scaling.exists():
        parts += growth(read(scaling))
    output = given.output or given.results.with_suffix(".md")
    output.write_text("\n".join(parts), encoding="utf-8")


def calibration(results: Results) -> Iterator[str]:
    """The comparison: a table per network, who does what, where quantkit loses, the conditions."""
    yield from _tables(results)
    yield "What each run does:\n"
    for contestant in ROSTER:
        yield f"- {contestant.name}: {contestant.does}"
    yield f"\n## Where {tables.OURS} loses\n"
    yield from (f"- {line}" for line in _verdicts(results))
    yield ""
    yield from conditions(results)


def growth(results: Results) -> Iterator[str]:
    """The second part: time and memory over the number of images."""
    yield "\n# More images\n"
    yield from _tables(results)
    yield from _grown(results)
    yield ""
    yield from conditions(results)


def _tables(results: Results) -> Iterator[str]:
    for title, head, rows in tables.all_tables(results):
        yield f"## {title}\n\n{tables.markdown(head, rows)}\n"


def _verdicts(results: Results) -> list[str]:
    """The losses, or a sentence that says why there are none."""
    measured = [
        isinstance(results.cell(tables.OURS, network, count), Cell)
        for network in results.networks()
        for count in results.counts()
    ]
    if not measured or not all(measured):
        return [f"{tables.OURS} was not measured everywhere: nothing can be said"]
    return list(_losses(results)) or ["nowhere among the contestants measured"]


def _losses(results: Results) -> Iterator[str]:
    """Every contestant that is faster or smaller than quantkit on a network."""
    for network in results.networks():
        (count,) = results.counts()
        ours = results.cell(tables.OURS, network, count)
        for name in results.contestants():
            other = results.cell(name, network, count)
            if not isinstance(ours, Cell) or not isinstance(other, Cell) or name == tables.OURS:
                continue
            if other.seconds < ours.seconds:
                close = "; the repeats overlap" if other.slowest >= ours.fastest else ""
                times = tables.ratio(ours, other, tables.seconds)
                yield f"{network}: takes {times} {tables.TIMES} the time of {name}{close}"
            if other.mib < ours.mib:
                close = "; the repeats overlap" if other.most_mib >= ours.least_mib else ""
                times = tables.ratio(ours, other, tables.mib)
                yield f"{network}: takes {times} {tables.TIMES} the memory of {name}{close}"


def _grown(results: Results) -> Iterator[str]:
    """From the fewest to the most images: what became of time and memory."""
    fewest, most = results.counts()[0], results.counts()[-1]
    yield f"From {fewest:,} to {most:,} images ({most / fewest:.0f} {tables.TIMES}):\n"
    for network in results.networks():
        for name in results.contestants():
            small, large = (results.cell(name, network, count) for count in (fewest, most))
            time, memory = (tables.ratio(large, small, m) for m in (tables.seconds, tables.mib))
            yield (f"- {name} on {network}: time {tables.TIMES} {time}, memory {tables.TIMES} {memory}")


def conditions(results: Results) -> Iterator[str]:
    """Machine, settings, versions, and every skip, failure and oddity."""
    machine, settings = results.machine, results.settings
    yield "Conditions:\n"
    yield (
        f"- {machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB, {machine.system}, "
        f"{machine.date}; load average {_load(results)}"
    )
    yield (
        f"- images: {settings['images']}; batch size {settings['batch_size']}; "
        f"repeats: {settings['repeats']}; rules of {tables.OURS}: {settings['rules']}"
    )
    for versions, names in _by_versions(results):
        yield f"- {', '.join(names)}: {versions}"
    yield from (f"- {line}" for line in tables.remarks(results))
    yield ""


def _load(results: Results) -> str:
    loads = [sample.load for sample in results.samples]
    return f"{min(loads):.1f}{tables.TO}{max(loads):.1f}" if loads else "unknown"


def _by_versions(results: Results) -> Iterator[tuple[str, list[str]]]:
    """Contestants with the same versions share a line."""
    users: dict[str, list[str]] = {}
    for name, versions in results.versions.items():
        line = ", ".join(f"{module} {versions[module]}" for module in sorted(versions))
        users.setdefault(line, []).append(name)
    yield from users.items()


if __name__ == "__main__":
    main()

"""`quantkit stats`: show, merge, table."""

from __future__ import annotations

from pathlib import Path

import click

from quantkit.cli import options
from quantkit.cli.console import print_fields, print_json, print_rows


@click.group("stats")
def stats_group() -> None:
    """Statistics files: show, merge, make tables."""


@stats_group.command("show")
@click.argument("stats", metavar="STATS", type=options.PATH)
@options.as_json
def show_statistics(stats: Path, as_json: bool) -> None:
    """Show the ranges of all tensors, and where STATS came from."""
    from quantkit.rules import Percentile
    from quantkit.statistics import read_statistics

    found = read_statistics(stats)
    if as_json:
        print_json(
            {
                "origin": found.origin.model_dump(mode="json", exclude_none=True),
                "tensors": {
                    n: {
                        "min": h.minimum,
                        "max": h.maximum,
                        "range": h.range,
                        "elements": h.elements,
                    }
                    for n, h in found.histograms.items()
                },
                "shared": dict(found.shared),
                "channels": [{"tensor": c.tensor, "axis": c.axis, "count": len(c.sums)} for c in found.channels],
            }
        )
        return
    origin = found.origin
    print_fields(
        [
            ("model", origin.model),
            ("data", f"{origin.samples} samples, {origin.data[:12]}"),
            ("histogram", origin.histogram.value),
            ("backend", f"{origin.backend}, {origin.slice} samples at once"),
        ]
    )
    print()
    bulk = Percentile(99.9)
    rows = [
        (
            n,
            f"{h.minimum:.5g}",
            f"{h.maximum:.5g}",
            f"{bulk.threshold(h):.5g}",
            f"{h.counts[0] / max(h.elements, 1):.0%}",
        )
        for n, h in found.histograms.items()
    ]
    print_rows(("tensor", "min", "max", "99.9 %", "bin 0"), rows)


@stats_group.command("merge")
@click.argument("stats", metavar="STATS…", type=options.PATH, nargs=-1, required=True)
@click.option("--output", "-o", metavar="PATH", type=options.PATH, required=True, help="The merged file.")
@options.force
@options.as_json
def merge(stats: tuple[Path, ...], output: Path, force: bool, as_json: bool) -> None:
    """Merge statistics of parts of a data set: the same bytes as one run over all of it."""
    from quantkit.calibration.from_statistics import merge as run

    made = run(stats, output, force=force)
    if as_json:
        print_json({"file": str(output), "samples": made.origin.samples, "tensors": len(made)})
    else:
        print(f"wrote {output}: {made.origin.samples} samples, {len(made)} tensors")


@stats_group.command("table")
@click.argument("stats", metavar="STATS", type=options.PATH)
@click.option("--output", "-o", metavar="PATH", type=options.PATH, required=True, help="The first rule's table.")
@options.rule
@options.tensorrt_version
@options.algorithm
@options.force
@options.as_json
def table(
    stats: Path,
    output: Path,
    rule: str,
    tensorrt_version: str | None,
    algorithm: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make calibration tables from STATS, without data."""
    from quantkit.calibration.from_statistics import tables_from
    from quantkit.calibration.tables import table_paths
    from quantkit.cli.options import parse_algorithm
    from quantkit.rules import parse_rules

    made = tables_from(
        stats,
        rule,
        output=output,
        tensorrt_version=tensorrt_version,
        algorithm=parse_algorithm(algorithm),
        force=force,
    )
    paths = table_paths(output, parse_rules(rule))
    if as_json:
        print_json({str(path): made[r.name].header.text for path, r in paths.items()})
        return
    for path, chosen in paths.items():
        print(f"wrote {path}: {made[chosen.name].header.text}, rule {chosen.name}, {len(made[chosen.name])} tensors")

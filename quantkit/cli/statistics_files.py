"""`quantkit stats`: show, merge, table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantkit.cli.console import print_fields, print_json, print_rows
from quantkit.cli.options import AlgorithmName, Force, Json, Rules, TensorRTVersion

app = typer.Typer(help="Statistics files: show, merge, make tables.", no_args_is_help=True, rich_markup_mode=None)

StatisticsPath = Annotated[Path, typer.Argument(metavar="STATS", help="A statistics file.")]


@app.command("show")
def show(stats: StatisticsPath, json: Json = False) -> None:
    """Show the ranges of all tensors, and where STATS came from."""
    from quantkit.rules import Percentile
    from quantkit.statistics import read_statistics

    found = read_statistics(stats)
    if json:
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


@app.command("merge")
def merge(
    stats: Annotated[list[Path], typer.Argument(metavar="STATS…", help="Statistics files of invariant mode.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PATH", help="The merged file.")],
    force: Force = False,
    json: Json = False,
) -> None:
    """Merge statistics of parts of a data set: the same bytes as one run over all of it."""
    from quantkit.pipeline.statistics import merge as run

    made = run(stats, output, force=force)
    if json:
        print_json({"file": str(output), "samples": made.origin.samples, "tensors": len(made)})
    else:
        print(f"wrote {output}: {made.origin.samples} samples, {len(made)} tensors")


@app.command("table")
def table(
    stats: StatisticsPath,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PATH", help="The first rule's table.")],
    rule: Rules = "entropy",
    tensorrt_version: TensorRTVersion = None,
    algorithm: AlgorithmName = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make calibration tables from STATS, without data."""
    from quantkit.cli.names import algorithm_named
    from quantkit.pipeline.statistics import tables_from
    from quantkit.pipeline.tables import table_paths
    from quantkit.rules import parse_rules

    made = tables_from(
        stats,
        rule,
        output=output,
        tensorrt_version=tensorrt_version,
        algorithm=algorithm_named(algorithm),
        force=force,
    )
    paths = table_paths(output, parse_rules(rule))
    if json:
        print_json({str(path): made[r.name].header.text for path, r in paths.items()})
        return
    for path, chosen in paths.items():
        print(f"wrote {path}: {made[chosen.name].header.text}, rule {chosen.name}, {len(made[chosen.name])} tensors")

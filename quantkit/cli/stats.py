"""The commands `quantkit stats show`, `merge` and `table`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.verb import VerbGroup, verb
from quantkit.cli.terminal.console import Printing, print_fields, print_line, print_rows, warn
from quantkit.cli.terminal.shard_lines import describe_shard
from quantkit.rules import DEFAULT_RULE

if TYPE_CHECKING:
    from quantkit.statistics import Statistics


@click.group("stats", cls=VerbGroup, short_help="Statistics files: show, merge, make tables")
def stats_group() -> None:
    """Statistics files: show, merge, make calibration tables."""


@verb(
    "Show the ranges of all tensors, and their origin",
    "quantkit stats show model.stats.safetensors",
    "quantkit stats show model.stats.safetensors --json",
    name="show",
    group=stats_group,
)
@click.argument("stats", metavar="STATS", type=options.PATH)
@options.printing_loudly
def show_statistics(stats: Path, printing: Printing) -> None:
    """Show the ranges of all tensors, and where STATS comes from."""
    from quantkit.statistics import read_statistics

    printing.print_result(read_statistics(stats), statistics_document, print_statistics)


def print_statistics(statistics: Statistics) -> None:
    """Print the origin, and a row for each tensor."""
    from quantkit.calibration.tables import BULK

    origin, record = statistics.origin, statistics.shard
    print_fields(
        [
            *([("shard", describe_shard(record))] if record else []),
            ("model", origin.model),
            ("data", f"{origin.samples} samples, {origin.data[:12]}"),
            ("histogram", origin.histogram.value),
            ("backend", f"{origin.backend}, {origin.slice} samples at once"),
        ]
    )
    print_line()
    rows = [
        (
            n,
            f"{h.minimum:.5g}",
            f"{h.maximum:.5g}",
            f"{BULK.threshold(h):.5g}",
            f"{h.counts[0] / max(h.elements, 1):.0%}",
        )
        for n, h in statistics.histograms.items()
    ]
    print_rows(("tensor", "min", "max", "99.9 %", "bin 0"), rows)


def statistics_document(statistics: Statistics) -> dict[str, Any]:
    """Return the statistics for programs."""
    return {
        "shard": str(statistics.shard.shard) if statistics.shard else None,
        "origin": statistics.origin.model_dump(mode="json", exclude_none=True),
        "tensors": {
            n: {"min": h.minimum, "max": h.maximum, "range": h.range, "elements": h.elements}
            for n, h in statistics.histograms.items()
        },
        "shared": dict(statistics.shared),
        "channels": [{"tensor": c.tensor, "axis": c.axis, "count": len(c.sums)} for c in statistics.channels],
    }


@verb(
    "Merge statistics of the parts of a dataset, exactly",
    "quantkit stats merge a.stats.safetensors b.stats.safetensors -o ab.safetensors",
    "quantkit stats merge s3://bucket/run -o model.stats.safetensors",
    name="merge",
    group=stats_group,
)
@click.argument("stats", metavar="STATS|DIR|URL…", type=options.PLACE, nargs=-1, required=True)
@click.option(
    "--output", "-o", metavar="PATH", type=options.PATH, required=True, help="Merged statistics file to write."
)
@click.option(
    "--allow-duplicates",
    is_flag=True,
    help="Count a sample that is in several parts once for each of them, instead of refusing to merge.",
)
@options.force
@options.printing_loudly
def merge(stats: tuple[Path | str, ...], output: Path, allow_duplicates: bool, force: bool, printing: Printing) -> None:
    """Merge statistics of parts of a dataset; the result has the same bytes as one run over all of it.

    Give the folder or the URL where the shards of a run lie (calibrate --shard), or files of --histogram invariant.
    """
    from quantkit.calibration.from_statistics import merge_parts
    from quantkit.data.feed import describe_left_out

    result = merge_parts(stats, output, allow_duplicates=allow_duplicates, force=force)
    for text in describe_left_out(result.skipped):
        warn(text)
    size = {"samples": result.statistics.origin.samples, "tensors": len(result.statistics)}
    printing.print_result(
        result,
        lambda merged: {"file": str(output), **size, "skipped": list(merged.skipped)},
        lambda _: print_line(f"wrote {output}: {size['samples']} samples, {size['tensors']} tensors"),
    )


@verb(
    "Make calibration tables by any method, without data",
    "quantkit stats table model.stats.safetensors --rule mse -o mse.calib",
    "quantkit stats table model.stats.safetensors --rule mse,minmax -o new.calib",
    name="table",
    group=stats_group,
)
@click.argument("stats", metavar="STATS", type=options.PATH)
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    type=options.PATH,
    required=True,
    help="Table of the first calibration method to write.",
)
@options.rules("Several make several tables.", default=DEFAULT_RULE)
@options.header_choice()
@options.force
@options.printing_loudly
def table(stats: Path, output: Path, rule: str, header: options.HeaderChoice, force: bool, printing: Printing) -> None:
    """Make calibration tables from STATS, without data."""
    from quantkit.calibration.from_statistics import tables_from
    from quantkit.calibration.tables import table_paths
    from quantkit.rules import parse_rules

    tables = tables_from(stats, rule, output=output, force=force, **header.keywords())
    paths = table_paths(output, parse_rules(rule))
    lines = [
        f"wrote {path}: {tables[r.name].header.text}, rule {r.name}, {len(tables[r.name])} tensors"
        for path, r in paths.items()
    ]
    printing.print_result(
        tables,
        lambda made: {str(path): made[r.name].header.text for path, r in paths.items()},
        lambda _: print_written(lines),
    )


def print_written(lines: Iterable[str]) -> None:
    """Print what each file holds."""
    for line in lines:
        print_line(line)

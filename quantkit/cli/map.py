"""The command `quantkit map`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.unused import refuse_unused
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import Printing, note, print_fields, print_heading, print_rows, print_sizes
from quantkit.paths import beside, exists
from quantkit.rules import DEFAULT_RULE
from quantkit.view import shorten_middle

if TYPE_CHECKING:
    from quantkit.graph.model import Model
    from quantkit.mapping.result import NetworkMap

SHOWN = 10
LONGEST = 100
"""Maximum number of characters of a difference in the terminal."""


@verb(
    "Draw a network with what is known about each operator",
    "quantkit map model.int8.onnx -o map.html",
    "quantkit map model.int8.onnx --engine model.engine -o map.html",
    "quantkit map model.onnx --against model.int8.onnx -o changes.html",
    name="map",
)
@click.argument("model", metavar="MODEL", type=options.PATH)
@click.option(
    "--output",
    "-o",
    metavar="FILE.html",
    type=options.PATH,
    help="Page to write. Default: MODEL.map.html beside the model; with --json none.",
)
@options.stats("MODEL.stats.safetensors beside the model, if there is one")
@click.option(
    "--layers-json",
    "layers",
    metavar="FILE.json",
    type=options.PATH,
    help="Measured layers and tensors, as quantkit layers --json prints them.",
)
@click.option("--engine", metavar="ENGINE", type=options.PATH, help="Engine of MODEL that quantkit build wrote.")
@click.option(
    "--profile",
    metavar="FILE.json",
    type=options.PATH,
    help="Times of the engine's layers, as trtexec --exportProfile writes them.",
)
@click.option(
    "--compiled", metavar="FILE.json", type=options.PATH, help="Compiled network: a record of quantkit compile."
)
@click.option(
    "--compile-for",
    metavar="ARCHITECTURE",
    help="Compile MODEL for this architecture now, for example sm86. Needs TensorRT-RTX.",
)
@options.shapes("batch 1 and usual sizes")
@options.rule(DEFAULT_RULE, text="For scales from the statistics, if MODEL has no Q/DQ.")
@click.option(
    "--against",
    metavar="PATH",
    type=options.PATH,
    multiple=True,
    help="Compare with this: a model made from the same network, or another engine, compiled network, statistics or "
    "layers of MODEL. Can be repeated.",
)
@click.option(
    "--fold/--no-fold", default=True, show_default=True, help="Fold blocks that come several times in one form."
)
@options.force
@options.printing_tables
def draw_map(model: Path, output: Path | None, against: tuple[Path, ...], printing: Printing, **own: Any) -> None:
    """Draw the graph of MODEL as one HTML file that needs no network, with what is known about each operator.

    Scale, SQNR, clipped share, precision, kernel, time, and why it is float: as far as MODEL and the other sources say
    it. Repeated blocks are folded. With --against, what differs is marked and listed.
    """
    from quantkit.cli.terminal.progress import Spinner
    from quantkit.graph import load_model
    from quantkit.mapping.json_document import map_document
    from quantkit.mapping.network_map import network_map
    from quantkit.mapping.options import MapOptions
    from quantkit.qdq.reader import has_qdq

    target = output if output is not None or printing.as_json else beside(model, f"{model.stem}.map.html")
    source = load_model(model)
    statistics = own.pop("stats") or statistics_beside(source)
    if has_qdq(source):
        refuse_unused({"rule": "the Q/DQ model has scales of its own"})
    elif statistics is None:
        refuse_unused({"rule": "there are no statistics"})
    with Spinner(hidden=printing.hides_progress) as spinner:
        made = network_map(
            source, target, against=against, options=MapOptions(statistics=statistics, **own), phase=spinner.phase
        )
    printing.print_result(made, map_document, print_map)


def statistics_beside(model: Model) -> Path | None:
    """Return the statistics that `calibrate` wrote beside a model, or beside the float model of a Q/DQ model.

    Those of another network are left out, which is said.
    """
    from quantkit.mapping.sources import identities
    from quantkit.statistics import read_statistics

    path = beside(model.path, f"{model.path.stem.removesuffix('.int8')}.stats.safetensors")
    if not exists(path):
        return None
    if read_statistics(path).origin.model not in identities([model]):
        note(f"{path.name} is left out: it belongs to another network than {model.path.name}")
        return None
    return path


def print_map(made: NetworkMap) -> None:
    """Print the sources, how many operators there are of each precision, and what differs."""
    counts = ", ".join(f"{count:,} {name}" for name, count in made.precisions.items() if name)
    print_fields([("operators", counts or "none"), *(("source", text) for text in made.described)])
    if made.difference is not None:
        kinds = Counter(change.kind for change in made.difference.changes)
        counted = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        print_fields([("against", f"{made.difference.other}: {counted or 'no differences'}")])
        if made.difference.changes:
            print_heading("differences")
            print_changes(made)
    if made.path is not None:
        print_sizes([made.path])


def print_changes(made: NetworkMap) -> None:
    """Print the first differences."""
    from quantkit.mapping.wording import change_text

    assert made.difference is not None
    changes = made.difference.changes
    texts = [shorten_middle(change_text(c.before, c.after) or c.kind, LONGEST) for c in changes[:SHOWN]]
    rows = [(c.name, c.operator, text) for c, text in zip(changes, texts, strict=False)]
    print_rows(("node", "operator", "difference"), rows, text=frozenset({1, 2}))
    if len(changes) > SHOWN:
        print_fields([("…", f"{len(changes) - SHOWN:,} more, on the page and with --json")])

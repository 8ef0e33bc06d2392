"""The command `quantkit compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import Printing, print_line, print_rows, print_sentence, warn
from quantkit.cli.terminal.model_table import model_columns, model_row

if TYPE_CHECKING:
    from quantkit.evaluation.comparison import Comparison


@verb(
    "Compare evaluations that were stored as JSON",
    "quantkit compare before.json after.json",
    "quantkit compare before.json after.json --json",
)
@click.argument("runs", metavar="RUN.json…", type=options.PATH, nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Compare even if the runs used different data, labels or preprocessing.")
@options.printing_tables_loudly
def compare(runs: tuple[Path, ...], force: bool, printing: Printing) -> None:
    """Compare evaluations side by side, in the given order, and show what changed from one to the next.

    A RUN is a file that evaluate --output wrote.
    """
    from quantkit.evaluation.compare import compare as run

    printing.print_result(run(runs, force=force), compare_document, print_comparison)


def print_comparison(result: Comparison) -> None:
    """Print the runs side by side, and a sentence for each change."""
    for text in result.notes:
        warn(text)
    rows = [
        (model, r.name, *model_row(score, r.evaluation)[1:])
        for model in result.models
        for r in result.runs
        if (score := r.score(model)) is not None
    ]
    columns = model_columns(result.metric)
    print_rows((columns[0], "run", *columns[1:]), rows, text=frozenset({1}))
    print_line()
    for move in result.moves:
        print_sentence(move.text(result.unit))


def compare_document(result: Comparison) -> dict[str, Any]:
    """Return the result for programs."""
    from dataclasses import asdict

    from quantkit.evaluation.json_document import evaluation_json

    return {
        "metric": result.metric,
        "share": result.share,
        "runs": [{"name": r.name, **evaluation_json(r.evaluation)} for r in result.runs],
        "moves": [{**asdict(m), "text": m.text(result.unit)} for m in result.moves],
        "notes": list(result.notes),
    }

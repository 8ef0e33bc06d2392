"""TODO docstring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantkit.cli.console import print_rows, print_sentence, warn
from quantkit.cli.evaluate import head, score_cells

if TYPE_CHECKING:
    from quantkit.evaluation.comparison import Comparison

from pathlib import Path

import click

from quantkit.cli import options
from quantkit.cli.console import print_json


@click.command()
@click.argument("runs", metavar="RUN.json…", type=options.PATH, nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also where the runs saw other data, labels or preprocessing.")
@options.as_json
def compare(runs: tuple[Path, ...], force: bool, as_json: bool) -> None:
    """Show evaluations side by side, in the order given, and what moved from one to the next.

    A RUN is what evaluate --output wrote.
    """
    from dataclasses import asdict

    from quantkit.evaluation.compare import compare as run
    from quantkit.evaluation.json_document import evaluation_json

    made = run(runs, force=force)
    if as_json:
        print_json(
            {
                "metric": made.metric,
                "share": made.share,
                "runs": [{"name": r.name, **evaluation_json(r.evaluation)} for r in made.runs],
                "moves": [{**asdict(m), "text": m.text(made.unit)} for m in made.moves],
                "notes": list(made.notes),
            }
        )
        return
    print_comparison(made)


def print_comparison(made: Comparison) -> None:
    """Runs side by side, for people."""
    for text in made.notes:
        warn(text)
    rows = [
        (model, r.name, *score_cells(score, r.evaluation)[1:])
        for model in made.models
        for r in made.runs
        if (score := r.score(model)) is not None
    ]
    columns = head(made.metric)
    print_rows((columns[0], "run", *columns[1:]), rows, text=frozenset({1}))
    print()
    for move in made.moves:
        print_sentence(move.text(made.unit))

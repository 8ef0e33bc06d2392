"""`quantkit tune`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.console import note, print_fields, print_json, print_rows, print_sentence, warn
from quantkit.cli.evaluate import print_model_table
from quantkit.errors import UsageError

if TYPE_CHECKING:
    from quantkit.tuning.result import Trial, Tuning

OVER_BUDGET = 3
SHOWN = 10


@click.command()
@click.argument("model", metavar="MODEL", type=options.PATH)
@click.option(
    "--max-drop",
    metavar="POINTS",
    type=float,
    required=True,
    help="What may be lost of the metric (points, where it is a share). Exit code 3 where the held-out samples lose "
    "more.",
)
@click.option("--data", metavar="PATH", required=True, help="What to measure on: as for evaluate.")
@click.option("--labels", metavar="FILE", type=options.PATH, help="As for evaluate. Default: class folders.")
@click.option("--classes", metavar="FILE", type=options.PATH, help="Class names in the order of the outputs.")
@click.option(
    "--metric",
    metavar="NAME",
    multiple=True,
    help="As for evaluate; the first one decides. Default: top1; without labels, agreement with the float network.",
)
@options.preprocess
@click.option("--limit", metavar="N", type=int, help="Samples of --data at most, both parts together. Default: all.")
@options.skip_corrupt
@click.option(
    "--holdout",
    metavar="SHARE",
    type=float,
    default=0.5,
    show_default=True,
    help="Share of the samples that no choice is made by, and that the figures are of.",
)
@click.option(
    "--calibration",
    metavar="PATH",
    help="Data for statistics and repairs. Default: the part of --data that is not held out.",
)
@click.option("--stats", metavar="PATH", type=options.PATH, help="Statistics, instead of collecting them.")
@click.option("--rule", metavar="RULE,RULE…", help="Rules that may be tried, the first one first. Default: all.")
@click.option(
    "--repair", metavar="NAME,NAME…", help="Repairs that may be tried: equalize, smooth, round, bias; or none."
)
@click.option("--policy", metavar="tensorrt|conv-only|all", default="tensorrt", show_default=True)
@click.option("--include", metavar="NODE|PATTERN|OPERATOR", multiple=True, help="As for quantize.")
@click.option("--exclude", metavar="NODE|PATTERN|OPERATOR", multiple=True, help="Nodes that are float anyway; @FILE.")
@click.option(
    "--max-float", metavar="SHARE", default="10%", show_default=True, help="Share of the layers that may stay float."
)
@click.option(
    "--max-evaluations",
    metavar="N",
    type=int,
    default=20,
    show_default=True,
    help="Runs of a network over a part of the data, the report's and the float network's counted.",
)
@click.option(
    "--output",
    "-o",
    metavar="DIR",
    type=options.PATH,
    help="Folder for model, table, exclusion file and tune.json. Default: MODEL.tuned beside the model.",
)
@click.option("--html", metavar="FILE.html", type=options.PATH, help="Write a report in one file.")
@options.tensorrt_version
@click.option("--no-front", is_flag=True, help="No engines, also where a GPU with TensorRT is.")
@options.device
@options.force
@options.quiet
@options.as_json
def tune(
    model: Path,
    max_drop: float,
    data: str,
    output: Path | None,
    html: Path | None,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Find the cheapest way to quantize MODEL that loses no more than a budget.

    Rules, repairs, then layers kept in float are tried in this order, from one pass over the data, and the search ends
    at the first that holds. It sees one part of --data; what is reported comes from the other.
    """
    from quantkit.artifact import text_bytes, write_whole
    from quantkit.cli.progress import Spinner
    from quantkit.evaluation.files import refuse_unwritable
    from quantkit.evaluation.json_document import evaluation_json as evaluation_document
    from quantkit.tuning.files import tuning_paths
    from quantkit.tuning.result import tuning_document
    from quantkit.tuning.tune import tune as run

    given = {name: settings.pop(name) for name in ("labels", "calibration", "preprocess")}
    given["statistics"] = settings.pop("stats")
    chosen = tune_options(settings)
    target = output or model.with_name(f"{model.stem}.tuned")
    if html is not None and html.absolute() in {path.absolute() for path in tuning_paths(target, model.stem).values()}:
        raise UsageError(f"tune writes {html} itself", remedy="give the report another name with --html")
    if html is not None and not is_in_new_folder(html, target):
        refuse_unwritable({"--html": html}, read=(model, data), force=settings["force"])
    with Spinner(hidden=quiet or as_json or not sys.stderr.isatty()) as spinner:
        made = run(model, data, max_drop=max_drop, output=target, options=chosen, phase=spinner.phase, **given)
    if html is not None:
        from quantkit.report.html import tuning_page

        write_whole(html, text_bytes(tuning_page(made)), "--html")
    for text in made.report.warnings:
        warn(text)
    if as_json:
        print_json(tuning_document(made, evaluation_document(made.report)))
    elif not quiet:
        print_tuning(made, html)
    return 0 if made.within_budget else OVER_BUDGET


def is_in_new_folder(html: Path, folder: Path) -> bool:
    """Whether the report goes into the folder that the work is going to make."""
    return not folder.exists() and html.absolute().parent == folder.absolute()


def tune_options(settings: dict[str, Any]) -> Any:
    """The options as a value. UsageError."""
    from quantkit.data import DataOptions
    from quantkit.repairs.registry import REPAIR_NAMES, parse_repairs
    from quantkit.sensitivity.exclusion_file import expand_name_files
    from quantkit.tuning.tune import RULES, TuneOptions

    repair, skips = settings.pop("repair"), bool(settings.pop("skip_corrupt"))
    for name in ("exclude", "include"):
        settings[name] = expand_name_files(settings[name])
    return TuneOptions(
        rules=settings.pop("rule") or RULES,
        repairs=REPAIR_NAMES if repair is None else parse_repairs(repair),
        most=parse_fraction(settings.pop("max_float")),
        evaluations=settings.pop("max_evaluations"),
        data=DataOptions(limit=settings.pop("limit"), skip_corrupt=skips),
        calibration=DataOptions(skip_corrupt=skips),
        front=not settings.pop("no_front"),
        metrics=settings.pop("metric"),
        **settings,
    )


def parse_fraction(text: str) -> float:
    """`10%` or `0.1`. UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    share = float(found[1]) / (100.0 if found[2] else 1.0) if found else -1.0
    if not 0.0 <= share <= 1.0:
        raise UsageError(f"--max-float {text!r} is no share", remedy="for example --max-float 10%")
    return share


def print_tuning(made: Tuning, html: Path | None) -> None:
    """What was tried, what was chosen, what it is worth."""
    for text in made.notes:
        if text not in made.report.warnings:
            note(text)
    print_fields(
        [
            ("budget", f"{made.budget} of {made.metric}"),
            ("samples", f"{made.samples[0]:,} to tune on, {made.samples[1]:,} held out"),
            ("evaluations", str(made.evaluations)),
            ("time", f"{made.seconds:.1f} s"),
        ]
    )
    print("\ntried, on the part to tune on: SQNR on a few samples, loss ± standard error")
    rows = [trial_row(trial, made) for trial in made.trials]
    print_rows(("rule, repairs, layers", "SQNR dB", "drop", "outcome"), rows, text=frozenset({3}))
    print("\non the part held out")
    print_model_table(made.report)
    print_float_layers(made)
    print_pareto_front(made)
    print()
    print_sentence(made.verdict)
    for path in (*made.files, *([html] if html else [])):
        print(f"wrote  {path}")
    if not made.within_budget:
        warn(f"over the budget of {made.budget}")


def trial_row(trial: Trial, made: Tuning) -> tuple[str, ...]:
    """A line of the table."""
    from quantkit.tuning.result import NONE_LEFT, two_decimals

    found = trial.figure
    noise = "" if trial.proxy_db != trial.proxy_db else f"{trial.proxy_db:.1f}"
    if found is None:
        return (trial.recipe.text(), noise, "", "none left" if trial.outcome.endswith(NONE_LEFT) else "skipped")
    word = "holds" if found.careful <= made.max_drop else "near" if found.drop <= made.max_drop else "over"
    mark = f"{word} *" if trial is made.chosen else word
    return (trial.recipe.text(), noise, f"{two_decimals(found.drop)} ± {two_decimals(found.error)}", mark)


def print_float_layers(made: Tuning) -> None:
    """The layers that stay float."""
    kept = made.chosen.recipe.kept
    if not kept:
        return
    known = {layer.node: layer for layer in made.ranking}
    print(f"\nkept in float: {len(kept)} of {made.layers} layers, {made.chosen.floats:.1%} of their weights")
    print_rows(
        ("layer", "operator", "alone dB", "noise"),
        [(n, known[n].operator, f"{known[n].alone_db:.1f}", f"{known[n].share:.1%}") for n in kept[:SHOWN]],
        text=frozenset({1}),
    )
    if len(kept) > SHOWN:
        print(f"… {len(kept) - SHOWN} more (in the exclusion file)")


def print_pareto_front(made: Tuning) -> None:
    """Engines by latency."""
    from quantkit.tuning.result import two_decimals

    if made.front:
        print("\nengines, on the part held out")
        rows = [
            (
                p.name,
                p.precision,
                f"{p.milliseconds:.3f}",
                "" if p.drop is None else two_decimals(p.drop),
                "*" * p.chosen,
            )
            for p in made.front
        ]
        print_rows(("engine", "precision", "ms", "drop", ""), rows, text=frozenset({1}))

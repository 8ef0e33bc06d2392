"""The command `quantkit tune`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.engine_options import level, tune_time
from quantkit.cli.arguments.parsing import NUMBER, WHOLE, parse_counts
from quantkit.cli.arguments.quantized_type import searched_type
from quantkit.cli.arguments.unused import refuse_unused
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import (
    OVER_BUDGET,
    Printing,
    note,
    print_fields,
    print_heading,
    print_line,
    print_rows,
    print_sentence,
    warn,
)
from quantkit.cli.terminal.model_table import print_model_table
from quantkit.errors import UsageError
from quantkit.paths import beside, exists, real_path
from quantkit.view import quoted

if TYPE_CHECKING:
    from quantkit.tuning.options import TuneOptions
    from quantkit.tuning.result import Tuning
    from quantkit.tuning.speed.candidate import SpeedCandidate
    from quantkit.tuning.speed.result import SpeedTuning
    from quantkit.tuning.trial import Trial

SHOWN = 10


@verb(
    "Search for the cheapest quantization within a budget",
    "quantkit tune model.onnx --data images/val --max-drop 0.5",
    "quantkit tune model.onnx --data images/val --max-drop 1 --html tuning.html",
    "quantkit tune model.onnx --data val --max-drop 0.5 --objective latency",
)
@click.argument("model", metavar="MODEL", type=options.PATH)
@options.max_drop(required=True)
@click.option(
    "--objective",
    metavar="accuracy|latency|balanced",
    default="accuracy",
    show_default=True,
    help="Aim inside the budget: fewest changes to INT8 (accuracy), the fastest engine (latency), or a fast one that "
    "leaves a part of the budget (balanced). The last two need a GPU, and choose FP16 if no INT8 engine is faster.",
)
@options.data_choice(limit="all", required=True)
@options.labels
@options.classes
@options.metric("; without labels, agreement with the float model")
@click.option(
    "--holdout",
    metavar="FRACTION",
    type=NUMBER,
    default=0.5,
    show_default=True,
    help="Fraction of the samples held out for the final report; never used to choose.",
)
@click.option(
    "--calibration",
    metavar="PATH",
    help="Data for statistics and repairs. Default: the part of --data that is not held out.",
)
@options.stats("collected from the calibration data")
@options.rules("Several are tried in the given order. Default: all.")
@options.repair("all")
@searched_type
@options.layer_selection(without=("rule", "min_coverage", "type", "int8", "fp8"))
@click.option(
    "--max-float",
    metavar="FRACTION",
    default="10%",
    show_default=True,
    help="Largest fraction of the layers that may stay in float.",
)
@click.option(
    "--max-evaluations",
    metavar="N",
    type=WHOLE,
    default=20,
    show_default=True,
    help="Maximum number of evaluations of one model on one part of the data, the report's and the float model's "
    "included.",
)
@click.option(
    "--output",
    "-o",
    metavar="DIR",
    type=options.PATH,
    help="Folder for model, table, exclusion file and tune.json. Default: MODEL.tuned beside the model.",
)
@options.html
@click.option("--batch", metavar="N,N…", default="1,8,32", show_default=True, help=options.BATCHES)
@tune_time("For the objectives latency and balanced.", default=15.0)
@level
@options.tensorrt_version
@click.option("--no-front", is_flag=True, help="Do not build engines, even if a GPU with TensorRT is available.")
@options.device
@options.force
@options.printing_tables
def tune(
    model: Path,
    max_drop: float,
    samples: options.DataChoice,
    calibration: str | None,
    stats: Path | None,
    selection: options.LayerSelection,
    output: Path | None,
    html: Path | None,
    force: bool,
    printing: Printing,
    **own: Any,
) -> int:
    """Find the cheapest quantization of MODEL that loses no more than a budget.

    Calibration methods, repairs, then layers kept in float are tried in this order, from one pass over the data, and
    the search ends at the first candidate that meets the budget. It uses one part of --data; the reported figures come
    from the other part, and decide the exit code.
    """
    from quantkit.cli.terminal.progress import Spinner
    from quantkit.evaluation.json_document import evaluation_json
    from quantkit.tuning.json_document import tuning_document
    from quantkit.tuning.tune import tune as run

    if own["objective"] == "accuracy":
        refuse_unused(dict.fromkeys(("batch", "tune_time", "level"), "it is for --objective latency and balanced"))
    chosen = tune_options(samples, selection, own, force=force)
    target = output or beside(model, f"{model.stem}.tuned")
    refuse_report_path(html, target, model, samples.data, force=force)
    with Spinner(hidden=printing.hides_progress) as spinner:
        result = run(
            model,
            samples.data,
            max_drop=max_drop,
            output=target,
            labels=own["labels"],
            calibration=calibration,
            statistics=stats,
            preprocess=samples.preprocess,
            options=chosen,
            phase=spinner.phase,
        )
    if html is not None:
        write_report(result, html, force=force)
    for text in result.report.warnings:
        warn(text)
    printing.print_result(
        result,
        lambda tuning: tuning_document(tuning, evaluation_json(tuning.report)),
        lambda tuning: print_tuning(tuning, html),
    )
    return 0 if result.within_budget and not result.report.doubts else OVER_BUDGET


def refuse_report_path(html: Path | None, folder: Path, model: Path, data: str | None, *, force: bool) -> None:
    """Raise UsageError, StaleError or OutputError before the work if the report could not be written after it."""
    from quantkit.evaluation.files import refuse_unwritable
    from quantkit.tuning.files import tuning_paths

    if html is None:
        return
    if real_path(html) in {real_path(path) for path in tuning_paths(folder, model.stem).values()}:
        raise UsageError(f"tune writes {html} itself", remedy="give the report another name with --html")
    in_new_folder = not exists(folder) and real_path(html).parent == real_path(folder)
    if not in_new_folder:
        refuse_unwritable({"--html": html}, read=(model, data), force=force)


def write_report(result: Tuning, html: Path, *, force: bool) -> None:
    """Write the HTML report. OutputError, StaleError."""
    from quantkit.artifact import text_bytes, write_whole
    from quantkit.report.html import tuning_page

    write_whole(html, text_bytes(tuning_page(result)), "--html", force=force)


def tune_options(
    samples: options.DataChoice, selection: options.LayerSelection, own: dict[str, Any], *, force: bool
) -> TuneOptions:
    """Return the options as a value. UsageError."""
    from quantkit.data import DataOptions
    from quantkit.repairs.registry import REPAIR_NAMES, parse_repairs
    from quantkit.tuning.options import RULES, TuneOptions

    return TuneOptions(
        **selection.keywords(),
        holdout=own["holdout"],
        type=own["type"],
        rules=own["rule"] or RULES,
        repairs=REPAIR_NAMES if own["repair"] is None else parse_repairs(own["repair"]),
        most=parse_fraction(own["max_float"]),
        evaluations=own["max_evaluations"],
        tensorrt_version=own["tensorrt_version"],
        data=samples.reading(),
        calibration=DataOptions(skip_corrupt=bool(samples.skip_corrupt), frame_step=samples.frame_step or 1),
        metrics=own["metric"],
        classes=own["classes"],
        objective=own["objective"],
        batches=parse_counts(own["batch"], "--batch"),
        tune_time=own["tune_time"],
        level=own["level"],
        front=not own["no_front"],
        device=own["device"],
        force=force,
    )


def parse_fraction(text: str) -> float:
    """Return the fraction that `10%` or `0.1` stands for. UsageError."""
    match = re.fullmatch("([0-9]{1,20}(?:[.][0-9]{1,20})?) ?(%?)", text.strip())
    fraction = float(match[1]) / (100.0 if match[2] else 1.0) if match else -1.0
    if not 0.0 <= fraction <= 1.0:
        raise UsageError(f"--max-float {quoted(text)} is not a fraction", remedy="for example --max-float 10%")
    return fraction


def print_tuning(result: Tuning, html: Path | None) -> None:
    """Print the candidates, the chosen one, and what it loses on the held-out part."""
    from quantkit.metrics.registry import metric_title

    for text in result.notes:
        if text not in result.report.warnings:
            note(text)
    print_fields(
        [
            ("budget", f"{result.budget} of {metric_title(result.metric)}"),
            ("samples", f"{result.samples[0]:,} to tune on, {result.samples[1]:,} held out"),
            ("evaluations", str(result.evaluations)),
            *([("types", f"operators with weights: {result.types_text}")] if result.type.value != "int8" else []),
            ("time", f"{result.seconds:.1f} s"),
        ]
    )
    print_heading("candidates, on the part to tune on: SQNR on a few samples, loss ± standard error")
    rows = [candidate_row(trial, result) for trial in result.trials]
    print_rows(("rule, repairs, layers", "SQNR dB", "drop", "outcome"), rows, text=frozenset({3}))
    print_heading("on the held-out part")
    print_model_table(result.report)
    print_fp8_layers(result)
    print_float_layers(result)
    print_speed(result)
    print_pareto_front(result)
    print_line()
    print_sentence(result.verdict)
    for path in (*result.files, *([html] if html else [])):
        print_line(f"wrote  {path}")
    if not result.within_budget:
        warn(f"over the budget of {result.budget}")
    elif result.report.doubts:
        warn(f"nothing shows that the budget of {result.budget} is kept: the figures are in doubt")


def candidate_row(trial: Trial, result: Tuning) -> tuple[str, ...]:
    """Return a row of the table of candidates."""
    from quantkit.tuning.result import two_decimals
    from quantkit.tuning.trial import TrialStatus

    figure = trial.figure
    noise = "" if trial.proxy_db != trial.proxy_db else f"{trial.proxy_db:.1f}"
    if figure is None:
        word = "none left" if trial.status is TrialStatus.NO_EVALUATION_LEFT else "skipped"
        return (trial.recipe.text(), noise, "", word)
    word = "within" if figure.cautious_drop <= result.max_drop else "near" if figure.drop <= result.max_drop else "over"
    mark = f"{word} *" if trial is result.chosen else word
    return (trial.recipe.text(), noise, f"{two_decimals(figure.drop)} ± {two_decimals(figure.error)}", mark)


def print_fp8_layers(result: Tuning) -> None:
    """Print the layers that are FP8 while others are INT8, if any."""
    chosen = result.chosen.recipe.fp8
    if not chosen:
        return
    known = {layer.node: layer for layer in result.layer_types}
    print_heading(f"FP8: {len(chosen)} of {len(known)} layers with kernels of both types, SQNR with each alone in dB")
    rows = [
        (node, known[node].operator, f"{known[node].int8_db:.1f}", f"{known[node].fp8_db:.1f}")
        for node in chosen[:SHOWN]
    ]
    print_rows(("layer", "operator", "INT8", "FP8"), rows, text=frozenset({1}))
    if len(chosen) > SHOWN:
        print_line(f"… {len(chosen) - SHOWN} more (in the file of types)")


def print_float_layers(result: Tuning) -> None:
    """Print the layers that stay in float, if any."""
    kept = result.chosen.recipe.kept
    if not kept:
        return
    known = {layer.node: layer for layer in result.ranking}
    print_heading(f"kept in float: {len(kept)} of {result.layers} layers, {result.chosen.floats:.1%} of their weights")
    print_rows(
        ("layer", "operator", "alone dB", "noise"),
        [
            (n, known[n].operator, f"{known[n].alone_db:.1f}", f"{known[n].share:.1%}")
            if n in known
            else (n, "", "", "")
            for n in kept[:SHOWN]
        ],
        text=frozenset({1}),
    )
    if len(kept) > SHOWN:
        print_line(f"… {len(kept) - SHOWN} more (in the exclusion file)")


def print_speed(result: Tuning) -> None:
    """Print the engines that were built to find the fastest, if any were."""
    found = result.speed
    if found is None:
        return
    print_heading(
        f"engines on {found.machine}: ms ± half the spread, {found.seconds / 60:.1f} of {found.limit / 60:g} min"
    )
    print_rows(
        ("candidate", "float", *(f"batch {batch}" for batch in found.batches), "drop", "outcome"),
        [speed_row(candidate, found) for candidate in found.candidates],
        text=frozenset({len(found.batches) + 3}),
    )
    if found.ties:
        print_line(f"no measurable difference: {', '.join((found.chosen.name, *found.ties))}")


def speed_row(candidate: SpeedCandidate, found: SpeedTuning) -> tuple[str, ...]:
    """Return a row of the table of engines."""
    from quantkit.tuning.result import two_decimals

    times = [candidate.times[batch].text() if batch in candidate.times else "" for batch in found.batches]
    kept = str(len(candidate.placement.kept)) if candidate.kind.value == "qdq" else ""
    drop = "" if candidate.figure is None else two_decimals(candidate.figure.drop)
    outcome = "*" if candidate is found.chosen else "" if candidate.times else candidate.outcome
    return (candidate.name, kept, *times, drop, outcome)


def print_pareto_front(result: Tuning) -> None:
    """Print engines by latency, if any were built."""
    from quantkit.tuning.result import two_decimals

    if not result.front or result.speed is not None:
        return
    print_heading("engines, on the held-out part")
    rows = [
        (
            p.name,
            p.precision,
            f"{p.milliseconds:.3f}",
            "" if p.drop is None else two_decimals(p.drop),
            "*" * p.chosen,
        )
        for p in result.front
    ]
    print_rows(("engine", "precision", "ms", "drop", ""), rows, text=frozenset({1}))

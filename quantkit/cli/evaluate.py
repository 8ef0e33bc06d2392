"""`quantkit evaluate` and `quantkit compare`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.console import (
    OVER_BUDGET,
    note,
    print_fields,
    print_json,
    print_rows,
    print_sentence,
    table_width,
    warn,
)

if TYPE_CHECKING:
    from quantkit.evaluation.options import EvaluateOptions
    from quantkit.evaluation.result import Evaluation, ModelScore

SHOWN = 5
COLUMNS = 80
LEVEL = 0.05
"""p below this is called more than chance."""


@click.command()
@click.argument("models", metavar="MODEL…", nargs=-1, required=True)
@click.option(
    "--data",
    metavar="PATH",
    required=True,
    help="Folder of images, .npy or .npz file, folder of .npz batches, or module:callable.",
)
@click.option(
    "--labels",
    metavar="FILE",
    type=options.PATH,
    help="file,label a line (.csv, .tsv, .txt), an array (.npz, .npy), or boxes (COCO's .json, a folder of YOLO's "
    ".txt). Default: class folders, or the data's own array labels.",
)
@click.option(
    "--classes",
    metavar="FILE",
    type=options.PATH,
    help="Class names in the order of the network's outputs: one a line, .json or .csv. Default: the folders, sorted.",
)
@click.option("--no-labels", is_flag=True, help="Only compare outputs.")
@click.option(
    "--metric",
    metavar="NAME",
    multiple=True,
    help="top1, top5, yolo (COCO's mAP), or module:callable; @OUTPUT behind it names an output; several times, the "
    "first one decides. Default: top1.",
)
@options.preprocess
@click.option(
    "--limit", metavar="N", type=int, help="Samples at most, spread evenly over the sorted list. Default: all."
)
@click.option("--batch-size", metavar="N", type=int, help="Samples a batch. Default: about 32.")
@options.skip_corrupt
@click.option("--workers", metavar="N", type=int, help="Threads that decode. Default: one a core, 8 at most.")
@click.option("--names", metavar="NAME,NAME…", help="What to call the models. Default: their files' names.")
@click.option(
    "--max-drop",
    metavar="POINTS",
    type=float,
    help="Exit code 3 where a model loses more of the metric than this (points, where it is a share).",
)
@click.option("--output", "-o", metavar="FILE.json", type=options.PATH, help="Write the result for compare.")
@click.option("--html", metavar="FILE.html", type=options.PATH, help="Write a report in one file.")
@options.provider
@options.min_coverage
@options.device
@click.option("--allow-code", is_flag=True, help="Run the code that version compatible engines bring along.")
@options.force
@options.quiet
@options.as_json
def evaluate(
    models: tuple[str, ...],
    data: str,
    output: Path | None,
    html: Path | None,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Evaluate MODELs on the same samples; the first is the reference.

    A MODEL is a float or Q/DQ ONNX model, a TensorRT engine, or model.onnx+model.calib: INT8 as TensorRT would do it by
    that table, simulated. Labels are class folders, a file, or an array beside the data; without labels outputs are
    compared.
    """
    from quantkit.cli.progress import ProgressBar
    from quantkit.evaluation.evaluate import evaluate as run
    from quantkit.evaluation.files import refuse_unwritable, write_evaluation
    from quantkit.evaluation.json_document import evaluation_json

    parts = [part for text in models for part in (text, *text.rpartition("+")[::2])]
    read = (*parts, data, settings["labels"], settings["classes"])
    refuse_unwritable({"--output": output, "--html": html}, read=read, force=settings.pop("force"))
    made = run(
        models,
        data,
        labels=settings.pop("labels"),
        preprocess=settings.pop("preprocess"),
        metrics=settings.pop("metric"),
        options=evaluate_options(settings),
        progress=ProgressBar(hidden=quiet or as_json or not sys.stderr.isatty(), about="evaluating"),
    )
    files: dict[Path, bytes] = {}
    if html is not None:
        files[html] = evaluation_report(made)
    made = write_evaluation(made, output, files)
    for text in made.warnings:
        warn(text)
    if as_json:
        print_json(evaluation_json(made))
    elif not quiet:
        print_evaluation(made)
    return 0 if made.within_budget else OVER_BUDGET


def evaluation_report(made: Evaluation) -> bytes:
    """The report."""
    from quantkit.artifact import text_bytes
    from quantkit.report.html import evaluation_page

    return text_bytes(evaluation_page(made))


def evaluate_options(settings: dict[str, Any]) -> EvaluateOptions:
    """The options as values. UsageError."""
    from quantkit.data import DataOptions
    from quantkit.evaluation.options import EvaluateOptions

    names = {"limit", "batch_size", "skip_corrupt", "workers"}
    called = settings.pop("names")
    return EvaluateOptions(
        data=DataOptions(**{name: settings[name] for name in names if settings[name] is not None}),
        without_labels=settings.pop("no_labels"),
        names=tuple(called.split(",")) if called else (),
        **{name: value for name, value in settings.items() if name not in names},
    )


def print_evaluation(made: Evaluation) -> None:
    """The figures, for people."""
    for text in made.notes:
        if text not in made.warnings:
            note(text)
    known = made.provenance
    print_fields(
        [
            ("data", f"{made.samples:,} samples of {known['data']['source']}"),
            ("labels", known["labels"] or "none used"),
            ("reference", f"{made.reference.name} ({made.reference.kind.value})"),
            *speed_fields(made),
            (
                "time",
                f"{made.seconds:.1f} s, {made.samples * len(made.models) / max(made.seconds, 1e-9):,.0f} samples/s",
            ),
        ]
    )
    print()
    print_model_table(made)
    for model in made.candidates:
        print_class_drops(model, several=len(made.candidates) > 1)
    if made.verdict:
        print()
    for text in made.verdict:
        print_sentence(text)
    for path in made.files:
        print(f"wrote  {path}")
    if not made.within_budget:
        unit = " points" if made.share else ""
        warn(f"over the budget of {made.max_drop:g}{unit}")


def print_model_table(made: Evaluation) -> None:
    """A line for each model, with what other metrics found where there is room; else in a table of their own."""
    table = [head(made.metric), *(score_cells(model, made) for model in made.models)]
    others = [name for name in made.reference.metrics if name != made.metric]
    found = [others, *([told(name, model.metrics.get(name)) for name in others] for model in made.models)]
    whole = [(*line[:2], *more, *line[2:]) for line, more in zip(table, found, strict=True)]
    if table_width(whole) <= COLUMNS:
        print_rows(whole[0], whole[1:])
        return
    print_rows(table[0], table[1:])
    print()
    print_rows(("model", *others), [(line[0], *more) for line, more in zip(table[1:], found[1:], strict=True)])


def told(metric: str, value: float | None) -> str:
    """The figure of a metric that nothing is decided by."""
    from quantkit.evaluation.result import format_metric

    return format_metric(value, re.fullmatch(r"top\d+(@.+)?", metric) is not None)


def speed_fields(made: Evaluation) -> list[tuple[str, str]]:
    """How fast each model ran, and where."""
    rows = []
    for model in made.models:
        if model.speed is not None:
            alone = f", {model.speed.latency_ms:.3f} ms for {model.speed.batch}" if model.speed.latency_ms else ""
            rows.append(("samples/s", f"{model.speed.samples_per_second:,.0f} by {model.name}{alone}"))
    places = sorted({model.speed.where for model in made.models if model.speed})
    return [*rows, ("on", "; ".join(places))] if places else rows


def head(metric: str | None) -> tuple[str, ...]:
    """The columns; narrow, so that a line keeps to 80 characters."""
    return ("model", metric or "metric", "drop", "95 % interval", "agree", "SQNR dB", "INT8")


def score_cells(model: ModelScore, made: Evaluation) -> tuple[str, ...]:
    """A line of the table."""
    from quantkit.evaluation.result import score_row

    _, metric, drop, interval, agree, sqnr, *_ = score_row(model, made)
    layers = f"{model.int8_layers[0]}/{model.int8_layers[1]}" if model.int8_layers else ""
    return (model.name, metric, drop, interval, agree, sqnr, layers)


def print_class_drops(model: ModelScore, *, several: bool) -> None:
    """Classes that dropped by more than chance, and samples that changed."""
    about = f" of {model.name}" if several else ""
    worst = [found for found in model.classes if found.p < LEVEL and found.drop > 0]
    if worst:
        print(f"\nclasses that drop by more than chance{about}")
        print_rows(
            ("class", "samples", "reference", "here", "drop", "p"),
            [
                (c.name, str(c.count), f"{c.reference:.2%}", f"{c.candidate:.2%}", f"{c.drop:+.2f}", f"{c.p:.2g}")
                for c in worst[:SHOWN]
            ],
        )
    if len(worst) > SHOWN:
        print(f"… {len(worst) - SHOWN} more (--json has all)")
    if model.changed:
        one = model.changed_samples == 1
        what = "answer" if model.agreement is not None else "score"
        print(f"\n{model.changed_samples:,} {what}{'' if one else 's'}{about} change{'s' if one else ''}")
        print_rows(
            ("sample", "label", "reference", "", "here", ""),
            [
                (
                    c.sample,
                    c.label,
                    c.reference,
                    format_confidence(c.reference_confidence),
                    c.candidate,
                    format_confidence(c.candidate_confidence),
                )
                for c in model.changed[:SHOWN]
            ],
            text=frozenset({1, 2, 4}),
        )


def format_confidence(confidence: float) -> str:
    """A confidence in percent; empty where there is none."""
    return f"{confidence:.0%}" if confidence == confidence else ""
